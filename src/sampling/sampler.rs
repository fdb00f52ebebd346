//! Batches of chains by any of the samplers: a start, a warm-up that adapts and is thrown away, and measured
//! trajectories with all settings frozen.

use std::time::Instant;

use ndarray::{Array1, Array2, Array3, Array4, ArrayView2, Axis, arr1, concatenate, s, stack};

use crate::error::Result;
use crate::files::state::{ANY, Restored, Saved, array, number, read_number, under, within};
use crate::lattice::{Lattice, on_lattice};
use crate::random::Random;
use crate::sampling::adaptation::Adaptation;
use crate::sampling::config::{Count, HmcConfig, Sampler, Start};
use crate::sampling::hmc::Trajectory;
use crate::sampling::kernel::{Kernel, state_at};
use crate::sampling::replicas::{Exchanged, Replicas};
use crate::sampling::states::TargetSamples;
use crate::seed::{Stage, TaskSeed};
use crate::targets::observe::{self, Observable};

/// What is recorded of each trajectory behind the observables, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    LnWeight,
    Acceptance,
    EnergyError,
    Hamiltonian,
    Accepted,
    SpinEnergy,
    SpinMagnetization,
}

impl Recorded {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::LnWeight,
        Self::Acceptance,
        Self::EnergyError,
        Self::Hamiltonian,
        Self::Accepted,
        Self::SpinEnergy,
        Self::SpinMagnetization,
    ];
    pub const COUNT: usize = Self::ALL.len();

    /// Its place among all that is recorded.
    pub const fn place(self) -> usize {
        Observable::COUNT + self as usize
    }
}

/// Where a saved sampling has its replicas.
const REPLICAS: &str = "replicas";

/// Numbers recorded of each trajectory of each chain.
const COLUMNS: usize = Observable::COUNT + Recorded::COUNT;

/// A sampling between two trajectories: with these numbers it goes on as if it had never stopped.
#[derive(Debug)]
pub struct Sampling {
    /// Trajectories done, warm-up included.
    pub done: i64,
    /// (chains, N)
    pub position: Array2<f64>,
    /// (chains, N): x of these, where replicas have moved it.
    pub field: Option<Array2<f64>>,
    pub adaptation: Adaptation,
    /// None where each chain is alone.
    pub replicas: Option<Replicas>,
    /// (trajectory, chain, [`Observable::TABLE`] and [`Recorded`]) of the measured trajectories.
    pub records: Array3<f64>,
    /// (chains, N): sum of S(k) over the measured trajectories.
    pub structure_sum: Array2<f64>,
    /// (draw, x and z, chain, N): states of latent HMC that are kept.
    states: Array4<f64>,
    /// Trajectories from one of these to the next.
    kept_spacing: i64,
    /// Divergent trajectories of the warm-up.
    pub warmup_divergences: usize,
    /// Gradients of each chain in the measured trajectories: of the potential that it moves in; and those of the density that
    /// its replicas took.
    pub gradients: [i64; 2],
    /// Seconds of the warm-up, and of the measured trajectories.
    pub seconds: [f64; 2],
    lattice: Lattice,
}

impl Sampling {
    /// Nothing is done yet.
    pub fn new(position: Array2<f64>, replicas: Option<Replicas>, config: &HmcConfig) -> Self {
        let (chains, sites) = position.dim();
        Self {
            done: 0,
            field: None,
            adaptation: Adaptation::new(config),
            replicas,
            records: Array3::zeros((0, chains, COLUMNS)),
            structure_sum: Array2::zeros((chains, sites)),
            states: Array4::zeros((0, 2, chains, sites)),
            kept_spacing: config.kept_spacing(),
            warmup_divergences: 0,
            position,
            gradients: [0; 2],
            seconds: [0.0; 2],
            lattice: Lattice::new(sites.isqrt()),
        }
    }

