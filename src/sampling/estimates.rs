//! What chains and weighted samples say of the observables, with errors and diagnostics.

use ndarray::{ArrayView2, ArrayView3, Axis};

use crate::sampling::replicas::Exchanged;
use crate::sampling::sampler::{Chains, Recorded};
use crate::statistics::convergence::{e_bfmi, ess_bulk, ess_tail, r_hat};
use crate::statistics::{Estimate, block_sums, gamma_method, jackknife};
use crate::targets::observe::{self, Derived, Observable};

/// Largest R-hat that is told: chains that do not move at all have an infinite one.
const R_HAT_LIMIT: f64 = 1000.0;

/// An observable by a sampler's chains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Times in trajectories.
    pub estimate: Estimate,
    /// Rank-normalized split R-hat.
    pub r_hat: f64,
    /// Effective samples of all chains, in the bulk and in the tails.
    pub ess_bulk: f64,
    pub ess_tail: f64,
}

/// What a sampler's chains say, and its own record.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimates {
    /// In the order of [`Observable::TABLE`].
    pub observables: [Measured; Observable::COUNT],
    /// (value, jackknife error) in the order of [`Derived::TABLE`].
    pub derived: [(f64, f64); Derived::COUNT],
    /// Mean acceptance of the measured trajectories.
    pub acceptance: f64,
    /// Trajectories with a huge or non-finite energy error, and those of the warm-up.
    pub divergences: usize,
    pub warmup_divergences: usize,
    /// Leapfrog step size and mean trajectory length, frozen after the warm-up.
    pub step_size: f64,
    pub trajectory_length: f64,
    /// Mean gradients of a measured trajectory.
    pub leapfrog_steps: f64,
    /// Energy's fraction of missing information.
    pub e_bfmi: f64,
    /// Most proposals that one chain rejected in a row.
    pub longest_rejection: usize,
    /// Least bulk ESS of all observables; and by gradients of all chains, without those of replicas, 0 where none are taken.
    pub ess_least: f64,
    pub ess_per_gradient: f64,
    /// Mean gradients that the replicas of a chain took for a measured trajectory.
    pub replica_gradients: f64,
    /// What became of the exchanges with replicas, where there are any.
    pub exchanged: Option<Exchanged>,
}

impl Estimates {
    /// Those of chains on the L × L lattice at temperature T, which are for the derived quantities only.
    pub fn new(chains: &Chains, linear_size: usize, temperature: f64) -> Self {
        let observables: [Measured; Observable::COUNT] = std::array::from_fn(|observable| {
            let values = chains.records.index_axis(Axis(0), observable);
            Measured {
                estimate: gamma_method(values),
                r_hat: r_hat(values).min(R_HAT_LIMIT),
                ess_bulk: ess_bulk(values),
                ess_tail: ess_tail(values),
            }
        });
        let times = observables.iter().map(|measured| measured.estimate.tau_int);
        let longest_time = times.fold(0.5, f64::max);
        let samples = observables.iter().map(|measured| measured.ess_bulk);
        let ess_least = samples.fold(f64::INFINITY, f64::min);
        let sums = block_sums(chains.scalars(), None, longest_time);
        let (_, count, draws) = chains.records.dim();
        let gradients = chains.gradients[0] as f64 * count as f64;
        let acceptance = chains.recorded(Recorded::Acceptance).mean();
        Self {
            observables,
            derived: derived(sums.view(), linear_size, temperature),
            acceptance: acceptance.expect("there are trajectories"),
            divergences: chains.divergences,
            warmup_divergences: chains.warmup_divergences,
            step_size: chains.step_size,
            trajectory_length: chains.trajectory_length,
            leapfrog_steps: chains.gradients[0] as f64 / draws as f64,
            e_bfmi: e_bfmi(chains.recorded(Recorded::Hamiltonian)),
            longest_rejection: chains.longest_rejection(),
            ess_least,
            ess_per_gradient: if gradients > 0.0 { ess_least / gradients } else { 0.0 },
            replica_gradients: chains.gradients[1] as f64 / draws as f64,
            exchanged: chains.exchanged.clone(),
        }
    }

    /// One of the observables.
    pub fn observable(&self, observable: Observable) -> &Measured {
        &self.observables[observable as usize]
    }

    /// (value, error) of one of the derived quantities.
    pub fn derived(&self, derived: Derived) -> (f64, f64) {
        self.derived[derived as usize]
    }
}

/// What weighted samples say: (value, jackknife error).
#[derive(Debug, Clone, PartialEq)]
pub struct Reweighted {
    /// In the order of [`Observable::TABLE`].
    pub observables: [(f64, f64); Observable::COUNT],
    /// In the order of [`Derived::TABLE`].
    pub derived: [(f64, f64); Derived::COUNT],
}

impl Reweighted {
    /// Means over samples of q with weights π/q.
    ///
    /// Shapes: scalars (observable, 1, sample), ln_weights (1, sample).
    pub fn new(
        scalars: ArrayView3<f64>,
        ln_weights: ArrayView2<f64>,
        linear_size: usize,
        temperature: f64,
    ) -> Self {
        let largest = ln_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights = ln_weights.mapv(|ln_weight| (ln_weight - largest).exp());
        let sums = block_sums(scalars, Some(weights.view()), 0.5);
        Self {
            observables: jackknife(sums.view(), |means| std::array::from_fn(|i| means[i])),
            derived: derived(sums.view(), linear_size, temperature),
        }
    }
}

fn derived(
    sums: ArrayView2<f64>,
    linear_size: usize,
    temperature: f64,
) -> [(f64, f64); Derived::COUNT] {
    jackknife(sums, |means| observe::derived(means, linear_size, temperature))
}
