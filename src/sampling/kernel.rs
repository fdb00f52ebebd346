//! What moves the chains of each sampler, one trajectory at a time.

use ndarray::{Array1, Array2, ArrayView2, Zip, s};

use crate::engine::{Image, Model, Potential};
use crate::flow::config::Symmetry;
use crate::flow::symmetry::{ln_prior, with_signs};
use crate::random::{Random, Use};
use crate::ranks::Team;
use crate::ranks::shares::{Part, Shares, of_shape};
use crate::sampling::adaptation::Adaptation;
use crate::sampling::config::{HmcConfig, Sampler, Start};
use crate::sampling::hmc::{self, State, Trajectory};
use crate::sampling::independence;
use crate::sampling::physical::PhysicalPotential;
use crate::sampling::replicas::Replicas;

/// A field that differs by more than this at some site from what its latents are mapped to is one that the flow cannot
/// represent in its precision.
const LARGEST_ERROR: f64 = 1e-2;
/// ln π(x)/q(x), in nats, of a field of which the flow knows nothing that is a number.
const LARGE_LN_WEIGHT: f64 = 1e4;

/// What moves chains: a potential for HMC, or a flow that proposes.
pub enum Kernel<'a> {
    Latent {
        model: &'a Model,
        /// Step of the proposals that follow each trajectory ([`independence`]), where there are any. What HMC hardly crosses,
        /// such as the way to a domain wall at low temperature, takes it some hundred trajectories otherwise.
        global_step: Option<f64>,
    },
    Physical {
        potential: PhysicalPotential,
        team: &'a Team,
    },
    Independence(&'a Model),
}

impl<'a> Kernel<'a> {
    /// The kernel of a sampler of the target that `model` has, at its temperature.
    pub fn new(sampler: Sampler, model: &'a Model, config: &HmcConfig) -> Self {
        let physical = |accelerated| Self::Physical {
            potential: PhysicalPotential::new(model.density(), accelerated),
            team: model.team(),
        };
        match sampler {
            Sampler::Latent => Self::Latent {
                model,
                global_step: config.global_moves.then_some(config.global_step),
            },
            Sampler::Independence => Self::Independence(model),
            Sampler::Physical => physical(false),
            Sampler::Fourier => physical(true),
        }
    }

    /// Positions to start from: samples of the prior, or as `start` says. Shapes: (chains, N).
    pub fn start(&self, chains: usize, start: Start, random: &Random) -> Array2<f64> {
        match self {
            Self::Physical { potential, .. } => potential.start(chains, start, random),
            Self::Latent { model, .. } | Self::Independence(model) => {
                random.normals(Use::Latents, 0..chains, model.flow.architecture.sites())
            }
        }
    }

    /// Replicas of the chains, where the configuration wants them.
    pub fn replicas(&self, config: &HmcConfig, random: &Random) -> Option<Replicas> {
        Replicas::new(self.latent()?, config, random)
    }

    /// The model in whose latent space the chains move.
    pub(crate) fn latent(&self) -> Option<&'a Model> {
        match self {
            Self::Latent { model, .. } => Some(model),
            Self::Physical { .. } | Self::Independence(_) => None,
        }
    }

    /// The state at given positions. Shapes: (chains, N).
    pub fn state(&self, position: ArrayView2<f64>) -> State {
        match self {
            Self::Latent { model, .. } => {
                State::by_team(&|z: ArrayView2<f64>| model.potential(z), position, model.team())
            }
            Self::Physical { potential, team } => {
                State::by_team(&|x: ArrayView2<f64>| potential.at(x), position, team)
            }
            Self::Independence(model) => independence::state(model, position),
        }
    }

    /// One trajectory of every chain, and what comes with it, with the number of gradients that it took.
    pub(crate) fn advance(
        &self,
        state: &State,
        (adaptation, replicas): (&mut Adaptation, Option<&mut Replicas>),
        adapt: bool,
        random: &Random,
    ) -> (Trajectory, Gradients) {
        type At<'a> = &'a dyn Fn(ArrayView2<f64>) -> Potential;
        let hmc = |potential: At, team, adaptation: &mut Adaptation| {
            let steps = adaptation.plan();
            let length = (adaptation.step_size(), steps);
            let moved = hmc::trajectory(&potential, state, length, team, random);
            if adapt {
                adaptation.update(&state.position, &moved, steps);
            }
            (moved, steps)
        };
        match self {
            Self::Latent { model, global_step } => {
                let (mut moved, mut own) = hmc(&|z| model.potential(z), model.team(), adaptation);
                if let &Some(step) = global_step {
                    let state_at = |z: ArrayView2<f64>| self.state(z);
                    moved.state =
                        independence::trajectory(state_at, &moved.state, step, random).state;
                    own += 1;
                }
                let Some(replicas) = replicas else {
                    return (moved, Gradients { own, of_replicas: 0 });
                };
                let (field, of_replicas) = replicas.advance(moved.state.field.view(), random);
                moved.state = state_of_field(model, field, random);
                // The inverse and the potential of where the field is.
                (moved, Gradients { own: own + 2, of_replicas })
            }
            Self::Physical { potential, team } => {
                let (moved, own) = hmc(&|x| potential.at(x), team, adaptation);
                (moved, Gradients { own, of_replicas: 0 })
            }
            Self::Independence(_) => {
                let state_at = |z: ArrayView2<f64>| self.state(z);
                (independence::trajectory(state_at, state, 1.0, random), Gradients::default())
            }
        }
    }

    /// The field to measure on, with the mixture's random signs. Shapes: (chains, N).
    pub(super) fn field(&self, state: &State, random: &Random) -> Array2<f64> {
        let field = state.field.clone();
        match self {
            Self::Latent { model, .. } | Self::Independence(model) => {
                with_signs(field, model.symmetry(), random, 0)
            }
            Self::Physical { .. } => field,
        }
    }

    /// (chains): ln π(x) - ln q(x), from U = -ln p(z) - ln π + ln q; NaN where there is no flow.
    pub(super) fn ln_weights(&self, state: &State) -> Array1<f64> {
        match self {
            Self::Latent { .. } | Self::Independence(_) => {
                -(&state.energy + ln_prior(state.position.view()))
            }
            Self::Physical { .. } => Array1::from_elem(state.energy.len(), f64::NAN),
        }
    }
}