    /// What [`Sampling::restore`] needs besides the configuration.
    pub fn state(&self) -> Saved {
        let mut state = Saved::from([
            ("done".into(), number(self.done as f64)),
            ("position".into(), self.position.clone().into_dyn()),
            ("records".into(), self.records.clone().into_dyn()),
            ("structure_sum".into(), self.structure_sum.clone().into_dyn()),
            ("states".into(), self.states.clone().into_dyn()),
            ("kept_spacing".into(), number(self.kept_spacing as f64)),
            ("warmup_divergences".into(), number(self.warmup_divergences as f64)),
            ("gradients".into(), arr1(&self.gradients.map(|count| count as f64)).into_dyn()),
            ("seconds".into(), arr1(&self.seconds).into_dyn()),
        ]);
        state.extend(self.field.clone().map(|field| ("field".into(), field.into_dyn())));
        state.extend(self.adaptation.state());
        state.extend(self.replicas.iter().flat_map(|all| under(REPLICAS, all.state())));
        state
    }

    /// The sampling by a kernel of a saved state, on a lattice of N = `sites`. Chains of fewer trajectories go on; of the
    /// states that they keep those stay that longer chains keep.
    ///
    /// # Errors
    /// The state lacks something.
    pub fn restore(
        kernel: &Kernel,
        config: &HmcConfig,
        sites: usize,
        state: &Saved,
    ) -> Restored<Self> {
        let chains = config.chains as usize;
        let done = read_number(state, "done")? as i64;
        let replicas = kernel.latent().filter(|_| config.replicas != Count::Fixed(1));
        let replicas = replicas
            .map(|model| Replicas::restore(model, config, &within(REPLICAS, state)))
            .transpose()?;
        let moved = replicas.is_some() && done > 0;
        let field = moved.then(|| array(state, "field", [chains, sites]));
        let states: Array4<f64> = array(state, "states", [ANY, 2, chains, sites])?;
        let kept_spacing = config.kept_spacing();
        let every = kept_spacing / (read_number(state, "kept_spacing")? as i64).max(1);
        let every = every.max(1) as usize;
        let first = (every - 1).min(states.dim().0);
        let states = states.slice(s![first..;every, .., .., ..]).to_owned();
        let gradients: Array1<f64> = array(state, "gradients", 2)?;
        let seconds: Array1<f64> = array(state, "seconds", 2)?;
        Ok(Self {
            done,
            position: array(state, "position", [chains, sites])?,
            field: field.transpose()?,
            adaptation: Adaptation::restore(config, state)?,
            replicas,
            records: array(state, "records", [ANY, chains, COLUMNS])?,
            structure_sum: array(state, "structure_sum", [chains, sites])?,
            states,
            kept_spacing,
            warmup_divergences: read_number(state, "warmup_divergences")? as usize,
            gradients: [gradients[0] as i64, gradients[1] as i64],
            seconds: [seconds[0], seconds[1]],
            lattice: Lattice::new(sites.isqrt()),
        })
    }

    /// Works off all trajectories that are left. `after` is called after each, when the sampling can be saved.
    ///
    /// # Errors
    /// Those of `after`.
    pub fn finish(
        &mut self,
        kernel: &Kernel,
        config: &HmcConfig,
        (seed, stage): (&TaskSeed, Stage),
        mut after: impl FnMut(&Self) -> Result<()>,
    ) -> Result<()> {
        let mut state = match (kernel.latent(), &self.field) {
            (Some(model), Some(field)) => state_at(model, self.position.view(), field.view()),
            _ => kernel.state(self.position.view()),
        };
        while self.done < config.warmup + config.trajectories {
            let start = Instant::now();
            let warming = self.done < config.warmup;
            if self.done == config.warmup {
                self.adaptation.freeze();
                self.replicas.iter_mut().for_each(Replicas::freeze);
            }
            let random = seed.at(stage, self.done);
            let tuned = (&mut self.adaptation, self.replicas.as_mut());
            let (moved, gradients) = kernel.advance(&state, tuned, warming, &random);
            if warming {
                self.warmup_divergences += moved.divergences(config.divergence_threshold);
                if let Some(replicas) = &mut self.replicas {
                    replicas.adapt(self.done + 1, config.warmup);
                }
            } else {
                self.record(kernel, config, &moved, &random);
                self.gradients[0] += gradients.own;
                self.gradients[1] += gradients.of_replicas;
            }
            state = moved.state;
            self.position.assign(&state.position);
            self.field = self.replicas.is_some().then(|| state.field.clone());
            self.done += 1;
            self.seconds[usize::from(!warming)] += start.elapsed().as_secs_f64();
            after(self)?;
        }
        Ok(())
    }

