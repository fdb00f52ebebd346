//! Single numbers.

use std::sync::LazyLock;

use super::{Item, number};
use crate::targets::observe::{Derived, Naming, Observable};

/// Estimates that are compared with exact values; their deviations in standard errors are called so with `_pull` behind.
pub const COMPARED: [&str; 4] =
    ["energy", "specific_heat", IMPORTANCE_FREE_ENERGY, "bridge_free_energy"];

pub const IMPORTANCE_FREE_ENERGY: &str = "importance_free_energy";

/// Results of a task besides those of [`sampler_scalars`], one number each; the collected file has all of them over
/// (temperature, depth, seed).
pub const TASK_SCALARS: &[Item] = &[
    number("free_energy", "nat", "variational free energy E_q[ln q - ln pi], a bound above -ln Z"),
    number("free_energy_error", "nat", "standard error of free_energy"),
    number("gap", "nat", "free_energy + ln Z, the KL divergence of q from the target"),
    number("gap_error", "nat", "standard error of gap"),
    number("gap_per_site", "nat", "gap per lattice site"),
    number("gap_per_site_error", "nat", "standard error of gap_per_site"),
    number("relative_error", "1", "gap / |ln Z| of the field (the paper's convention)"),
    number("relative_error_error", "1", "standard error of relative_error"),
    number(IMPORTANCE_FREE_ENERGY, "nat", "importance-weighted estimate of -ln Z"),
    number(
        "importance_free_energy_error",
        "nat",
        "jackknife error; where chains find weight that the flow misses, or the weights are worth fewer than 100 samples, at least the distance to bridge_free_energy",
    ),
    number("effective_sample_size", "1", "(sum w)^2 / (n sum w^2), a fraction of the samples"),
    number("weighted_samples", "1", "samples that the importance weights are of"),
    number("largest_weight_share", "1", "largest importance weight / sum of all"),
    number(
        "forward_free_energy",
        "nat",
        "E_pi[ln q - ln pi] over the HMC chains, a bound below -ln Z where they have equilibrated",
    ),
    number("forward_free_energy_error", "nat", "standard error of forward_free_energy"),
    number(
        "forward_effective_sample_size",
        "1",
        "1 / (E_pi[w] E_pi[1/w]) over the HMC chains: that of effective_sample_size for samples of pi",
    ),
    number(
        "forward_weight_mean",
        "1",
        "E_pi[Z / w] with Z from the importance weights: 1, less where samples of q miss weight",
    ),
    number(
        "bridge_free_energy",
        "nat",
        "estimate of -ln Z of the field from samples of the flow and HMC chains together, right where the flow misses weight",
    ),
    number("bridge_free_energy_error", "nat", "standard error, autocorrelation included"),
    number(
        "ising_free_energy",
        "nat",
        "estimate of -ln Z of the Ising spins: bridge_free_energy less the Gaussian integral",
    ),
    number("ising_free_energy_error", "nat", "standard error, that of bridge_free_energy"),
    number("energy_pull", "1", "deviation of energy from the exact value in standard errors"),
    number("specific_heat_pull", "1", "deviation of specific_heat in standard errors"),
    number(
        "importance_free_energy_pull",
        "1",
        "deviation of importance_free_energy in standard errors",
    ),
    number("bridge_free_energy_pull", "1", "deviation of bridge_free_energy in standard errors"),
    number("problems", "1", "how many problems the verdict lists; 0: ok"),
    number("skipped_steps", "1", "training steps skipped for a non-finite loss or gradient"),
];

/// A sampler's own record.
pub const SAMPLER_SCALARS: &[Item] = &[
    number("acceptance", "1", "mean acceptance of the measured trajectories"),
    number("divergences", "1", "measured trajectories with a huge or non-finite energy error"),
    number("warmup_divergences", "1", "the same during the warm-up"),
    number("step_size", "1", "leapfrog step size, frozen after the warm-up"),
    number("trajectory_length", "1", "mean trajectory length, frozen after the warm-up"),
    number(
        "leapfrog_steps",
        "1",
        "mean gradients of a measured trajectory: its leapfrog steps, one for a global move, two to come back from replicas",
    ),
    number("e_bfmi", "1", "energy's fraction of missing information over all chains"),
    number("longest_rejection", "trajectory", "most proposals that one chain rejected in a row"),
    number("ess_least", "1", "least bulk ESS of all observables"),
    number(
        "ess_per_gradient",
        "1",
        "ess_least / gradients of all chains, without those of replicas; 0 where none are taken",
    ),
    number("replicas", "1", "replicas of each chain at rising temperatures, itself included"),
    number(
        "replica_gradients",
        "1",
        "mean gradients of the density that the replicas of a chain take for a measured trajectory",
    ),
    number(
        "exchange_rate_least",
        "1",
        "mean probability of an exchange of the neighbours that exchange least; 1 without replicas",
    ),
    number(
        "round_trips",
        "1",
        "how often a state came to a chain from the highest temperature, mean over the chains",
    ),
];

