//! `neuralrg export`: a trained flow as a safetensors file that explains itself, for programs that do not
//! know how this one lays couplings over the lattice.
//!
//! The metadata `flow` is the [`Structure`] in JSON; docs/files.md lists the tensors.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;
use tch::Tensor;

use crate::checkpoint::{Tensors, serialize};
use crate::config::Symmetry;
use crate::error::Result;
use crate::flow::coupling::{Conditioner, Convolution, Coupling, Networks, Shell, Transform};
use crate::flow::{Architecture, Flow};
use crate::ising::coupling_eigenvalues;
use crate::store::write_atomically;
use crate::trained::{Trained, check_output};

/// Metadata `format` of the file.
const FORMAT: &str = "neuralrg-flow 2";

/// What a reader needs to know besides the tensors.
#[derive(Debug, Serialize)]
struct Structure {
    linear_size: usize,
    /// T in units of J/k_B.
    temperature: f64,
    depth: usize,
    /// Of the training.
    seed: u64,
    symmetry: Symmetry,
    conditioner: Conditioner,
    networks: Networks,
    transform: Transform,
    hidden_layers: usize,
    couplings: Vec<Inputs>,
}

/// The weights of the sums over sites that a coupling's network sees.
#[derive(Debug, Serialize)]
struct Inputs {
    shells: Vec<f64>,
    stencil: Vec<f64>,
    seen: Vec<f64>,
}

/// Writes the trained flow of a task file to `output`.
///
/// # Errors
/// As [`Trained::load`] and [`check_output`], or the file cannot be written.
pub fn export(task: &Path, output: &Path) -> Result<()> {
    check_output(task, output)?;
    let trained = Trained::load(task)?;
    let flow = &trained.model.flow;
    let structure = serde_json::to_string(&structure(flow)).expect("a structure has a JSON form");
    let metadata = [
        ("format", FORMAT),
        ("code_version", crate::VERSION),
        ("task", &trained.task.name()),
        ("flow", &structure),
        ("configuration", &trained.configuration),
    ];
    let metadata: HashMap<String, String> =
        metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    write_atomically(output, &serialize(metadata, &tensors(flow)))
}

fn structure(flow: &Flow) -> Structure {
    let Architecture { linear_size, temperature, depth, seed, config } = &flow.architecture;
    let weights = |shells: &[Shell]| shells.iter().map(|shell| shell.weight).collect();
    let inputs = |coupling: &Coupling| {
        let convolution = coupling.convolution.as_ref();
        let part = |pick: fn(&Convolution) -> &Vec<Shell>| {
            convolution.map_or(Vec::new(), |convolution| weights(pick(convolution)))
        };
        Inputs {
            shells: weights(&coupling.shells),
            stencil: part(|convolution| &convolution.stencil),
            seen: part(|convolution| &convolution.seen),
        }
    };
    Structure {
        linear_size: *linear_size,
        temperature: *temperature,
        depth: *depth,
        seed: *seed,
        symmetry: config.symmetry,
        conditioner: config.conditioner,
        networks: config.networks,
        transform: config.transform,
        hidden_layers: config.hidden_layers,
        couplings: flow.couplings().iter().map(inputs).collect(),
    }
}

fn tensors(flow: &Flow) -> Tensors {
    let mut tensors = Tensors::new();
    for (i, coupling) in flow.couplings().iter().enumerate() {
        let mut put =
            |name: String, tensor| tensors.insert(format!("couplings.{i}.{name}"), tensor);
        put("updated".into(), table(&coupling.updated, coupling.network.updated_per_row));
        let convolution = coupling.convolution.as_ref();
        let convolution = convolution.map(|Convolution { stencil, seen, .. }| (stencil, seen));
        let none = Vec::new();
        let (stencil, seen) = convolution.unwrap_or((&none, &none));
        for (kind, shells) in [("shells", &coupling.shells), ("stencil", stencil), ("seen", seen)] {
            for (j, shell) in shells.iter().enumerate() {
                put(format!("{kind}.{j}"), table(&shell.sites, shell.size));
            }
        }
        let mut start = coupling.offset as i64;
        for (j, shape) in coupling.network.parameter_shapes().into_iter().enumerate() {
            let [rows, columns] = shape.map(|length| length as i64);
            let part = flow.parameters.narrow(0, start, rows * columns);
            put(format!("weights.{j}"), part.view([rows, columns]));
            start += rows * columns;
        }
    }
    let Architecture { linear_size, temperature, ref config, .. } = flow.architecture;
    if config.preconditioner {
        let eigenvalues = coupling_eigenvalues(linear_size, 1.0 / temperature);
        let shape = [linear_size as i64, linear_size as i64];
        let scales = Tensor::from_slice(&eigenvalues).sqrt().view(shape);
        tensors.insert("preconditioner".into(), scales);
    }
    tensors
}

/// Sites as a tensor of so many columns.
fn table(sites: &[u32], columns: usize) -> Tensor {
    let sites: Vec<i32> = sites.iter().map(|&site| site as i32).collect();
    Tensor::from_slice(&sites).view([-1, columns as i64])
}
