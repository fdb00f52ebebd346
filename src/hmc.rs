//! Hybrid Monte Carlo with batched chains (Duane et al. 1987), in the latent space of a flow (App. C).

use tch::{Device, Kind, Tensor};

use crate::checkpoint::{Tensors, number, read_number, tensor};
use crate::config::HmcConfig;
use crate::engine::{FrozenModel, Potential};
use crate::error::Result;
use crate::flow::symmetry::ln_prior;
use crate::host::to_array;
use crate::observe;
use crate::seed::{Stage, TaskSeed};

/// Positions of all chains with what the potential gives there.
#[derive(Debug)]
pub struct State {
    /// (chains, L, L).
    pub position: Tensor,
    /// (chains).
    pub energy: Tensor,
    /// (chains, L, L): ∂U/∂position.
    pub gradient: Tensor,
    /// (chains, L, L).
    pub field: Tensor,
}

impl State {
    /// Evaluates the potential and its gradient at `position`.
    pub fn new(potential: &impl Fn(&Tensor) -> Potential, position: &Tensor) -> Self {
        let Potential { energy, gradient, field } = potential(position);
        Self { position: position.shallow_clone(), energy, gradient, field }
    }

    /// Chain by chain the proposal where `accepted` (chains) holds, else this state; what a rejected
    /// proposal contains, NaN or not, never enters.
    fn select(&self, proposal: &Self, accepted: &Tensor) -> Self {
        let lattice = accepted.view([-1, 1, 1]);
        Self {
            position: proposal.position.where_self(&lattice, &self.position),
            energy: proposal.energy.where_self(accepted, &self.energy),
            gradient: proposal.gradient.where_self(&lattice, &self.gradient),
            field: proposal.field.where_self(&lattice, &self.field),
        }
    }
}

/// `steps` leapfrog steps of size ε from `state` with momenta of unit mass; reversible and
/// volume-preserving.
///
/// Shapes: momentum (chains, L, L).
pub fn leapfrog(
    potential: &impl Fn(&Tensor) -> Potential,
    state: &State,
    momentum: &Tensor,
    step_size: f64,
    steps: i64,
) -> (State, Tensor) {
    let mut momentum = momentum - &state.gradient * (0.5 * step_size);
    let mut position = &state.position + &momentum * step_size;
    let mut end = State::new(potential, &position);
    for _ in 1..steps {
        momentum -= &end.gradient * step_size;
        position = &end.position + &momentum * step_size;
        end = State::new(potential, &position);
    }
    momentum -= &end.gradient * (0.5 * step_size);
    (end, momentum)
}

/// H = U + ½|p|². Shapes: (chains).
pub fn hamiltonian(state: &State, momentum: &Tensor) -> Tensor {
    let kinetic = momentum.square().sum_dim_intlist([1i64, 2].as_slice(), false, None) * 0.5;
    &state.energy + kinetic
}

/// One trajectory of every chain.
#[derive(Debug)]
pub struct Trajectory {
    pub state: State,
    /// (chains): ΔH, infinite where it was not finite.
    pub energy_error: Tensor,
    /// (chains): probability of acceptance min(1, e^{-ΔH}).
    pub acceptance: Tensor,
}

/// Fresh momenta, leapfrog, Metropolis; random numbers from torch's generator.
pub fn trajectory(
    potential: &impl Fn(&Tensor) -> Potential,
    state: &State,
    step_size: f64,
    steps: i64,
) -> Trajectory {
    let momentum = state.position.randn_like();
    let (end, end_momentum) = leapfrog(potential, state, &momentum, step_size, steps);
    let difference = hamiltonian(&end, &end_momentum) - hamiltonian(state, &momentum);
    let usable = difference.isfinite().logical_and(&finite_everywhere(&end));
    let energy_error = difference.where_self(&usable, &difference.full_like(f64::INFINITY));
    let acceptance = (-&energy_error).exp().clamp_max(1.0);
    let accepted = acceptance.rand_like().lt_tensor(&acceptance);
    Trajectory { state: state.select(&end, &accepted), energy_error, acceptance }
}

/// (chains): whether gradient and field hold finite numbers only, so that a chain can go on from there.
fn finite_everywhere(state: &State) -> Tensor {
    let all = |values: &Tensor| values.isfinite().all_dim(2, false).all_dim(1, false);
    all(&state.gradient).logical_and(&all(&state.field))
}

/// Stochastic approximation of the step size whose acceptance is the target (Robbins and Monro 1951):
/// ln ε += n^(-0.6) · error, the mean over the second half of the steps being the result. The error is
/// (acceptance - target) in units of the room on its side, from -1 to 1, so that a start far too small
/// or far too large is left quickly, whatever the target.
///
/// Many chains give the mean acceptance with little noise, so that plain steps of slowly falling gain
/// find the root.
#[derive(Debug)]
pub struct StepSizeAdaptation {
    target_acceptance: f64,
    /// ln ε of every step so far, the next one last.
    ln_steps: Vec<f64>,
}

