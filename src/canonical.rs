//! Neural canonical transformations (Li, Dong, Zhang and Wang, arXiv:1910.00024): symplectic flows that learn
//! from a potential energy surface or from samples of it, and the slow modes that they find.

pub mod config;
pub mod judgement;
pub mod modes;
pub mod source;

use ndarray::{Array1, Array2, ArrayView2};

use crate::engine::symplectic::Momenta;
use crate::engine::{Loss, SymplecticModel};
use crate::random::{Random, Use};
use crate::ranks::Team;
use crate::seed::{Stage, TaskSeed};
use crate::train::config::TrainConfig;
use crate::train::data::shuffled;
use crate::train::{Step, Trainable};
use config::MomentaChoice;

/// What the training of a symplectic flow minimizes.
#[derive(Debug, Clone, Copy)]
pub enum Objective<'a> {
    /// The variational free energy of the phase space, from the flow's own samples.
    Variational(MomentaChoice),
    /// -ln ρ(Q, P) of given coordinates with momenta of their own, (sample, n).
    Likelihood(ArrayView2<'a, f32>, MomentaChoice),
}

impl Trainable for SymplecticModel {
    type Objective<'a> = Objective<'a>;

    fn parameters(&self) -> &Array1<f64> {
        &self.flow.parameters
    }

    fn parameters_mut(&mut self) -> &mut Array1<f64> {
        &mut self.flow.parameters
    }

    /// Weights decay, frequencies and positions do not.
    fn decaying(&self) -> usize {
        self.flow.coupling_parameters()
    }

    fn team(&self) -> &Team {
        &Team::Alone
    }

    fn loss(
        &self,
        objective: Objective,
        config: &TrainConfig,
        seed: &TaskSeed,
        Step { number, drawn, batch }: Step,
    ) -> Loss {
        let random = seed.at(Stage::Train, number);
        let (samples, coordinates) = (0..batch as usize, self.flow.coordinates);
        match objective {
            Objective::Variational(choice) => {
                let z = random.normals(Use::Latents, samples, coordinates);
                let momenta = draw_momenta(choice, &random, z.dim());
                self.variational_loss(z.view(), view(momenta.as_ref()), config.estimator)
            }
            Objective::Likelihood(data, choice) => {
                let q = shuffled(data, seed, (drawn, batch));
                let momenta = draw_momenta(choice, &random, q.dim());
                self.likelihood_loss(q.view(), view(momenta.as_ref()))
            }
        }
    }
}

/// Momenta of a batch, if they are drawn. Shapes: (batch, n).
fn draw_momenta(
    choice: MomentaChoice,
    random: &Random,
    (batch, coordinates): (usize, usize),
) -> Option<Array2<f64>> {
    match choice {
        MomentaChoice::Drawn => Some(random.normals(Use::Momenta, 0..batch, coordinates)),
        MomentaChoice::Integrated => None,
    }
}

fn view(momenta: Option<&Array2<f64>>) -> Momenta<'_> {
    momenta.map_or(Momenta::Integrated, |momenta| Momenta::Drawn(momenta.view()))
}
