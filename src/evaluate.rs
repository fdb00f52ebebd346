//! Evaluation of a trained flow: fresh samples with their log-densities, and the free energies that
//! follow from them.

use ndarray::{Array2, Array3, Axis};
use tch::{Device, Kind, Tensor};

use crate::checkpoint::{Restored, Tensors, tensor};
use crate::config::EvaluateConfig;
use crate::engine::FrozenModel;
use crate::error::Result;
use crate::flow::symmetry::with_signs;
use crate::host::{from_array, normals, to_array};
use crate::observe;
use crate::random::Use;
use crate::seed::{Stage, TaskSeed};
use crate::stats::{Importance, importance, mean_and_standard_error};

/// Independent samples of the flow.
#[derive(Debug)]
pub struct Evaluation {
    /// ln q(x) of each sample.
    pub ln_q: Vec<f64>,
    /// ln π(x) of each sample.
    pub ln_pi: Vec<f64>,
    /// (sample, observable), observables as in [`observe::SCALARS`].
    pub scalars: Array2<f64>,
    /// (sample, L, L): the first samples, with signs drawn.
    pub fields: Array3<f64>,
}

impl Evaluation {
    /// Draws `config.samples` samples in batches, or those that `restored` lacks. `after_batch` is called
    /// after each batch with all samples so far.
    ///
    /// # Errors
    /// Those of `after_batch`.
    pub fn draw(
        model: &FrozenModel,
        config: &EvaluateConfig,
        (size, kind, device): (i64, Kind, Device),
        seed: &TaskSeed,
        restored: Option<Self>,
        mut after_batch: impl FnMut(&Self) -> Result<()>,
    ) -> Result<Self> {
        let side = size as usize;
        let random = seed.at(Stage::Evaluate, 0);
        let mut samples = restored.unwrap_or_else(|| Self {
            ln_q: Vec::new(),
            ln_pi: Vec::new(),
            scalars: Array2::zeros((0, observe::SCALARS.len())),
            fields: Array3::zeros((0, side, side)),
        });
        loop {
            let drawn = samples.ln_q.len() as i64;
            let batch = config.batch.min(config.samples - drawn);
            if batch == 0 {
                return Ok(samples);
            }
            let (first, last) = (drawn as usize, (drawn + batch) as usize);
            let draw =
                model.draw(&normals(&random, Use::Latents, first..last, (size, kind, device)));
            samples.ln_pi.extend(to_array::<ndarray::Ix1>(&draw.ln_pi));
            samples.ln_q.extend(to_array::<ndarray::Ix1>(&draw.ln_q));
            let fields = with_signs(&draw.field, model.symmetry(), &random, first);
            let structure_factor = observe::structure_factor(&fields);
            let scalars = observe::scalars(&fields, &structure_factor, &random, first);
            let scalars: Array2<f64> = to_array(&scalars);
            samples.scalars.append(Axis(0), scalars.view()).expect("as many observables");
            if drawn < config.keep_samples {
                let keep = batch.min(config.keep_samples - drawn);
                let fields: Array3<f64> = to_array(&fields.narrow(0, 0, keep));
                samples.fields.append(Axis(0), fields.view()).expect("all fields are L × L");
            }
            after_batch(&samples)?;
        }
    }

    /// What [`Evaluation::restore`] needs.
    pub fn state(&self) -> Tensors {
        Tensors::from([
            ("ln_q".into(), Tensor::from_slice(&self.ln_q)),
            ("ln_pi".into(), Tensor::from_slice(&self.ln_pi)),
            ("scalars".into(), from_array(&self.scalars)),
            ("fields".into(), from_array(&self.fields)),
        ])
    }

    /// The samples of a saved state, on a lattice of L = `size`.
    ///
    /// # Errors
    /// The state lacks something.
    pub fn restore(config: &EvaluateConfig, size: i64, state: &Tensors) -> Restored<Self> {
        let double = |name, shape: &[i64]| tensor(state, name, Kind::Double, shape);
        let ln_q = double("ln_q", &[-1])?;
        let drawn = ln_q.size()[0];
        let kept = drawn.min(config.keep_samples);
        let values = |tensor: &Tensor| to_array::<ndarray::Ix1>(tensor).to_vec();
        Ok(Self {
            ln_q: values(ln_q),
            ln_pi: values(double("ln_pi", &[drawn])?),
            scalars: to_array(double("scalars", &[drawn, observe::SCALARS.len() as i64])?),
            fields: to_array(double("fields", &[kept, size, size])?),
        })
    }

    /// Variational free energy F = E_q[ln q - ln π] ≥ -ln Z (Eq. 5) and its standard error, in nats.
    pub fn free_energy(&self) -> (f64, f64) {
        let energies: Vec<f64> = self.ln_weights().iter().map(|ln_weight| -ln_weight).collect();
        mean_and_standard_error(&energies)
    }

    /// Importance-weighted free energy and what the weights say of the overlap of q and π.
    pub fn importance(&self) -> Importance {
        importance(&self.ln_weights())
    }

    /// ln π(x) - ln q(x).
    pub fn ln_weights(&self) -> Vec<f64> {
        self.ln_pi.iter().zip(&self.ln_q).map(|(ln_pi, ln_q)| ln_pi - ln_q).collect()
    }
}