impl StepSizeAdaptation {
    /// Starts from `step_size`.
    pub fn new(step_size: f64, target_acceptance: f64) -> Self {
        Self { target_acceptance, ln_steps: vec![step_size.ln()] }
    }

    /// Takes in the mean acceptance of one trajectory; returns the step size for the next.
    pub fn update(&mut self, acceptance: f64) -> f64 {
        let gain = (self.ln_steps.len() as f64).powf(-0.6);
        let last = self.ln_steps.last().expect("there is a first step size");
        let error = acceptance - self.target_acceptance;
        let room = if error > 0.0 { 1.0 - self.target_acceptance } else { self.target_acceptance };
        let next = last + gain * error / room;
        self.ln_steps.push(next);
        next.exp()
    }

    /// ln ε of every step so far.
    pub fn state(&self) -> Tensors {
        Tensors::from([("ln_steps".into(), Tensor::from_slice(&self.ln_steps))])
    }

    /// Goes on from a saved state.
    pub fn restore(&mut self, state: &Tensors) {
        self.ln_steps = to_array::<ndarray::Ix1>(tensor(state, "ln_steps")).to_vec();
    }

    /// Step size of the next trajectory of the warm-up.
    fn step_size(&self) -> f64 {
        self.ln_steps.last().expect("there is a first step size").exp()
    }

    /// The step size to be frozen after the warm-up.
    pub fn finish(&self) -> f64 {
        let second_half = &self.ln_steps[self.ln_steps.len() / 2..];
        (second_half.iter().sum::<f64>() / second_half.len() as f64).exp()
    }
}

/// The measured chains.
#[derive(Debug)]
pub struct Chains {
    /// (observable, chain, draw), observables in the order of [`observe::SCALARS`].
    pub scalars: ndarray::Array3<f64>,
    /// (chain, k_x, k_y): structure factor averaged along each chain.
    pub structure_factors: ndarray::Array3<f64>,
    /// (chain, r_x, r_y): correlation function averaged along each chain.
    pub correlations: ndarray::Array3<f64>,
    /// (chain, draw): ln π(x) - ln q(x).
    pub ln_weights: ndarray::Array2<f64>,
    /// (chain, draw): probability of acceptance.
    pub acceptance: ndarray::Array2<f64>,
    /// Measured trajectories whose energy error was not finite or above the threshold.
    pub divergences: i64,
    /// The same during the warm-up.
    pub warmup_divergences: i64,
    /// Leapfrog step size, frozen after the warm-up.
    pub step_size: f64,
}

/// Runs all chains: a start from the prior, warm-up with adaptation, then measurement with a frozen
/// step size; or what is left of that after `restored`. `after` is called after each trajectory with the
/// number done, warm-up included, when the sampling can be saved.
///
/// # Errors
/// Those of `after`.
pub fn sample(
    model: &FrozenModel,
    config: &HmcConfig,
    options: (i64, Kind, Device),
    seed: &TaskSeed,
    restored: Option<&Tensors>,
    mut after: impl FnMut(&Sampling, i64) -> Result<()>,
) -> Result<Chains> {
    let potential = |z: &Tensor| model.potential(z);
    let mut sampling = match restored {
        Some(saved) => Sampling::restore(config, options, saved),
        None => Sampling::new(&potential, config, options, seed),
    };
    while sampling.done < config.warmup + config.trajectories {
        sampling.advance(&potential, config, seed);
        after(&sampling, sampling.done)?;
    }
    Ok(sampling.chains(config))
}

/// A sampling with all that it needs to go on after an interruption.
pub struct Sampling {
    state: State,
    adaptation: StepSizeAdaptation,
    /// Trajectories done, warm-up included.
    done: i64,
    /// (), integer.
    warmup_divergences: Tensor,
    divergences: Tensor,
    /// (draw, chain, observable).
    scalars: Tensor,
    /// (draw, chain).
    ln_weights: Tensor,
    acceptance: Tensor,
    /// (chain, k_x, k_y): sum over draws.
    structure_sum: Tensor,
}

impl Sampling {
    fn new(
        potential: &impl Fn(&Tensor) -> Potential,
        config: &HmcConfig,
        options: (i64, Kind, Device),
        seed: &TaskSeed,
    ) -> Self {
        let (size, kind, device) = options;
        seed.reseed_torch(Stage::HmcStart, 0);
        let start = Tensor::randn([config.chains, size, size], (kind, device));
        Self::at(State::new(potential, &start), config, options)
    }

