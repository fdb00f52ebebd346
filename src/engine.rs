//! What evaluates a flow against its target, and differentiates it: torch operations with autograd on any
//! device, or the native kernels on CPUs. Both give the same numbers up to rounding.

use std::fmt::Debug;

use tch::{Device, Kind, Tensor};

use crate::config::{EngineChoice, Estimator, RunConfig, Symmetry};
use crate::flow::symmetry::{SymmetrizedFlow, ln_prior};
use crate::flow::{Architecture, Flow};
use crate::ising::Target;
use crate::native::{self, Native, Real};
use crate::rank::Team;
use crate::shares::{Part, Shares};

/// A flow, the density that it is trained towards, and the engine that evaluates both. Each member of a team
/// evaluates its share of a batch and gets the whole.
#[derive(Debug)]
pub struct Model {
    pub flow: Flow,
    engine: Engine,
    team: Team,
}

#[derive(Debug)]
enum Engine {
    Torch(Target),
    Native(Box<dyn Kernels>),
}

/// Field samples with their log-densities.
#[derive(Debug)]
pub struct Draw {
    /// (batch, L, L). For the mixture the sign of each sample is yet to be drawn; every even
    /// function of the field may be taken without.
    pub field: Tensor,
    /// (batch): ln q(x) of the model; for the mixture ln q_sym(x).
    pub ln_q: Tensor,
    /// (batch): ln π(x).
    pub ln_pi: Tensor,
}

/// The loss of one batch, and the gradient of what is minimized.
#[derive(Debug)]
pub struct Loss {
    /// (batch): ln q(x) - ln π(x) of samples of the flow, whose mean is the variational free energy (Eq. 5);
    /// or -ln q(x) of given fields.
    pub values: Tensor,
    /// (batch): ln q(x) - ln q(-x), where the symmetry is a regularizer (App. E).
    pub asymmetry: Option<Tensor>,
    /// (parameters): gradient of mean value + λ mean asymmetry.
    pub gradient: Tensor,
}

/// Potential energies of a batch of chains, their gradients, and the field that each position stands for.
#[derive(Debug)]
pub struct Potential {
    /// (chains): U(z).
    pub energy: Tensor,
    /// (chains, L, L): ∂U/∂z.
    pub gradient: Tensor,
    /// (chains, L, L): g(z).
    pub field: Tensor,
}

impl Loss {
    /// That of the whole batch, from what each member of a team has of its share.
    fn joined(self, shares: &Shares) -> Self {
        let (values, gradient) = (Part::Rows(self.values), Part::Mean(self.gradient));
        match self.asymmetry.map(Part::Rows) {
            Some(asymmetry) => {
                let [values, asymmetry, gradient] = shares.join([values, asymmetry, gradient]);
                Self { values, asymmetry: Some(asymmetry), gradient }
            }
            None => {
                let [values, gradient] = shares.join([values, gradient]);
                Self { values, asymmetry: None, gradient }
            }
        }
    }
}

impl Model {
    /// A flow with its target, both at the flow's temperature, precision and device.
    pub fn new(flow: Flow, run: &RunConfig) -> Self {
        let (kind, device) = (flow.parameters.kind(), flow.parameters.device());
        let native = match run.engine {
            EngineChoice::Auto => device == Device::Cpu,
            EngineChoice::Native => true,
            EngineChoice::Torch => false,
        };
        let engine = match (native, kind) {
            (true, Kind::Double) => Engine::Native(Box::new(kernels::<f64>(&flow, run))),
            (true, _) => Engine::Native(Box::new(kernels::<f32>(&flow, run))),
            (false, _) => {
                let Architecture { linear_size, temperature, .. } = flow.architecture;
                Engine::Torch(Target::new(linear_size, temperature, kind, device))
            }
        };
        Self { flow, engine, team: Team::Alone }
    }

    /// The model, of which all members of `team` have a copy, evaluated by all of them.
    pub fn with_team(self, team: &Team) -> Self {
        Self { team: team.clone(), ..self }
    }

    /// The ranks that evaluate it.
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// Losses of latents z with the gradient of mean energy + λ mean asymmetry.
    ///
    /// Shapes: z (batch, L, L).
    pub fn loss(&self, z: &Tensor, symmetry_weight: f64, estimator: Estimator) -> Loss {
        let shares = Shares::new(&self.team, z.size()[0]);
        let z = shares.own(z);
        let loss = match &self.engine {
            Engine::Torch(target) => torch_loss(&self.flow, target, &z, symmetry_weight, estimator),
            Engine::Native(kernels) => {
                kernels.loss(&self.flow.parameters, &z, symmetry_weight, estimator)
            }
        };
        loss.joined(&shares)
    }