    /// Observables and the sampler's own record of one trajectory, and its states where they are kept.
    fn record(&mut self, kernel: &Kernel, config: &HmcConfig, moved: &Trajectory, random: &Random) {
        let field = kernel.field(&moved.state, random);
        if kernel.latent().is_some() && config.keeps(self.done - config.warmup + 1) {
            let pair = stack(Axis(0), &[field.view(), moved.state.position.view()]);
            let pair = pair.expect("one latent for each site");
            self.states.push(Axis(0), pair.view()).expect("as many chains and sites");
        }
        let structure_factor = observe::structure_factor(&self.lattice, field.view());
        let spins = observe::draw_spins(field.view(), random, 0);
        let of_spins = observe::of_spins(&self.lattice, spins.view());
        let scalars =
            observe::scalars(&self.lattice, field.view(), structure_factor.view(), spins.view());
        let ln_weights = kernel.ln_weights(&moved.state);
        let accepted: Array1<f64> = moved.accepted.iter().copied().map(f64::from).collect();
        let Trajectory { acceptance, energy_error, hamiltonian, .. } = moved;
        let own = Recorded::ALL.map(|recorded| match recorded {
            Recorded::LnWeight => ln_weights.view(),
            Recorded::Acceptance => acceptance.view(),
            Recorded::EnergyError => energy_error.view(),
            Recorded::Hamiltonian => hamiltonian.view(),
            Recorded::Accepted => accepted.view(),
            Recorded::SpinEnergy => of_spins.column(0),
            Recorded::SpinMagnetization => of_spins.column(1),
        });
        let row = stack(Axis(1), &own)
            .and_then(|own| concatenate(Axis(1), &[scalars.view(), own.view()]))
            .expect("one row for each chain");
        self.records.push(Axis(0), row.view()).expect("as many chains and columns");
        self.structure_sum += &structure_factor;
    }

    /// The measured chains of a sampling that is finished.
    pub fn chains(&self, sampler: Sampler, config: &HmcConfig) -> Chains {
        let records =
            self.records.view().permuted_axes([2, 1, 0]).as_standard_layout().into_owned();
        let structure_factors = &self.structure_sum / config.trajectories as f64;
        let correlations = observe::correlation(&self.lattice, structure_factors.view());
        let energy_errors = records.index_axis(Axis(0), Recorded::EnergyError.place());
        let divergent = energy_errors.iter().filter(|&&error| error > config.divergence_threshold);
        Chains {
            sampler,
            divergences: divergent.count(),
            warmup_divergences: self.warmup_divergences,
            structure_factors: on_lattice(structure_factors),
            correlations: on_lattice(correlations),
            step_size: self.adaptation.step_size(),
            trajectory_length: self.adaptation.trajectory_length(),
            gradients: self.gradients,
            exchanged: self.replicas.as_ref().map(Replicas::exchanged),
            seconds: self.seconds,
            states: TargetSamples::of_states(&self.states),
            records,
        }
    }
}

/// The measured chains.
#[derive(Debug)]
pub struct Chains {
    pub sampler: Sampler,
    /// ([`Observable::TABLE`] and [`Recorded`], chain, trajectory).
    pub records: Array3<f64>,
    /// (chain, k_x, k_y): structure factor averaged along each chain.
    pub structure_factors: Array3<f64>,
    /// (chain, r_x, r_y): correlation function averaged along each chain.
    pub correlations: Array3<f64>,
    /// Measured trajectories whose energy error was not finite or above the threshold.
    pub divergences: usize,
    /// The same during the warm-up.
    pub warmup_divergences: usize,
    /// Leapfrog step size and mean trajectory length, frozen after the warm-up.
    pub step_size: f64,
    pub trajectory_length: f64,
    /// Gradients that each chain took in its measured trajectories: of the potential that it moves in; and those of the
    /// density that its replicas took.
    pub gradients: [i64; 2],
    /// What became of the exchanges with replicas, where there are any.
    pub exchanged: Option<Exchanged>,
    /// Seconds of the warm-up, and of the measured trajectories.
    pub seconds: [f64; 2],
    /// States that were kept.
    pub states: TargetSamples,
}