/// Gradients that a trajectory of a chain takes: of the potential that it moves in, and those of the density that its replicas
/// take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Gradients {
    pub(crate) own: i64,
    pub(crate) of_replicas: i64,
}

/// The states of latent HMC that stand for given fields: z = g⁻¹(x). With the mixture z = g⁻¹(s x) with the sign s that
/// the sample of the mixture has, given x: that of s x with probability q(s x)/[q(x) + q(-x)].
///
/// A field that the flow does not represent in its precision has no latents that HMC could move: its chain stays
/// where it is, with a gradient that is none, until another move takes it away.
fn state_of_field(model: &Model, field: Array2<f64>, random: &Random) -> State {
    let mut field = field;
    let image = inverse(model, field.view());
    let mut latents = image.field;
    if model.symmetry() == Symmetry::Mixture {
        let mirrored = inverse(model, (-&field).view());
        let ln_q = ln_prior(latents.view()) + image.log_det;
        let ln_q_mirrored = ln_prior(mirrored.field.view()) + mirrored.log_det;
        let chains = field.nrows();
        let chances = random.uniform(Use::Signs, 2 * chains..3 * chains);
        for chain in 0..chains {
            let probability = 1.0 / (1.0 + (ln_q[chain] - ln_q_mirrored[chain]).exp());
            if chances[chain] < probability || ln_q[chain].is_nan() {
                latents.row_mut(chain).assign(&mirrored.field.row(chain));
                field.row_mut(chain).mapv_inplace(|x| -x);
            }
        }
    }
    state_at(model, latents.view(), field.view())
}

/// The state at latents that should stand for these fields. Shapes: (chains, N).
pub(super) fn state_at(model: &Model, latents: ArrayView2<f64>, field: ArrayView2<f64>) -> State {
    let potential = |z: ArrayView2<f64>| model.potential(z);
    let mut state = State::by_team(&potential, latents, model.team());
    let represented = |chain: usize| {
        let error = Zip::from(state.field.row(chain)).and(field.row(chain));
        error.all(|found, wanted| (found - wanted).abs() <= LARGEST_ERROR)
            && state.energy[chain].is_finite()
            && state.gradient.row(chain).iter().all(|slope| slope.is_finite())
    };
    let lost: Vec<usize> = (0..field.nrows()).filter(|&chain| !represented(chain)).collect();
    if lost.is_empty() {
        return state;
    }
    let ln_weights = model.density().ln_density(field) - model.ln_likelihood(field);
    for chain in lost {
        state.field.row_mut(chain).assign(&field.row(chain));
        state.gradient.row_mut(chain).fill(f64::NAN);
        if !state.position.row(chain).iter().all(|z| z.is_finite()) {
            state.position.row_mut(chain).fill(0.0);
        }
        let ln_prior = ln_prior(state.position.slice(s![chain..=chain, ..]))[0];
        let ln_weight = ln_weights[chain];
        state.energy[chain] =
            -ln_prior - if ln_weight.is_finite() { ln_weight } else { LARGE_LN_WEIGHT };
    }
    state
}

/// z = g⁻¹(x), each member of the team of its chains.
fn inverse(model: &Model, field: ArrayView2<f64>) -> Image {
    let shares = Shares::new(model.team(), field.nrows());
    let Image { field, log_det } = model.inverse(shares.own(field));
    let [field, log_det] = shares.join([field.into_dyn(), log_det.into_dyn()].map(Part::Rows));
    Image { field: of_shape(field), log_det: of_shape(log_det) }
}