    /// Losses -ln q(x) of given fields, symmetrized for the mixture, with the gradient of their mean: that of
    /// the forward KL divergence from the fields' distribution.
    ///
    /// Shapes: x (batch, L, L).
    pub fn likelihood_loss(&self, x: &Tensor) -> Loss {
        let shares = Shares::new(&self.team, x.size()[0]);
        let x = shares.own(x);
        let loss = match &self.engine {
            Engine::Torch(_) => {
                let values = -self.flow.bind().symmetrized_ln_density(&x);
                let gradient = gradient_to(&values.mean(values.kind()), &self.flow.parameters);
                Loss { values: values.detach(), asymmetry: None, gradient }
            }
            Engine::Native(kernels) => kernels.likelihood_loss(&self.flow.parameters, &x),
        };
        loss.joined(&shares)
    }

    /// The model at its present parameters, for sampling.
    pub fn freeze(&self) -> FrozenModel<'_> {
        FrozenModel { model: self, bound: self.flow.bind_frozen() }
    }
}

/// A model whose parameters stay as they are.
#[derive(Debug)]
pub struct FrozenModel<'a> {
    model: &'a Model,
    bound: SymmetrizedFlow,
}

impl FrozenModel<'_> {
    /// How the target's symmetry enters the model.
    pub fn symmetry(&self) -> Symmetry {
        self.bound.symmetry()
    }

    /// The ranks that share this model's batches.
    pub fn team(&self) -> &Team {
        &self.model.team
    }

    /// x = g(z) with the log-densities of model and target. Shapes: z (batch, L, L).
    pub fn draw(&self, z: &Tensor) -> Draw {
        let shares = Shares::new(&self.model.team, z.size()[0]);
        let Draw { field, ln_q, ln_pi } = self.draw_here(&shares.own(z));
        let [field, ln_q, ln_pi] = shares.join([field, ln_q, ln_pi].map(Part::Rows));
        Draw { field, ln_q, ln_pi }
    }

    fn draw_here(&self, z: &Tensor) -> Draw {
        match &self.model.engine {
            Engine::Torch(target) => {
                let _guard = tch::no_grad_guard();
                let draw = self.bound.draw(z);
                let ln_pi = target.ln_density(&draw.field);
                Draw { field: draw.field, ln_q: draw.ln_q, ln_pi }
            }
            Engine::Native(kernels) => kernels.draw(&self.model.flow.parameters, z),
        }
    }

    /// ln q(x) of the model at given fields; for the mixture ln q_sym(x).
    ///
    /// Shapes: x (batch, L, L) → (batch).
    pub fn ln_likelihood(&self, x: &Tensor) -> Tensor {
        let shares = Shares::new(&self.model.team, x.size()[0]);
        let x = shares.own(x);
        let ln_q = match &self.model.engine {
            Engine::Torch(_) => tch::no_grad(|| self.bound.symmetrized_ln_density(&x)),
            Engine::Native(kernels) => kernels.ln_likelihood(&self.model.flow.parameters, &x),
        };
        let [ln_q] = shares.join([Part::Rows(ln_q)]);
        ln_q
    }

    /// U(z) = -ln p(z) - ln π(g(z)) + ln q(g(z)) (App. C), q being q_sym for the mixture. Each member of a team computes
    /// its own, since trajectories are long between exchanges.
    ///
    /// Shapes: z (chains, L, L).
    pub fn potential(&self, z: &Tensor) -> Potential {
        match &self.model.engine {
            Engine::Torch(target) => Potential::by_autograd(z, |z| {
                let draw = self.bound.draw(z);
                (draw.ln_q - ln_prior(z) - target.ln_density(&draw.field), draw.field)
            }),
            Engine::Native(kernels) => kernels.potential(&self.model.flow.parameters, z),
        }
    }
}

fn torch_loss(
    flow: &Flow,
    target: &Target,
    z: &Tensor,
    symmetry_weight: f64,
    estimator: Estimator,
) -> Loss {
    let bound = flow.bind();
    let draw = bound.draw(z);
    let energies = &draw.ln_q - target.ln_density(&draw.field);
    let asymmetry = bound.asymmetry(&draw);
    let energy = match estimator {
        Estimator::Total => energies.mean(energies.kind()),
        Estimator::Path => path_objective(flow, target, &draw.field),
    };
    let objective = match &asymmetry {
        Some(asymmetry) => energy + asymmetry.mean(asymmetry.kind()) * symmetry_weight,
        None => energy,
    };
    Loss {
        values: energies.detach(),
        asymmetry: asymmetry.map(|asymmetry| asymmetry.detach()),
        gradient: gradient_to(&objective, &flow.parameters),
    }
}