impl Chains {
    /// Chains of one observable. Shapes: (chain, trajectory).
    pub fn observable(&self, observable: Observable) -> ArrayView2<'_, f64> {
        self.records.index_axis(Axis(0), observable as usize)
    }

    /// Chains of what is recorded besides. Shapes: (chain, trajectory).
    pub fn recorded(&self, recorded: Recorded) -> ArrayView2<'_, f64> {
        self.records.index_axis(Axis(0), recorded.place())
    }

    /// Chains of all observables. Shapes: (observable, chain, trajectory).
    pub fn scalars(&self) -> ndarray::ArrayView3<'_, f64> {
        self.records.slice(s![..Observable::COUNT, .., ..])
    }

    /// Most proposals that one chain rejected in a row.
    pub fn longest_rejection(&self) -> usize {
        let longest = |chain: ndarray::ArrayView1<f64>| {
            let mut run = 0;
            let runs = chain.iter().map(|&accepted| {
                run = if accepted == 0.0 { run + 1 } else { 0 };
                run
            });
            runs.max().unwrap_or(0)
        };
        let accepted: Array2<f64> = self.recorded(Recorded::Accepted).to_owned();
        accepted.rows().into_iter().map(longest).max().unwrap_or(0)
    }
}

/// What is thrown away of each chain and what is measured, in words.
pub fn warmup_rule(config: &HmcConfig, exchanged: Option<&Exchanged>) -> String {
    let rule = format!(
        "the first {} trajectories, in which all settings adapt, are thrown away; all is frozen afterwards",
        config.warmup
    );
    let Some(Exchanged { temperatures, left_out, .. }) = exchanged else { return rule };
    let listed = |all: &[f64]| {
        let all: Vec<String> = all.iter().map(|t| format!("{t:.4}")).collect();
        all.join(", ")
    };
    if !left_out.is_empty() {
        let left_out = listed(left_out);
        return format!(
            "{rule}, and replicas at T = {left_out} are given up, since states came back from there too seldom; the chain \
             still moves without the flow, too"
        );
    }
    match temperatures[..] {
        [_] => format!("{rule}; the chain moves without the flow, too"),
        _ => format!(
            "{rule}; replicas at T = {}, of which the first is measured",
            listed(temperatures)
        ),
    }
}

/// Runs all chains of a sampler from its start, or what is left of that after `restored`. `after` is called after
/// each trajectory, when the sampling can be saved.
///
/// # Errors
/// Those of `after`.
pub fn sample(
    sampler: Sampler,
    kernel: &Kernel,
    (config, start): (&HmcConfig, Start),
    seed: &TaskSeed,
    restored: Option<Sampling>,
    after: impl FnMut(&Sampling) -> Result<()>,
) -> Result<Sampling> {
    let stage = match sampler {
        Sampler::Latent => Stage::LatentHmc,
        Sampler::Physical => Stage::PhysicalHmc,
        Sampler::Fourier => Stage::FourierHmc,
        Sampler::Independence => Stage::Independence,
    };
    let mut sampling = restored.unwrap_or_else(|| {
        let random = seed.at(stage, -1);
        let position = kernel.start(config.chains as usize, start, &random);
        Sampling::new(position, kernel.replicas(config, &random), config)
    });
    sampling.finish(kernel, config, (seed, stage), after)?;
    Ok(sampling)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::files::schema;

    /// Chains of latent HMC that went well, with these records.
    pub(crate) fn chains_of(records: Array3<f64>) -> Chains {
        let count = records.dim().1;
        Chains {
            sampler: Sampler::Latent,
            records,
            structure_factors: Array3::zeros((count, 4, 4)),
            correlations: Array3::zeros((count, 4, 4)),
            divergences: 0,
            warmup_divergences: 3,
            step_size: 0.1,
            trajectory_length: 1.0,
            gradients: [4000, 0],
            exchanged: None,
            seconds: [1.0, 2.0],
            states: TargetSamples::of_states(&Array4::zeros((0, 2, count, 16))),
        }
    }

    #[test]
    fn what_is_recorded_has_its_place_and_the_name_of_the_schema() {
        let names = [
            "ln_weight",
            "acceptance",
            "energy_error",
            "hamiltonian",
            "accepted",
            "spin_energy",
            "spin_magnetization",
        ];
        for (place, recorded) in Recorded::ALL.into_iter().enumerate() {
            assert_eq!(recorded.place(), Observable::COUNT + place);
            assert_eq!(schema::CHAINS[recorded.place()].name, names[place]);
        }
        assert_eq!(schema::CHAINS.len(), COLUMNS);
    }
}
