//! The flow on GPUs: one kernel for each evaluation, in which a block keeps the fields of a tile of samples in its shared memory
//! through all couplings.
//!
//! The kernels' text (`kernels/`) is part of the program and is compiled for the sizes of a flow when they are needed. It is made of
//! phases between which the threads of a block wait for each other, so that tests run the same text on the host.
//!
//! | file | what |
//! |---|---|
//! | `tables` | couplings as tables of numbers, and the order of weights |
//! | `case` | what kernels are written for, and for what there are none |
//! | `program` | the text for one flow |
//! | `rooms` | where a block keeps what |
//! | `call` | a call of a kernel: what it is given, and what it leaves |
//! | `memory` | a processor's memory, and numbers as bytes |
//! | `known` | the target at the temperatures that were asked for |
//! | `processor` | what runs kernels |
//! | `gpu` | a GPU, by its driver, found at run time |
//! | `compiler` | NVRTC, found at run time, and the folder of compiled kernels |
//! | `host` | the same text on the host, in tests |
//! | `kernels` | the text |

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ndarray::{Array1, Array3, ArrayView1, ArrayView2};

use super::{Batch, Draw, Engine, Image, Loss, Potential};
use crate::engine::config::{Estimator, Precision};
use crate::flow::Architecture;
use crate::flow::config::Symmetry;
use crate::flow::coupling::Coupling;
use crate::flow::symmetry::ln_mean_exp;
use crate::targets::Target;

mod call;
mod case;
mod compiler;
mod gpu;
#[cfg(test)]
mod host;
mod known;
mod memory;
mod processor;
mod program;
mod rooms;
mod tables;
#[cfg(test)]
mod tests;

use call::{Call, Results};
use case::{Case, lack};
pub use gpu::{Gpu, Rates, count, driver_present};
use memory::{Fixed, State};
use processor::Processor;
use program::{Kernel, Program};
use tables::Tables;

/// The flow z → x and its densities on a processor.
#[derive(Debug)]
pub struct Cuda<P: Processor> {
    processor: P,
    /// With 1, 2, 4, … samples in a block, loaded when a batch wants them.
    programs: Vec<(Program, OnceLock<P::Loaded>)>,
    tables: Tables,
    precision: Precision,
    sites: usize,
    couplings: usize,
    preconditioner: bool,
    symmetry: Symmetry,
    target: Option<Target>,
    fixed: Fixed<P>,
    state: Mutex<State<P>>,
}