/// A number whose gradient to the parameters is the path gradient of the mean energy: that of x
/// alone, with ∂/∂x of ln q(x) - ln π(x) at fixed parameters as factors (arXiv:2207.08219).
fn path_objective(flow: &Flow, target: &Target, field: &Tensor) -> Tensor {
    let x = field.detach().set_requires_grad(true);
    let ln_q = flow.bind_frozen().symmetrized_ln_density(&x);
    let energies = ln_q - target.ln_density(&x);
    let forces = gradient_to(&energies.mean(energies.kind()), &x);
    (field * forces).sum(field.kind())
}

/// The native kernels behind tensors on the CPU.
trait Kernels: Debug {
    fn loss(
        &self,
        parameters: &Tensor,
        z: &Tensor,
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Loss;
    fn likelihood_loss(&self, parameters: &Tensor, x: &Tensor) -> Loss;
    fn ln_likelihood(&self, parameters: &Tensor, x: &Tensor) -> Tensor;
    fn draw(&self, parameters: &Tensor, z: &Tensor) -> Draw;
    fn potential(&self, parameters: &Tensor, z: &Tensor) -> Potential;
}

fn kernels<T: Real>(flow: &Flow, run: &RunConfig) -> Native<T> {
    let Architecture { linear_size, temperature, config, .. } = &flow.architecture;
    Native::new(
        flow.couplings().clone(),
        *linear_size,
        *temperature,
        config.preconditioner,
        config.symmetry,
        run.threads,
    )
}

impl<T: tch::kind::Element> From<native::Loss<T>> for Loss {
    fn from(loss: native::Loss<T>) -> Self {
        Self {
            values: Tensor::from_slice(&loss.values),
            asymmetry: loss.asymmetry.map(|asymmetry| Tensor::from_slice(&asymmetry)),
            gradient: Tensor::from_slice(&loss.gradient),
        }
    }
}

impl<T: Real + tch::kind::Element> Kernels for Native<T> {
    fn loss(
        &self,
        parameters: &Tensor,
        z: &Tensor,
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Loss {
        let (parameters, z) = (to_vec::<T>(parameters), to_vec::<T>(z));
        Native::loss(self, &parameters, &z, symmetry_weight, estimator).into()
    }

    fn likelihood_loss(&self, parameters: &Tensor, x: &Tensor) -> Loss {
        Native::likelihood_loss(self, &to_vec::<T>(parameters), &to_vec::<T>(x)).into()
    }

    fn ln_likelihood(&self, parameters: &Tensor, x: &Tensor) -> Tensor {
        let ln_q = Native::ln_likelihood(self, &to_vec::<T>(parameters), &to_vec::<T>(x));
        Tensor::from_slice(&ln_q)
    }

    fn draw(&self, parameters: &Tensor, z: &Tensor) -> Draw {
        let draw = Native::draw(self, &to_vec::<T>(parameters), &to_vec::<T>(z));
        Draw {
            field: Tensor::from_slice(&draw.field).view_as(z),
            ln_q: Tensor::from_slice(&draw.ln_q),
            ln_pi: Tensor::from_slice(&draw.ln_pi),
        }
    }

    fn potential(&self, parameters: &Tensor, z: &Tensor) -> Potential {
        let potential = Native::potential(self, &to_vec::<T>(parameters), &to_vec::<T>(z));
        Potential {
            energy: Tensor::from_slice(&potential.energy),
            gradient: Tensor::from_slice(&potential.gradient).view_as(z),
            field: Tensor::from_slice(&potential.field).view_as(z),
        }
    }
}

fn to_vec<T: Real + tch::kind::Element>(tensor: &Tensor) -> Vec<T> {
    let flat = tensor.detach().contiguous().view([-1]);
    let mut values = vec![<T as Real>::ZERO; flat.numel()];
    flat.copy_data(&mut values, flat.numel());
    values
}

impl Potential {
    /// Differentiates a potential that is given as z → (energy (chains), field (chains, L, L)).
    pub fn by_autograd(z: &Tensor, potential: impl FnOnce(&Tensor) -> (Tensor, Tensor)) -> Self {
        let z = z.detach().set_requires_grad(true);
        let (energy, field) = potential(&z);
        let gradient = gradient_to(&energy.sum(energy.kind()), &z);
        Self { energy: energy.detach(), gradient, field: field.detach() }
    }
}

fn gradient_to(objective: &Tensor, leaf: &Tensor) -> Tensor {
    Tensor::run_backward(&[objective], &[leaf], false, false)
        .pop()
        .expect("one gradient for one leaf")
}