/// What files have of an observable behind its mean: what is added to its name, units, where these are not its own, and
/// meaning with {} for its name.
const BEHIND_MEANS: [(&str, Option<&str>, &str); 6] = [
    ("_error", None, "standard error, autocorrelation included"),
    ("_tau_int", Some("trajectory"), "integrated autocorrelation time of {}"),
    ("_tau_int_error", Some("trajectory"), "standard error of that time"),
    ("_r_hat", Some("1"), "rank-normalized split R-hat of {}, at most 1000"),
    ("_ess_bulk", Some("1"), "effective samples in the bulk, of all chains"),
    ("_ess_tail", Some("1"), "effective samples in the tails, of all chains"),
];

/// Observables with errors and diagnostics, and what follows from their means with errors.
static ESTIMATES_OF_OBSERVABLES: LazyLock<Vec<Item>> = LazyLock::new(|| {
    let mut items = Vec::new();
    for (_, Naming { name, units, of_mean, .. }) in Observable::TABLE {
        items.push(number(name, units, of_mean));
        items.extend(BEHIND_MEANS.map(|(ending, other_units, meaning)| {
            let meaning = meaning.replace("{}", name).leak();
            number(format!("{name}{ending}").leak(), other_units.unwrap_or(units), meaning)
        }));
    }
    for (_, [name, units, meaning]) in Derived::TABLE {
        items.push(number(name, units, meaning));
        items.push(number(format!("{name}_error").leak(), units, "jackknife error"));
    }
    items
});

/// Estimates and diagnostics of a sampler.
pub fn sampler_scalars() -> impl Iterator<Item = &'static Item> {
    ESTIMATES_OF_OBSERVABLES.iter().chain(SAMPLER_SCALARS)
}

/// All scalars of a task: its own and those of latent HMC.
pub fn task_scalars() -> impl Iterator<Item = &'static Item> {
    TASK_SCALARS.iter().chain(sampler_scalars())
}

/// Exact and analytic values, functions of L and T only; the collected file has them over temperature.
pub const REFERENCE_SCALARS: &[Item] = &[
    number("free_energy_exact", "nat", "-ln Z of the field, exact"),
    number("ising_free_energy_exact", "nat", "-ln Z of the Ising spins, exact (Kaufman 1949)"),
    number("energy_exact", "J", "energy per site, exact"),
    number("specific_heat_exact", "k_B", "specific heat per site, exact"),
    number(
        "free_energy_gaussian",
        "nat",
        "least free energy of a mixed pair of Gaussians, no network",
    ),
    number("relative_error_gaussian", "1", "its gap / |ln Z| of the field"),
];

/// What differs between two runs of the same task.
pub const TIMING_SCALARS: &[Item] = &[
    number("train_seconds", "s", "wall time of training"),
    number("evaluate_seconds", "s", "wall time of evaluation"),
    number("hmc_seconds", "s", "wall time of latent HMC"),
    number("latent_warmup_seconds", "s", "wall time of its warm-up"),
    number("latent_seconds", "s", "wall time of its measured trajectories"),
    number(
        "physical_warmup_seconds",
        "s",
        "wall time of the warm-up of physical HMC; NaN if not run",
    ),
    number("physical_seconds", "s", "wall time of its measured trajectories"),
    number("fourier_warmup_seconds", "s", "the same with Fourier acceleration"),
    number("fourier_seconds", "s", "wall time of its measured trajectories"),
    number("independence_warmup_seconds", "s", "the same of independence Metropolis"),
    number("independence_seconds", "s", "wall time of its measured trajectories"),
    number("ess_per_second", "1/s", "ess_least of latent HMC / latent_seconds"),
    number("wall_seconds", "s", "wall time of the task"),
    number("peak_memory_bytes", "byte", "peak resident memory of the process during the task"),
    number("finished_unix_seconds", "s", "end of the task, seconds since 1970"),
];

/// What a flow that learns from samples makes of the held-out ones; some only for the target's, some only for pictures.
pub const HELD_OUT_SCALARS: &[Item] = &[
    number("samples", "1", "held-out samples"),
    number("negative_ln_likelihood", "nat", "mean of -ln q over the held-out samples"),
    number("negative_ln_likelihood_error", "nat", "standard error, autocorrelation included"),
    number(
        "training_negative_ln_likelihood",
        "nat",
        "the same over as many samples that were trained on: less where the flow overfits",
    ),
    number("training_negative_ln_likelihood_error", "nat", "standard error"),
    number("forward_kl", "nat", "KL(pi | q) = E_pi[ln pi - ln q] - ln Z over the held-out samples"),
    number("forward_kl_error", "nat", "standard error, autocorrelation included"),
    number(
        "bits_per_dimension",
        "bit",
        "negative_ln_likelihood of pixel values in levels per pixel of the picture, padding not counted",
    ),
    number("bits_per_dimension_error", "bit", "standard error"),
];
