//! Evaluation of a trained flow: fresh samples with their log-densities, and the free energies that
//! follow from them.

use ndarray::{Array2, Array3};
use tch::{Device, Kind, Tensor};

use crate::config::EvaluateConfig;
use crate::engine::FrozenModel;
use crate::flow::symmetry::with_signs;
use crate::host::to_array;
use crate::observe;
use crate::seed::{Stage, TaskSeed};
use crate::stats::{Importance, importance, mean_and_standard_error};

/// Independent samples of the flow.
#[derive(Debug)]
pub struct Evaluation {
    /// ln q(x) of each sample.
    pub ln_q: Vec<f64>,
    /// ln π(x) of each sample.
    pub ln_pi: Vec<f64>,
    /// (observable, sample), observables as in [`observe::SCALARS`].
    pub scalars: Array2<f64>,
    /// (sample, L, L): the first samples, with signs drawn.
    pub fields: Array3<f64>,
}

impl Evaluation {
    /// Draws `config.samples` samples in batches.
    pub fn draw(
        model: &FrozenModel,
        config: &EvaluateConfig,
        (size, kind, device): (i64, Kind, Device),
        seed: &TaskSeed,
    ) -> Self {
        let (mut ln_q, mut ln_pi, mut fields) = (Vec::new(), Vec::new(), Vec::new());
        let mut scalars = Vec::new();
        let mut drawn = 0;
        for step in 0.. {
            let batch = config.batch.min(config.samples - drawn);
            if batch == 0 {
                break;
            }
            seed.reseed_torch(Stage::Evaluate, step);
            let draw = model.draw(&Tensor::randn([batch, size, size], (kind, device)));
            ln_pi.extend(to_array::<ndarray::Ix1>(&draw.ln_pi));
            ln_q.extend(to_array::<ndarray::Ix1>(&draw.ln_q));
            let signed = with_signs(&draw.field, model.symmetry());
            seed.reseed_torch(Stage::Reweighting, step);
            scalars.push(observe::scalars(&signed));
            if drawn < config.keep_samples {
                let keep = batch.min(config.keep_samples - drawn);
                fields.push(signed.narrow(0, 0, keep));
            }
            drawn += batch;
        }
        let scalars = to_array(&Tensor::cat(&scalars, 0).transpose(0, 1));
        Self { ln_q, ln_pi, scalars, fields: to_array(&Tensor::cat(&fields, 0)) }
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
