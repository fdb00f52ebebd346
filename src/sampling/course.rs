//! Observables while the flow is trained, by latent HMC and by its control in the space of the fields (Fig. 3(b)).

use std::time::Instant;

use ndarray::{Array2, s};

use crate::engine::Model;
use crate::files::schema;
use crate::files::state::{ANY, Restored, Saved, array, number, read_number, under, within};
use crate::lattice::Lattice;
use crate::random::Random;
use crate::sampling::adaptation::Adaptation;
use crate::sampling::config::{HmcConfig, Sampler, Start};
use crate::sampling::kernel::Kernel;
use crate::seed::{Stage, TaskSeed};
use crate::statistics::between_chain;
use crate::targets::observe;
use crate::train::config::TrainConfig;

/// Chains that go on from measurement to measurement, and what was measured.
///
/// Those of latent HMC start from the prior and meet another flow each time; those of physical HMC start cold. Both take
/// as many trajectories.
#[derive(Debug)]
pub struct Course {
    walks: [Walk; 2],
    every: i64,
    trajectories: i64,
    begin: Instant,
    /// Seconds of the training before this process went on with it.
    seconds_before: f64,
    /// (measurement), each in the order of [`schema::COURSE`].
    rows: Vec<[f64; schema::COURSE.len()]>,
}

/// The chains of one sampler between two measurements.
#[derive(Debug)]
struct Walk {
    sampler: Sampler,
    /// (chains, N). None before the first measurement.
    position: Option<Array2<f64>>,
    adaptation: Adaptation,
    seconds: f64,
}

impl Course {
    /// The samplers of its walks, in this order.
    pub const SAMPLERS: [Sampler; 2] = [Sampler::Latent, Sampler::Physical];

    /// Nothing is measured yet; the clock of the training starts. `hmc` is that of each of [`Course::SAMPLERS`].
    pub fn new(train: &TrainConfig, hmc: &[HmcConfig; 2]) -> Self {
        let walk = |index: usize| Walk {
            sampler: Self::SAMPLERS[index],
            position: None,
            adaptation: Adaptation::new(&hmc[index]),
            seconds: 0.0,
        };
        Self {
            walks: [0, 1].map(walk),
            every: train.measure_every,
            trajectories: train.measure_trajectories,
            begin: Instant::now(),
            seconds_before: 0.0,
            rows: Vec::new(),
        }
    }

    /// What [`Course::restore`] needs besides the configuration.
    pub fn state(&self) -> Saved {
        let mut state = Saved::from([
            ("seconds".into(), number(self.seconds())),
            ("rows".into(), self.values().into_dyn()),
        ]);
        for walk in &self.walks {
            state.extend(under(walk.sampler.name(), walk.state()));
        }
        state
    }

    /// The course of a saved state, on a lattice of N = `sites`.
    ///
    /// # Errors
    /// The state lacks something.
    pub fn restore(
        train: &TrainConfig,
        hmc: &[HmcConfig; 2],
        sites: usize,
        state: &Saved,
    ) -> Restored<Self> {
        let mut course = Self::new(train, hmc);
        course.seconds_before = read_number(state, "seconds")?;
        let values: Array2<f64> = array(state, "rows", [schema::COURSE.len(), ANY])?;
        course.rows =
            values.columns().into_iter().map(|row| std::array::from_fn(|i| row[i])).collect();
        let measured = !course.rows.is_empty();
        for (walk, hmc) in course.walks.iter_mut().zip(hmc) {
            let state = within(walk.sampler.name(), state);
            *walk = Walk::restore(walk.sampler, hmc, &state, measured.then_some(sites))?;
        }
        Ok(course)
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.begin.elapsed().as_secs_f64()
    }

    /// Measures with the flow as it is after `step` training steps, where it is time to.
    pub fn measure(&mut self, model: &Model, step: i64, hmc: &[HmcConfig; 2], seed: &TaskSeed) {
        if self.every == 0 || step % self.every != 0 {
            return;
        }
        let measuring: f64 = self.walks.iter().map(|walk| walk.seconds).sum();
        let train_seconds = self.seconds() - measuring;
        let mut row = vec![step as f64, train_seconds];
        let mut means = Vec::new();
        for (index, walk) in self.walks.iter_mut().enumerate() {
            let hmc = &hmc[index];
            let kernel = Kernel::new(walk.sampler, model, hmc);
            let number =
                |trajectory: i64| 2 * (step * self.trajectories + trajectory) + index as i64;
            let random = |trajectory| seed.at(Stage::Measure, number(trajectory));
            means.extend(walk.advance(&kernel, self.trajectories, hmc.chains as usize, random));
            row.push(walk.seconds);
        }
        row.extend(means);
        self.rows.push(row.try_into().expect("one number for each of COURSE"));
    }

    /// (quantity, measurement), quantities as in [`schema::COURSE`].
    pub fn values(&self) -> Array2<f64> {
        Array2::from_shape_fn((schema::COURSE.len(), self.rows.len()), |(i, j)| self.rows[j][i])
    }
}

impl Walk {
    fn state(&self) -> Saved {
        let mut state = self.adaptation.state();
        state.insert("seconds".into(), number(self.seconds));
        let position = self.position.clone().map(Array2::into_dyn);
        state.extend(position.map(|position| ("position".into(), position)));
        state
    }

    /// The walk of a saved state, which has a position on so many sites where something was measured.
    fn restore(
        sampler: Sampler,
        hmc: &HmcConfig,
        state: &Saved,
        sites: Option<usize>,
    ) -> Restored<Self> {
        let position = sites.map(|sites| array(state, "position", [hmc.chains as usize, sites]));
        Ok(Self {
            sampler,
            position: position.transpose()?,
            adaptation: Adaptation::restore(hmc, state)?,
            seconds: read_number(state, "seconds")?,
        })
    }

    /// Adapts in the first half of the trajectories, measures in the second: <e>, its error, <m²>, its error.
    fn advance(
        &mut self,
        kernel: &Kernel,
        trajectories: i64,
        chains: usize,
        random: impl Fn(i64) -> Random,
    ) -> [f64; 4] {
        let start = Instant::now();
        let position =
            self.position.take().unwrap_or_else(|| kernel.start(chains, Start::Cold, &random(-1)));
        let lattice = Lattice::new(position.ncols().isqrt());
        let mut state = kernel.state(position.view());
        let adapting = trajectories / 2;
        let mut sum = Array2::<f64>::zeros((chains, 2));
        let mut settings = self.adaptation.clone();
        for trajectory in 0..trajectories {
            if trajectory == adapting {
                self.adaptation = settings.clone();
                settings.freeze();
            }
            let random = random(trajectory);
            let (moved, _) =
                kernel.advance(&state, (&mut settings, None), trajectory < adapting, &random);
            state = moved.state;
            if trajectory >= adapting {
                // Energy and m², the first two observables.
                let field = state.field.view();
                let structure_factor = observe::structure_factor(&lattice, field);
                let spins = observe::draw_spins(field, &random, 0);
                let scalars =
                    observe::scalars(&lattice, field, structure_factor.view(), spins.view());
                sum += &scalars.slice(s![.., ..2]);
            }
        }
        self.position = Some(state.position);
        self.seconds += start.elapsed().as_secs_f64();
        let (mean, error) = between_chain((sum / (trajectories - adapting) as f64).view());
        [mean[0], error[0], mean[1], error[1]]
    }
}
