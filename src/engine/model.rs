//! A flow with the engine that evaluates it, over the ranks of a team.

use std::ops::Range;

use ndarray::{Array1, Array3, ArrayView1, ArrayView2, s};

use super::choice::engine;
use super::{Batch, Draw, Engine, Image, Loss, Potential};
use crate::engine::config::{EngineChoice, Estimator, RunConfig};
use crate::engine::device::Device;
use crate::flow::config::Symmetry;
use crate::flow::{Architecture, Flow};
use crate::random::Random;
use crate::ranks::Team;
use crate::ranks::shares::{Part, Shares, of_shape};
use crate::targets::Target;
use crate::targets::density::Density;

/// A flow, the density that it is trained towards, and the engine that evaluates both. Each member of a team
/// evaluates its share of a batch and gets the whole.
#[derive(Debug)]
pub struct Model {
    pub flow: Flow,
    /// None of a flow that learns from data alone.
    target: Option<Target>,
    /// T, at which all is evaluated; NaN without a target.
    temperature: f64,
    engine: Box<dyn Engine>,
    run: RunConfig,
    team: Team,
}

impl Model {
    /// A flow with its target at temperature T, on the engine, with the precision and the threads of `run`.
    pub fn new(
        flow: Flow,
        target: Target,
        temperature: f64,
        run: &RunConfig,
        device: Device,
    ) -> Self {
        let engine = engine(&flow, Some(&target), run, device);
        let (target, run) = (Some(target), run.clone());
        Self { flow, target, temperature, engine, run, team: Team::Alone }
    }

    /// A flow that learns from data alone.
    pub fn without_target(flow: Flow, run: &RunConfig, device: Device) -> Self {
        let engine = engine(&flow, None, run, device);
        let (target, temperature, run) = (None, f64::NAN, run.clone());
        Self { flow, target, temperature, engine, run, team: Team::Alone }
    }

    /// The flow of the same target that has no couplings, only the Gaussian layer x = κ^{-1/2} y, on the same ranks. Its
    /// engine is the native one, on GPU ranks too, whose kernels want couplings.
    pub fn without_couplings(&self) -> Self {
        let architecture = Architecture::without_couplings(self.flow.architecture.linear_size);
        let flow = Flow::with_parameters(architecture, Array1::zeros(0));
        let target = self.target().clone();
        let run = RunConfig { engine: EngineChoice::Native, ..self.run.clone() };
        Self::new(flow, target, self.temperature, &run, Device::Cpu).with_team(&self.team)
    }

    /// What it is trained towards.
    ///
    /// # Panics
    /// It has none.
    pub fn target(&self) -> &Target {
        self.target.as_ref().expect("only `learn` has no target")
    }

    /// The density of its target at its temperature.
    ///
    /// # Panics
    /// It has none.
    pub fn density(&self) -> Density {
        self.target().density(self.temperature)
    }

