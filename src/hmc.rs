//! Hybrid Monte Carlo with batched chains (Duane et al. 1987), in the latent space of a flow (App. C).

use tch::{Device, Kind, Tensor};

use crate::config::HmcConfig;
use crate::engine::{FrozenModel, Potential};
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
/// step size. `report` is called after each trajectory with the number done, warm-up included.
pub fn sample(
    model: &FrozenModel,
    config: &HmcConfig,
    options: (i64, Kind, Device),
    seed: &TaskSeed,
    mut report: impl FnMut(i64),
) -> Chains {
    let (size, kind, device) = options;
    let potential = |z: &Tensor| model.potential(z);
    seed.reseed_torch(Stage::HmcStart, 0);
    let start = Tensor::randn([config.chains, size, size], (kind, device));
    let mut state = State::new(&potential, &start);

    let mut adaptation = StepSizeAdaptation::new(config.step_size, config.target_acceptance);
    let mut step_size = config.step_size;
    let mut warmup_divergences = Tensor::zeros([], (Kind::Int64, device));
    for draw in 0..config.warmup {
        seed.reseed_torch(Stage::HmcWarmup, draw);
        let moved = trajectory(&potential, &state, step_size, config.leapfrog_steps);
        step_size = adaptation.update(moved.acceptance.mean(Kind::Double).double_value(&[]));
        warmup_divergences += divergences(&moved, config);
        state = moved.state;
        report(draw + 1);
    }
    let step_size = adaptation.finish();

    let (chains, draws) = (config.chains, config.trajectories);
    let observables = observe::SCALARS.len() as i64;
    let scalars = Tensor::zeros([draws, chains, observables], (Kind::Double, device));
    let ln_weights = Tensor::zeros([draws, chains], (Kind::Double, device));
    let acceptance = Tensor::zeros([draws, chains], (Kind::Double, device));
    let mut structure_sum = Tensor::zeros([chains, size, size], (Kind::Double, device));
    let mut divergent = Tensor::zeros([], (Kind::Int64, device));
    for draw in 0..draws {
        seed.reseed_torch(Stage::Hmc, draw);
        let moved = trajectory(&potential, &state, step_size, config.leapfrog_steps);
        scalars.select(0, draw).copy_(&observe::scalars(&moved.state.field));
        // U = -ln p(z) - ln π + ln q.
        let minus_ln_weight = &moved.state.energy + ln_prior(&moved.state.position);
        ln_weights.select(0, draw).copy_(&-minus_ln_weight);
        acceptance.select(0, draw).copy_(&moved.acceptance);
        structure_sum += observe::structure_factor(&moved.state.field);
        divergent += divergences(&moved, config);
        state = moved.state;
        report(config.warmup + draw + 1);
    }
    let structure_factors = structure_sum / draws as f64;
    Chains {
        scalars: to_array(&scalars.permute([2, 1, 0])),
        correlations: to_array(&observe::correlation(&structure_factors)),
        structure_factors: to_array(&structure_factors),
        ln_weights: to_array(&ln_weights.transpose(0, 1)),
        acceptance: to_array(&acceptance.transpose(0, 1)),
        divergences: divergent.int64_value(&[]),
        warmup_divergences: warmup_divergences.int64_value(&[]),
        step_size,
    }
}

/// Number of divergent chains of one trajectory, on the device. Shapes: ().
fn divergences(moved: &Trajectory, config: &HmcConfig) -> Tensor {
    moved.energy_error.gt(config.divergence_threshold).sum(Kind::Int64)
}
