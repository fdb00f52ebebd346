//! The numbers of a task: free energies, what the chains say, and how far from exact values all this is where such are known.

use super::Task;
use crate::files::schema::IMPORTANCE_FREE_ENERGY;
use crate::sampling::diagnostics::{self, pull};
use crate::sampling::estimates::Estimates;
use crate::sampling::evaluate::Evaluation;
use crate::sampling::sampler::{Chains, Recorded};
use crate::statistics::bridge::bridge;
use crate::statistics::{Forward, Importance, forward};
use crate::targets::Target;
use crate::targets::exact::{ExactIsing, gaussian_integral};
use crate::targets::observe::{Derived, Observable};

/// What a task is compared with: functions of target and temperature only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct References {
    pub exact: ExactIsing,
    /// Free energy of the best pair of Gaussians, in nats.
    pub gaussian: Option<f64>,
}

impl References {
    /// Those of a target at temperature T, where its exact values are known.
    pub fn of(target: &Target, temperature: f64) -> Option<Self> {
        let exact = target.exact(temperature)?;
        Some(Self { exact, gaussian: target.gaussian(temperature) })
    }
}

/// All results of a task; pairs are (value, standard error), free energies in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// Variational free energy, a bound above -ln Z.
    pub free_energy: (f64, f64),
    /// By importance weights. The jackknife does not see what these miss: where they are worth too few samples, or chains find
    /// some that the flow misses, the error is at least the distance to the bridge, with the error of that.
    pub importance: Importance,
    /// Samples that the importance weights are of.
    pub weighted_samples: usize,
    /// What samples of the target say of the flow.
    pub forward: Forward,
    /// -ln Z from samples of flow and target together.
    pub bridge_free_energy: (f64, f64),
    /// The same of the Ising spins.
    pub ising_free_energy: (f64, f64),
    /// Those of latent HMC.
    pub estimates: Estimates,
    pub deviations: Option<Deviations>,
}

/// How far a task is from exact values.
#[derive(Debug, Clone, PartialEq)]
pub struct Deviations {
    /// free_energy + ln Z, the KL divergence of q from the target.
    pub gap: (f64, f64),
    pub gap_per_site: (f64, f64),
    /// gap / |ln Z|.
    pub relative_error: (f64, f64),
    /// Deviations in standard errors.
    pub energy: f64,
    pub specific_heat: f64,
    pub importance_free_energy: f64,
    pub bridge_free_energy: f64,
}

impl Deviations {
    /// Deviations in standard errors, by the names of [`COMPARED`](crate::files::schema::COMPARED).
    pub fn pulls(&self) -> [(&'static str, f64); 4] {
        [
            ("energy", self.energy),
            ("specific_heat", self.specific_heat),
            (IMPORTANCE_FREE_ENERGY, self.importance_free_energy),
            ("bridge_free_energy", self.bridge_free_energy),
        ]
    }
}

impl Results {
    /// What samples of the flow and chains of latent HMC say together.
    pub fn new(
        task: &Task,
        evaluation: &Evaluation,
        (chains, estimates): (&Chains, &Estimates),
        references: Option<&References>,
    ) -> Self {
        let of_target = chains.recorded(Recorded::LnWeight);
        let importance = evaluation.importance();
        let forward = forward(of_target, importance.free_energy);
        let (bridge_free_energy, error) = bridge(&evaluation.ln_weights(), of_target);
        let gaussian = gaussian_integral(task.linear_size, task.temperature);
        let mut results = Self {
            free_energy: evaluation.free_energy(),
            importance,
            weighted_samples: evaluation.ln_q.len(),
            forward,
            bridge_free_energy: (bridge_free_energy, error),
            ising_free_energy: (bridge_free_energy - gaussian, error),
            estimates: estimates.clone(),
            deviations: None,
        };
        if !results.weights_suffice() {
            let Importance { free_energy, free_energy_error, .. } = &mut results.importance;
            let distance = *free_energy - bridge_free_energy;
            *free_energy_error = larger_error(*free_energy_error, distance, error);
        }
        let sites = task.linear_size * task.linear_size;
        results.deviations = references.map(|known| results.deviations_from(&known.exact, sites));
        results
    }

    fn deviations_from(&self, exact: &ExactIsing, sites: usize) -> Deviations {
        let (free_energy, error) = self.free_energy;
        let exact_free_energy = exact.free_energy_field;
        let gap = free_energy - exact_free_energy;
        let over = |divisor: f64| (gap / divisor, error / divisor);
        let energy = self.estimates.observable(Observable::Energy).estimate;
        let pull = |(value, error), exact| pull(value, error, exact);
        Deviations {
            gap: (gap, error),
            gap_per_site: over(sites as f64),
            relative_error: over(exact_free_energy.abs()),
            energy: pull((energy.mean, energy.error), exact.energy_per_site),
            specific_heat: pull(
                self.estimates.derived(Derived::SpecificHeat),
                exact.specific_heat_per_site,
            ),
            importance_free_energy: pull(
                (self.importance.free_energy, self.importance.free_energy_error),
                exact_free_energy,
            ),
            bridge_free_energy: pull(self.bridge_free_energy, exact_free_energy),
        }
    }

    /// Samples of the target that the importance weights are worth.
    pub fn samples_worth(&self) -> f64 {
        self.importance.effective_sample_size * self.weighted_samples as f64
    }

