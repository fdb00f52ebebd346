//! The numbers of a task under the names that files have for them, those of [`schema`](crate::files::schema).

use super::results::{References, Results};
use crate::files::Numbers;
use crate::files::schema::IMPORTANCE_FREE_ENERGY;
use crate::sampling::config::Sampler;
use crate::sampling::estimates::{Estimates, Measured, Reweighted};
use crate::sampling::replicas::Exchanged;
use crate::sampling::sampler::Chains;
use crate::statistics::{Forward, Importance};
use crate::targets::exact::ExactIsing;
use crate::targets::observe::{Derived, Observable};
use crate::train::data::HeldOut;

/// What a task took: wall times in seconds, and memory.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub train: f64,
    pub evaluate: f64,
    /// Of the whole task.
    pub wall: f64,
    /// Since 1970.
    pub finished: f64,
    /// Peak of the process in bytes.
    pub peak_memory: f64,
}

/// Numbers and pairs (value, error) by name.
#[derive(Debug, Default)]
struct Named(Numbers);

impl Named {
    fn number(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    fn pair(&mut self, name: &str, (value, error): (f64, f64)) {
        self.number(name, value);
        self.number(&format!("{name}_error"), error);
    }

    fn derived(&mut self, derived: [(f64, f64); Derived::COUNT]) {
        for ((_, [name, ..]), pair) in Derived::TABLE.into_iter().zip(derived) {
            self.pair(name, pair);
        }
    }
}

/// Scalars of a task, those of [`task_scalars`](crate::files::schema::task_scalars).
pub fn of_results(results: &Results, problems: usize, skipped_steps: i64) -> Numbers {
    let mut named = Named(of_estimates(&results.estimates));
    let &Results { importance, forward, weighted_samples, .. } = results;
    named.pair("free_energy", results.free_energy);
    let Importance { free_energy, free_energy_error, .. } = importance;
    named.pair(IMPORTANCE_FREE_ENERGY, (free_energy, free_energy_error));
    named.number("effective_sample_size", importance.effective_sample_size);
    named.number("weighted_samples", weighted_samples as f64);
    named.number("largest_weight_share", importance.largest_weight_share);
    let Forward { free_energy, free_energy_error, .. } = forward;
    named.pair("forward_free_energy", (free_energy, free_energy_error));
    named.number("forward_effective_sample_size", forward.effective_sample_size);
    named.number("forward_weight_mean", forward.weight_mean);
    named.pair("bridge_free_energy", results.bridge_free_energy);
    named.pair("ising_free_energy", results.ising_free_energy);
    if let Some(deviations) = &results.deviations {
        named.pair("gap", deviations.gap);
        named.pair("gap_per_site", deviations.gap_per_site);
        named.pair("relative_error", deviations.relative_error);
        for (name, pull) in deviations.pulls() {
            named.number(&format!("{name}_pull"), pull);
        }
    }
    named.number("problems", problems as f64);
    named.number("skipped_steps", skipped_steps as f64);
    named.0
}

/// Estimates of a sampler, those of [`sampler_scalars`](crate::files::schema::sampler_scalars).
pub fn of_estimates(estimates: &Estimates) -> Numbers {
    let mut named = Named::default();
    for ((_, naming), measured) in Observable::TABLE.into_iter().zip(&estimates.observables) {
        let (name, Measured { estimate, r_hat, ess_bulk, ess_tail }) = (naming.name, measured);
        named.pair(name, (estimate.mean, estimate.error));
        named.pair(&format!("{name}_tau_int"), (estimate.tau_int, estimate.tau_int_error));
        named.number(&format!("{name}_r_hat"), *r_hat);
        named.number(&format!("{name}_ess_bulk"), *ess_bulk);
        named.number(&format!("{name}_ess_tail"), *ess_tail);
    }
    named.derived(estimates.derived);
    named.number("acceptance", estimates.acceptance);
    named.number("divergences", estimates.divergences as f64);
    named.number("warmup_divergences", estimates.warmup_divergences as f64);
    named.number("step_size", estimates.step_size);
    named.number("trajectory_length", estimates.trajectory_length);
    named.number("leapfrog_steps", estimates.leapfrog_steps);
    named.number("e_bfmi", estimates.e_bfmi);
    named.number("longest_rejection", estimates.longest_rejection as f64);
    named.number("ess_least", estimates.ess_least);
    named.number("ess_per_gradient", estimates.ess_per_gradient);
    let alone = Exchanged::default();
    let exchanged = estimates.exchanged.as_ref().unwrap_or(&alone);
    named.number("replicas", exchanged.temperatures.len().max(1) as f64);
    named.number("replica_gradients", estimates.replica_gradients);
    named.number("exchange_rate_least", exchanged.least_rate());
    named.number("round_trips", exchanged.round_trips);
    named.0
}

/// Estimates from weighted samples, some of those of a sampler.
pub fn of_reweighted(reweighted: &Reweighted) -> Numbers {
    let mut named = Named::default();
    for ((_, naming), pair) in Observable::TABLE.into_iter().zip(reweighted.observables) {
        named.pair(naming.name, pair);
    }
    named.derived(reweighted.derived);
    named.0
}

/// Exact values, those of [`REFERENCE_SCALARS`](crate::files::schema::REFERENCE_SCALARS).
pub fn of_references(references: Option<&References>) -> Numbers {
    let mut named = Named::default();
    if let Some(References { exact, gaussian }) = references {
        let &ExactIsing { ln_z_ising, free_energy_field, energy_per_site, specific_heat_per_site } =
            exact;
        named.number("free_energy_exact", free_energy_field);
        named.number("ising_free_energy_exact", -ln_z_ising);
        named.number("energy_exact", energy_per_site);
        named.number("specific_heat_exact", specific_heat_per_site);
        if let Some(gaussian) = gaussian {
            let relative = (gaussian - free_energy_field) / free_energy_field.abs();
            named.number("free_energy_gaussian", *gaussian);
            named.number("relative_error_gaussian", relative);
        }
    }
    named.0
}

/// What held-out fields say of the flow, those of [`HELD_OUT_SCALARS`](crate::files::schema::HELD_OUT_SCALARS).
pub fn of_held_out(held_out: &HeldOut) -> Numbers {
    let mut named = Named::default();
    named.number("samples", held_out.samples as f64);
    named.pair("negative_ln_likelihood", held_out.negative_ln_likelihood);
    named.pair("training_negative_ln_likelihood", held_out.training_negative_ln_likelihood);
    if let Some(bits) = held_out.bits_per_dimension {
        named.pair("bits_per_dimension", bits);
    }
    if let Some(forward_kl) = held_out.forward_kl {
        named.pair("forward_kl", forward_kl);
    }
    named.0
}

/// What differs between two runs of a task, by [`TIMING_SCALARS`](crate::files::schema::TIMING_SCALARS): times, NaN of
/// samplers that did not run, and memory.
pub fn of_times(times: Times, samplers: &[Chains], ess_least: f64) -> Numbers {
    let mut named = Named::default();
    for sampler in Sampler::ALL {
        let ran = samplers.iter().find(|chains| chains.sampler == sampler);
        let [warmup, measured] = ran.map_or([f64::NAN; 2], |ran| ran.seconds);
        named.number(&format!("{}_warmup_seconds", sampler.name()), warmup);
        named.number(&format!("{}_seconds", sampler.name()), measured);
        if sampler == Sampler::Latent {
            named.number("hmc_seconds", warmup + measured);
            named.number("ess_per_second", ess_least / measured);
        }
    }
    named.number("train_seconds", times.train);
    named.number("evaluate_seconds", times.evaluate);
    named.number("wall_seconds", times.wall);
    named.number("finished_unix_seconds", times.finished);
    named.number("peak_memory_bytes", times.peak_memory);
    named.0
}