    /// T.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    fn batch<'b, 'a: 'b>(&'b self, values: ArrayView2<'a, f64>) -> Batch<'b> {
        Batch::uniform(values, &self.temperature)
    }

    fn prior(&self, random: &Random, samples: Range<usize>) -> Batch<'_> {
        Batch::prior(random, samples, self.flow.architecture.sites(), &self.temperature)
    }

    /// The model, of which all members of `team` have a copy, evaluated by all of them.
    pub fn with_team(self, team: &Team) -> Self {
        Self { team: team.clone(), ..self }
    }

    /// The ranks that evaluate it.
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// How the target's symmetry enters the model.
    pub fn symmetry(&self) -> Symmetry {
        self.flow.architecture.config.symmetry
    }

    /// As [`Engine::loss`].
    pub fn loss(&self, z: ArrayView2<f64>, symmetry_weight: f64, estimator: Estimator) -> Loss {
        self.shared_loss(z.nrows(), |own| {
            let z = self.batch(z.slice(s![own, ..]));
            self.engine.loss(self.flow.parameters.view(), z, symmetry_weight, estimator)
        })
    }

    /// The same for the first latents of the prior that a key stands for; each member of a team draws its own.
    pub fn loss_of_prior(
        &self,
        (random, batch): (&Random, usize),
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Loss {
        self.shared_loss(batch, |own| {
            let z = self.prior(random, own);
            self.engine.loss(self.flow.parameters.view(), z, symmetry_weight, estimator)
        })
    }

    /// As [`Engine::likelihood_loss`].
    pub fn likelihood_loss(&self, x: ArrayView2<f64>) -> Loss {
        self.shared_loss(x.nrows(), |own| {
            let x = self.batch(x.slice(s![own, ..]));
            self.engine.likelihood_loss(self.flow.parameters.view(), x)
        })
    }

    /// The loss of a whole batch, from what each member of the team has of its own samples.
    fn shared_loss(&self, batch: usize, loss: impl Fn(Range<usize>) -> Loss) -> Loss {
        let shares = Shares::new(&self.team, batch);
        let Loss { values, asymmetry, gradient } = loss(shares.range());
        let regularized = asymmetry.is_some();
        let parts = [
            Part::Rows(values.into_dyn()),
            Part::Rows(asymmetry.unwrap_or_else(|| Array1::zeros(shares.count())).into_dyn()),
            Part::Mean(gradient.into_dyn()),
        ];
        let [values, asymmetry, gradient] = shares.join(parts);
        Loss {
            values: of_shape(values),
            asymmetry: regularized.then(|| of_shape(asymmetry)),
            gradient: of_shape(gradient),
        }
    }

    /// As [`Engine::draw`].
    pub fn draw(&self, z: ArrayView2<f64>) -> Draw {
        self.shared_draw(z.nrows(), |own| self.batch(z.slice(s![own, ..])))
    }

    /// The same for latents of the prior, those of some samples of a key; each member of a team draws its own.
    pub fn draw_of_prior(&self, random: &Random, samples: Range<usize>) -> Draw {
        let first = samples.start;
        self.shared_draw(samples.len(), |own| {
            self.prior(random, first + own.start..first + own.end)
        })
    }

    fn shared_draw<'a>(&self, batch: usize, own: impl Fn(Range<usize>) -> Batch<'a>) -> Draw {
        let shares = Shares::new(&self.team, batch);
        let Draw { field, ln_q, ln_pi } =
            self.engine.draw(self.flow.parameters.view(), own(shares.range()));
        let parts = [field.into_dyn(), ln_q.into_dyn(), ln_pi.into_dyn()];
        let [field, ln_q, ln_pi] = shares.join(parts.map(Part::Rows));
        Draw { field: of_shape(field), ln_q: of_shape(ln_q), ln_pi: of_shape(ln_pi) }
    }

    /// As [`Engine::ln_likelihood`].
    pub fn ln_likelihood(&self, x: ArrayView2<f64>) -> Array1<f64> {
        let shares = Shares::new(&self.team, x.nrows());
        let ln_q =
            self.engine.ln_likelihood(self.flow.parameters.view(), self.batch(shares.own(x)));
        let [ln_q] = shares.join([Part::Rows(ln_q.into_dyn())]);
        of_shape(ln_q)
    }

    /// As [`Engine::potential`]. Each member of a team computes its own, since trajectories are long between exchanges.
    pub fn potential(&self, z: ArrayView2<f64>) -> Potential {
        self.engine.potential(self.flow.parameters.view(), self.batch(z))
    }

    /// The same at a temperature for each position, (chains), those of one following each other.
    pub fn potential_at(&self, z: ArrayView2<f64>, temperatures: ArrayView1<f64>) -> Potential {
        self.engine.potential(self.flow.parameters.view(), Batch::new(z, temperatures))
    }

    /// As [`Engine::forward`], here alone.
    pub fn forward(&self, z: ArrayView2<f64>) -> Image {
        self.engine.forward(self.flow.parameters.view(), self.batch(z))
    }

    /// As [`Engine::inverse`], here alone.
    pub fn inverse(&self, x: ArrayView2<f64>) -> Image {
        self.engine.inverse(self.flow.parameters.view(), self.batch(x))
    }

    /// As [`Engine::forward_through`], here alone.
    pub fn forward_through(&self, couplings: Range<usize>, z: ArrayView2<f64>) -> Image {
        self.engine.forward_through(self.flow.parameters.view(), couplings, z)
    }

    /// As [`Engine::inverse_through`], here alone.
    pub fn inverse_through(&self, couplings: Range<usize>, y: ArrayView2<f64>) -> Image {
        self.engine.inverse_through(self.flow.parameters.view(), couplings, y)
    }

    /// As [`Engine::inverse_derivatives`], here alone.
    pub fn inverse_derivatives(&self, x: ArrayView2<f64>, latents: &[usize]) -> Array3<f64> {
        self.engine.inverse_derivatives(self.flow.parameters.view(), self.batch(x), latents)
    }
}
