//! `neuralrg export`: a trained flow as a safetensors file that explains itself, for programs that do not
//! know how this one lays couplings over the lattice.
//!
//! The metadata `flow` is the [`Structure`] in JSON; docs/files.md lists the tensors.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ndarray::{Array1, ArrayView1, s};
use safetensors::Dtype;
use serde::Serialize;

use crate::engine::Model;
use crate::engine::config::Precision;
use crate::error::Result;
use crate::files::atomic::write_atomically;
use crate::files::tensor_file::Tensor;
use crate::flow::config::Symmetry;
use crate::flow::coupling::{Conditioner, Convolution, Coupling, Networks, Shell, Transform};
use crate::flow::{Architecture, Flow};
use crate::task::trained::{Trained, check_output};

/// Metadata `format` of the file.
pub(super) const FORMAT: &str = "neuralrg-flow 2";

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
    let temperature = trained.model.temperature();
    let structure =
        serde_json::to_string(&structure(flow, temperature)).expect("a structure has a JSON form");
    let metadata = [
        ("format", FORMAT),
        ("code_version", crate::VERSION),
        ("task", &trained.task.name()),
        ("flow", &structure),
        ("configuration", &trained.configuration),
    ];
    let metadata: HashMap<String, String> =
        metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let tensors = tensors(&trained.model, trained.config.run.precision);
    let bytes = safetensors::serialize(tensors, &Some(metadata)).expect("names are unique");
    write_atomically(output, &bytes)
}

fn structure(flow: &Flow, temperature: f64) -> Structure {
    let Architecture { linear_size, depth, seed, config } = &flow.architecture;
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
        temperature,
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

fn tensors(model: &Model, precision: Precision) -> BTreeMap<String, Tensor> {
    let flow = &model.flow;
    let mut tensors = BTreeMap::new();
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
        let mut start = coupling.offset;
        for (j, shape) in coupling.network.parameter_shapes().into_iter().enumerate() {
            let end = start + shape[0] * shape[1];
            let weights = flow.parameters.slice(s![start..end]);
            put(format!("weights.{j}"), numbers(weights, &shape, precision));
            start = end;
        }
    }
    let Architecture { linear_size, ref config, .. } = flow.architecture;
    if config.preconditioner {
        let scales = Array1::from(model.density().spectrum_to(-0.5));
        let scales = numbers(scales.view(), &[linear_size, linear_size], Precision::F64);
        tensors.insert("preconditioner".into(), scales);
    }
    tensors
}

fn numbers(values: ArrayView1<f64>, shape: &[usize], precision: Precision) -> Tensor {
    let values = values.iter();
    let (dtype, bytes) = match precision {
        Precision::F64 => (Dtype::F64, values.flat_map(|value| value.to_le_bytes()).collect()),
        Precision::F32 => {
            (Dtype::F32, values.flat_map(|&value| (value as f32).to_le_bytes()).collect())
        }
    };
    Tensor::new(dtype, shape, bytes)
}

/// Sites as a tensor of so many columns.
fn table(sites: &[u32], columns: usize) -> Tensor {
    let bytes = sites.iter().flat_map(|&site| (site as i32).to_le_bytes()).collect();
    Tensor::new(Dtype::I32, &[sites.len() / columns, columns], bytes)
}