impl<P: Processor> Cuda<P> {
    /// The flow of `couplings`, which are those of `architecture`, with its target, if there is one.
    ///
    /// # Errors
    /// What these kernels lack for it, in words.
    pub fn new(
        architecture: &Architecture,
        couplings: &[Coupling],
        target: Option<&Target>,
        precision: Precision,
        processor: P,
    ) -> Result<Self, String> {
        if let Some(lack) = lack(couplings) {
            return Err(lack);
        }
        let tables = Tables::new(couplings);
        let shared_limit = processor.shared_limit();
        let case =
            Case { architecture, couplings, target: target.is_some(), precision, shared_limit };
        let programs: Vec<_> = program::lanes(architecture.sites())
            .map_while(|lanes| Some((Program::new(&case, &tables, lanes).ok()?, OnceLock::new())))
            .collect();
        if programs.is_empty() {
            return Err(Program::new(&case, &tables, 1).expect_err("there is no program"));
        }
        let fixed = Fixed::new(&processor, &tables, architecture.linear_size, precision);
        Ok(Self {
            processor,
            programs,
            tables,
            precision,
            sites: architecture.sites(),
            couplings: couplings.len(),
            preconditioner: architecture.config.preconditioner,
            symmetry: architecture.config.symmetry,
            target: target.cloned(),
            fixed,
            state: Mutex::new(State::default()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        // A GPU that failed was a panic; what is written anew for each call does not mind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// -N/2 ln 2π.
    fn ln_norm(&self) -> f64 {
        -0.5 * self.sites as f64 * std::f64::consts::TAU.ln()
    }

    fn image(
        &self,
        kernel: Kernel,
        parameters: ArrayView1<f64>,
        batch: Batch,
        call: &Call<'_>,
        sign: f64,
    ) -> Image {
        let mut state = self.lock();
        let results = self.run(&mut state, kernel, parameters, batch, call);
        Image {
            field: self.fields(&state.field, batch.len()),
            log_det: results.log_det + results.layer * sign,
        }
    }
}

/// Densities of a batch from its sums.
struct Densities {
    ln_p: Array1<f64>,
    /// ln q(x) and ln q(-x) of the flow, and that of the model.
    ln_q: Array1<f64>,
    ln_q_mirror: Array1<f64>,
    ln_q_model: Array1<f64>,
    ln_pi: Array1<f64>,
}

impl<P: Processor> Cuda<P> {
    /// Of samples whose latents were given (`sign` = -1), or of given fields (1).
    fn densities(&self, results: &Results, sign: f64) -> Densities {
        let ln_prior = |latent: &Array1<f64>| latent * -0.5 + self.ln_norm();
        let ln_p = ln_prior(&results.latent);
        let ln_q = &ln_p + &results.log_det * sign - &results.layer;
        let ln_q_mirror =
            ln_prior(&results.mirror_latent) + &results.mirror_log_det - &results.layer;
        let ln_q_model = match self.symmetry {
            Symmetry::Mixture => {
                ln_q.iter().zip(&ln_q_mirror).map(|(&a, &b)| ln_mean_exp(a, b)).collect()
            }
            Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => ln_q.clone(),
        };
        let ln_pi = match self.target {
            Some(_) => &results.quadratic * -0.5 - &results.site,
            None => Array1::from_elem(ln_p.len(), f64::NAN),
        };
        Densities { ln_p, ln_q, ln_q_mirror, ln_q_model, ln_pi }
    }
}

impl<P: Processor> Engine for Cuda<P> {
    fn loss(
        &self,
        parameters: ArrayView1<f64>,
        z: Batch,
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Loss {
        let kernel = match estimator {
            Estimator::Total => Kernel::LossTotal,
            Estimator::Path => Kernel::LossPath,
        };
        let call = Call { symmetry_weight, gradient: true, ..Call::default() };
        let mut state = self.lock();
        let results = self.run(&mut state, kernel, parameters, z, &call);
        let densities = self.densities(&results, -1.0);
        let asymmetry = (self.symmetry == Symmetry::Regularizer)
            .then(|| &densities.ln_q - &densities.ln_q_mirror);
        Loss {
            values: densities.ln_q_model - densities.ln_pi,
            asymmetry,
            gradient: self.gradient(&state, 1.0 / z.len().max(1) as f64),
        }
    }

    fn likelihood_loss(&self, parameters: ArrayView1<f64>, x: Batch) -> Loss {
        let call = Call { gradient: true, ..Call::default() };
        let mut state = self.lock();
        let results = self.run(&mut state, Kernel::LikelihoodLoss, parameters, x, &call);
        Loss {
            values: -self.densities(&results, 1.0).ln_q_model,
            asymmetry: None,
            gradient: self.gradient(&state, 1.0 / x.len().max(1) as f64),
        }
    }

    fn ln_likelihood(&self, parameters: ArrayView1<f64>, x: Batch) -> Array1<f64> {
        let results =
            self.run(&mut self.lock(), Kernel::LnLikelihood, parameters, x, &Call::default());
        self.densities(&results, 1.0).ln_q_model
    }

    fn draw(&self, parameters: ArrayView1<f64>, z: Batch) -> Draw {
        let mut state = self.lock();
        let results = self.run(&mut state, Kernel::Draw, parameters, z, &Call::default());
        let Densities { ln_q_model, ln_pi, .. } = self.densities(&results, -1.0);
        Draw { field: self.fields(&state.field, z.len()), ln_q: ln_q_model, ln_pi }
    }

    fn potential(&self, parameters: ArrayView1<f64>, z: Batch) -> Potential {
        let mut state = self.lock();
        let results = self.run(&mut state, Kernel::Potential, parameters, z, &Call::default());
        let Densities { ln_p, ln_q_model, ln_pi, .. } = self.densities(&results, -1.0);
        Potential {
            energy: ln_q_model - ln_p - ln_pi,
            gradient: self.fields(&state.derivative, z.len()),
            field: self.fields(&state.field, z.len()),
        }
    }

    fn forward(&self, parameters: ArrayView1<f64>, z: Batch) -> Image {
        self.image(Kernel::Forward, parameters, z, &Call::default(), 1.0)
    }

    fn inverse(&self, parameters: ArrayView1<f64>, x: Batch) -> Image {
        self.image(Kernel::Inverse, parameters, x, &Call::default(), -1.0)
    }

    fn forward_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        z: ArrayView2<f64>,
    ) -> Image {
        let call = Call { through: Some(couplings), ..Call::default() };
        let batch = Batch::uniform(z, &f64::NAN);
        self.image(Kernel::ForwardThrough, parameters, batch, &call, 0.0)
    }

    fn inverse_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        y: ArrayView2<f64>,
    ) -> Image {
        let call = Call { through: Some(couplings), ..Call::default() };
        let batch = Batch::uniform(y, &f64::NAN);
        self.image(Kernel::InverseThrough, parameters, batch, &call, 0.0)
    }

    fn inverse_derivatives(
        &self,
        parameters: ArrayView1<f64>,
        x: Batch,
        latents: &[usize],
    ) -> Array3<f64> {
        let call = Call { latents, ..Call::default() };
        let mut state = self.lock();
        self.run(&mut state, Kernel::InverseDerivatives, parameters, x, &call);
        let derivatives = self.fields(&state.derivative, latents.len() * x.len());
        let shape = (latents.len(), x.len(), self.sites);
        derivatives.into_shape_with_order(shape).expect("one field a latent and sample")
    }
}