    /// At the first position, nothing done.
    fn at(state: State, config: &HmcConfig, (size, _, device): (i64, Kind, Device)) -> Self {
        let (chains, draws) = (config.chains, config.trajectories);
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Double, device));
        let none = || Tensor::zeros([], (Kind::Int64, device));
        Self {
            state,
            adaptation: StepSizeAdaptation::new(config.step_size, config.target_acceptance),
            done: 0,
            warmup_divergences: none(),
            divergences: none(),
            scalars: zeros(&[draws, chains, observe::SCALARS.len() as i64]),
            ln_weights: zeros(&[draws, chains]),
            acceptance: zeros(&[draws, chains]),
            structure_sum: zeros(&[chains, size, size]),
        }
    }

    /// What [`Sampling::restore`] needs; of the measurements only those that were made.
    pub fn state(&self, config: &HmcConfig) -> Tensors {
        let measured = (self.done - config.warmup).max(0);
        let mut state = self.adaptation.state();
        for (name, values) in [
            ("position", &self.state.position),
            ("energy", &self.state.energy),
            ("gradient", &self.state.gradient),
            ("field", &self.state.field),
            ("warmup_divergences", &self.warmup_divergences),
            ("divergences", &self.divergences),
            ("structure_sum", &self.structure_sum),
        ] {
            // Copies, since sums go on in place.
            state.insert(name.into(), values.copy());
        }
        for (name, values) in [
            ("scalars", &self.scalars),
            ("ln_weights", &self.ln_weights),
            ("acceptance", &self.acceptance),
        ] {
            state.insert(name.into(), values.narrow(0, 0, measured));
        }
        state.insert("done".into(), number(self.done as f64));
        state
    }

    fn restore(config: &HmcConfig, options: (i64, Kind, Device), saved: &Tensors) -> Self {
        let tensor = |name| tensor(saved, name).to_device(options.2);
        let state = State {
            position: tensor("position"),
            energy: tensor("energy"),
            gradient: tensor("gradient"),
            field: tensor("field"),
        };
        let mut sampling = Self::at(state, config, options);
        sampling.adaptation.restore(saved);
        sampling.done = read_number(saved, "done") as i64;
        sampling.warmup_divergences = tensor("warmup_divergences");
        sampling.divergences = tensor("divergences");
        sampling.structure_sum = tensor("structure_sum");
        for (name, values) in [
            ("scalars", &sampling.scalars),
            ("ln_weights", &sampling.ln_weights),
            ("acceptance", &sampling.acceptance),
        ] {
            let measured = tensor(name);
            values.narrow(0, 0, measured.size()[0]).copy_(&measured);
        }
        sampling
    }

    /// The next trajectory, of the warm-up or measured.
    fn advance(
        &mut self,
        potential: &impl Fn(&Tensor) -> Potential,
        config: &HmcConfig,
        seed: &TaskSeed,
    ) {
        let draw = self.done - config.warmup;
        if draw < 0 {
            seed.reseed_torch(Stage::HmcWarmup, self.done);
            let step_size = self.adaptation.step_size();
            let moved = trajectory(potential, &self.state, step_size, config.leapfrog_steps);
            self.adaptation.update(moved.acceptance.mean(Kind::Double).double_value(&[]));
            self.warmup_divergences += divergences(&moved, config);
            self.state = moved.state;
        } else {
            seed.reseed_torch(Stage::Hmc, draw);
            let step_size = self.adaptation.finish();
            let moved = trajectory(potential, &self.state, step_size, config.leapfrog_steps);
            self.scalars.select(0, draw).copy_(&observe::scalars(&moved.state.field));
            // U = -ln p(z) - ln π + ln q.
            let minus_ln_weight = &moved.state.energy + ln_prior(&moved.state.position);
            self.ln_weights.select(0, draw).copy_(&-minus_ln_weight);
            self.acceptance.select(0, draw).copy_(&moved.acceptance);
            self.structure_sum += observe::structure_factor(&moved.state.field);
            self.divergences += divergences(&moved, config);
            self.state = moved.state;
        }
        self.done += 1;
    }

    /// All that was measured.
    fn chains(&self, config: &HmcConfig) -> Chains {
        let structure_factors = &self.structure_sum / config.trajectories as f64;
        Chains {
            scalars: to_array(&self.scalars.permute([2, 1, 0])),
            correlations: to_array(&observe::correlation(&structure_factors)),
            structure_factors: to_array(&structure_factors),
            ln_weights: to_array(&self.ln_weights.transpose(0, 1)),
            acceptance: to_array(&self.acceptance.transpose(0, 1)),
            divergences: self.divergences.int64_value(&[]),
            warmup_divergences: self.warmup_divergences.int64_value(&[]),
            step_size: self.adaptation.finish(),
        }
    }
}

/// Number of divergent chains of one trajectory, on the device. Shapes: ().
fn divergences(moved: &Trajectory, config: &HmcConfig) -> Tensor {
    moved.energy_error.gt(config.divergence_threshold).sum(Kind::Int64)
}