    /// Whether importance weights are worth enough samples to estimate anything.
    pub fn has_weights(&self) -> bool {
        let samples = self.weighted_samples as f64;
        diagnostics::has_weights(self.importance.effective_sample_size, samples)
    }

    /// Whether the flow is known to miss weight of the target.
    pub fn misses_weight(&self) -> bool {
        let forward = self.forward.effective_sample_size;
        diagnostics::misses_weight(self.importance.effective_sample_size, forward)
    }

    /// Whether nothing is known against importance weights.
    pub fn weights_suffice(&self) -> bool {
        self.has_weights() && !self.misses_weight()
    }
}

/// The jackknife's error of the importance-weighted free energy, which does not see what the weights miss, or its distance
/// to the bridge, with the error of that, where this is larger.
fn larger_error(jackknife: f64, distance: f64, bridge_error: f64) -> f64 {
    jackknife.max(distance.hypot(bridge_error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use ndarray::Array2;

    use crate::config::Config;
    use crate::engine::Model;
    use crate::engine::device::Device;
    use crate::files::schema;
    use crate::flow::Flow;
    use crate::random::{Random, Use};
    use crate::sampling::config::EvaluateConfig;
    use crate::sampling::sampler::tests::chains_of;

    const TASK: Task = Task { linear_size: 4, temperature: 2.3, depth: 1, seed: 1 };

    fn evaluation() -> Evaluation {
        let text = "[sweep]\nname = 'test'\nlinear_size = 4\ntemperatures = [2.3]\ndepths = [1]\n";
        let config = Config::parse(text, Path::new("test.toml")).unwrap();
        let flow = Flow::initialize(TASK.architecture(&config.flow), &Random::new(1));
        let model = Model::new(flow, TASK.target(), 2.3, &config.run, Device::Cpu);
        let evaluate = EvaluateConfig { samples: 4096, batch: 1024, keep_samples: 1 };
        Evaluation::draw(&model, &evaluate, &TASK.streams(), None, |_| Ok(())).unwrap()
    }

    fn results(evaluation: &Evaluation, chains: &Chains, known: Option<&References>) -> Results {
        Results::new(&TASK, evaluation, (chains, &Estimates::new(chains, 4, 2.3)), known)
    }

    /// Chains of white noise whose ln π/q lie about `ln_weight`.
    fn chains(ln_weight: f64) -> Chains {
        let columns = Observable::COUNT + Recorded::COUNT;
        let noise = Random::new(2).normals(Use::Latents, 0..columns * 4, 50) * 0.01;
        let mut records = noise.into_shape_with_order((columns, 4, 50)).unwrap();
        records += 1.0;
        records
            .index_axis_mut(ndarray::Axis(0), Recorded::LnWeight.place())
            .mapv_inplace(|noise| noise - 1.0 + ln_weight);
        chains_of(records)
    }

    #[test]
    fn without_exact_values_there_are_no_deviations() {
        let (evaluation, chains) = (evaluation(), chains(16.0));
        let unknown = results(&evaluation, &chains, None);
        assert_eq!(unknown.deviations, None);
        let known = References::of(&TASK.target(), TASK.temperature);
        let found = results(&evaluation, &chains, known.as_ref());
        let deviations = found.deviations.as_ref().unwrap();
        assert!(deviations.gap.0 > 0.0);
        assert_eq!(deviations.gap.0 / 16.0, deviations.gap_per_site.0);
        assert_eq!(Results { deviations: None, ..found }, unknown);
    }

    /// Chains where ln w lies as it does under the flow, and chains that are mostly where it proposes nothing.
    #[test]
    fn importance_weights_that_miss_some_have_an_error_that_says_so() {
        let mut evaluation = evaluation();
        // Weights that differ by a factor of e.
        let ln_weights =
            (0..evaluation.ln_q.len()).map(|sample| 16.0 + 0.5 * (sample as f64).sin());
        evaluation.ln_pi = evaluation.ln_q.iter().zip(ln_weights).map(|(q, w)| q + w).collect();
        let jackknife = evaluation.importance().free_energy_error;
        let typical = -evaluation.importance().free_energy;
        let overlapping = results(&evaluation, &chains(typical), None);
        assert!(!overlapping.misses_weight());
        assert_eq!(overlapping.importance.free_energy_error, jackknife);

        let mut apart = chains(typical);
        let mut ln_weights: Array2<f64> = apart.recorded(Recorded::LnWeight).to_owned();
        ln_weights.slice_mut(ndarray::s![.., ..25]).mapv_inplace(|ln_weight| ln_weight + 20.0);
        apart
            .records
            .index_axis_mut(ndarray::Axis(0), Recorded::LnWeight.place())
            .assign(&ln_weights);
        let missed = results(&evaluation, &apart, None);
        assert!(missed.misses_weight());
        let (bridge, error) = missed.bridge_free_energy;
        let distance = (missed.importance.free_energy - bridge).hypot(error);
        assert!(distance > jackknife, "{distance} {jackknife}");
        assert_eq!(missed.importance.free_energy_error, distance);
        assert_eq!(larger_error(0.5, 0.1, 0.2), 0.5);
    }

    #[test]
    fn what_is_compared_has_the_names_of_the_schema() {
        let known = References::of(&TASK.target(), TASK.temperature);
        let found = results(&evaluation(), &chains(16.0), known.as_ref());
        assert_eq!(found.deviations.unwrap().pulls().map(|(name, _)| name), schema::COMPARED);
    }
}
