//! Evaluation of a trained flow: fresh samples with their log-densities, and the free energies that
//! follow from them.

use ndarray::{Array1, Array2, Axis, s};

use crate::engine::Model;
use crate::error::Result;
use crate::files::state::{ANY, Restored, Saved, array};
use crate::flow::symmetry::with_signs;
use crate::lattice::Lattice;
use crate::sampling::config::EvaluateConfig;
use crate::seed::{Stage, TaskSeed};
use crate::statistics::{Importance, importance, mean_and_standard_error};
use crate::targets::observe::{self, Observable};

/// Independent samples of the flow.
#[derive(Debug)]
pub struct Evaluation {
    /// ln q(x) of each sample.
    pub ln_q: Vec<f64>,
    /// ln π(x) of each sample.
    pub ln_pi: Vec<f64>,
    /// (sample, observable), observables as in [`Observable::TABLE`].
    pub scalars: Array2<f64>,
    /// (sample, N): the first samples, with signs drawn.
    pub fields: Array2<f64>,
}

impl Evaluation {
    /// Draws `config.samples` samples in batches, or those that `restored` lacks. `after_batch` is called
    /// after each batch with all samples so far.
    ///
    /// # Errors
    /// Those of `after_batch`.
    pub fn draw(
        model: &Model,
        config: &EvaluateConfig,
        seed: &TaskSeed,
        restored: Option<Self>,
        mut after_batch: impl FnMut(&Self) -> Result<()>,
    ) -> Result<Self> {
        let lattice = Lattice::new(model.flow.architecture.linear_size);
        let random = seed.at(Stage::Evaluate, 0);
        let mut samples = restored.unwrap_or_else(|| Self {
            ln_q: Vec::new(),
            ln_pi: Vec::new(),
            scalars: Array2::zeros((0, Observable::COUNT)),
            fields: Array2::zeros((0, lattice.sites())),
        });
        let (all, keep) = (config.samples as usize, config.keep_samples as usize);
        while samples.ln_q.len() < all {
            let first = samples.ln_q.len();
            let last = all.min(first + config.batch as usize);
            let draw = model.draw_of_prior(&random, first..last);
            samples.ln_pi.extend(draw.ln_pi);
            samples.ln_q.extend(draw.ln_q);
            let fields = with_signs(draw.field, model.symmetry(), &random, first);
            let structure_factor = observe::structure_factor(&lattice, fields.view());
            let spins = observe::draw_spins(fields.view(), &random, first);
            let scalars =
                observe::scalars(&lattice, fields.view(), structure_factor.view(), spins.view());
            samples.scalars.append(Axis(0), scalars.view()).expect("as many observables");
            let kept = fields.slice(s![..keep.saturating_sub(first).min(last - first), ..]);
            samples.fields.append(Axis(0), kept).expect("all fields have N sites");
            after_batch(&samples)?;
        }
        Ok(samples)
    }

    /// What [`Evaluation::restore`] needs.
    pub fn state(&self) -> Saved {
        Saved::from([
            ("ln_q".into(), Array1::from(self.ln_q.clone()).into_dyn()),
            ("ln_pi".into(), Array1::from(self.ln_pi.clone()).into_dyn()),
            ("scalars".into(), self.scalars.clone().into_dyn()),
            ("fields".into(), self.fields.clone().into_dyn()),
        ])
    }

    /// The samples of a saved state, on a lattice of so many sites.
    ///
    /// # Errors
    /// The state lacks something.
    pub fn restore(config: &EvaluateConfig, sites: usize, state: &Saved) -> Restored<Self> {
        let ln_q = array(state, "ln_q", ANY)?.to_vec();
        let drawn = ln_q.len();
        let kept = drawn.min(config.keep_samples as usize);
        Ok(Self {
            ln_q,
            ln_pi: array(state, "ln_pi", drawn)?.to_vec(),
            scalars: array(state, "scalars", (drawn, Observable::COUNT))?,
            fields: array(state, "fields", (kept, sites))?,
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
