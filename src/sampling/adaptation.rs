//! What HMC learns during its warm-up: the step size by dual averaging, the trajectory length from batches of chains
//! in the manner of ChEES. Plain numbers, so that a warm-up can be stored and continued.

use ndarray::{Array1, Array2, Axis, arr1};

use crate::files::state::{Restored, Saved, array, number, read_number};
use crate::sampling::config::HmcConfig;
use crate::sampling::hmc::Trajectory;

/// Parameters of dual averaging (Hoffman and Gelman 2014, Section 3.2.1).
const REGULARIZATION: f64 = 0.05;
const EARLY_STEPS: f64 = 10.0;
const FORGETTING: f64 = 0.75;

/// Parameters of the ascent in the logarithm of the trajectory length, Adam without momentum.
const LENGTH_RATE: f64 = 0.05;
const LENGTH_DECAY: f64 = 0.95;

/// Dual averaging of ln ε towards a mean acceptance (Nesterov 2009; Hoffman and Gelman 2014, Eq. 6).
#[derive(Debug, Clone, PartialEq)]
pub struct DualAveraging {
    target: f64,
    /// ln of ten times the first step size, which early steps are drawn to.
    attractor: f64,
    updates: f64,
    /// Weighted mean of target - acceptance.
    error: f64,
    ln_step: f64,
    ln_step_mean: f64,
}

impl DualAveraging {
    /// Starts from `step_size`.
    pub fn new(step_size: f64, target: f64) -> Self {
        let ln_step = step_size.ln();
        let attractor = (10.0 * step_size).ln();
        Self { target, attractor, updates: 0.0, error: 0.0, ln_step, ln_step_mean: ln_step }
    }

    /// What [`DualAveraging::of_numbers`] needs besides its settings.
    pub fn numbers(&self) -> [f64; 4] {
        [self.updates, self.error, self.ln_step, self.ln_step_mean]
    }

    /// One with these settings, and with the numbers of [`DualAveraging::numbers`].
    pub fn of_numbers(step_size: f64, target: f64, numbers: [f64; 4]) -> Self {
        let [updates, error, ln_step, ln_step_mean] = numbers;
        Self { updates, error, ln_step, ln_step_mean, ..Self::new(step_size, target) }
    }

    /// ε: where it has got to, or the mean of that once it is to stay what it is.
    pub fn step_size(&self, frozen: bool) -> f64 {
        if frozen { self.ln_step_mean.exp() } else { self.ln_step.exp() }
    }

    /// Takes in the mean acceptance of one trajectory.
    pub fn update(&mut self, acceptance: f64) {
        self.updates += 1.0;
        let share = 1.0 / (self.updates + EARLY_STEPS);
        self.error = (1.0 - share) * self.error + share * (self.target - acceptance);
        self.ln_step = self.attractor - self.updates.sqrt() / REGULARIZATION * self.error;
        let weight = self.updates.powf(-FORGETTING);
        self.ln_step_mean = weight * self.ln_step + (1.0 - weight) * self.ln_step_mean;
    }
}

/// Ascent of a trajectory's length T towards the largest change of the squared distance from the chains' centre
/// (ChEES-HMC: Hoffman, Radul and Sountsov, AISTATS 2021, Eq. 5 and Algorithm 1).
#[derive(Debug, Clone, PartialEq)]
pub struct LengthAdaptation {
    updates: f64,
    /// Running mean of squared gradients.
    square: f64,
    ln_length: f64,
    ln_length_mean: f64,
}

impl LengthAdaptation {
    fn new(length: f64) -> Self {
        Self { updates: 0.0, square: 0.0, ln_length: length.ln(), ln_length_mean: length.ln() }
    }

    /// One step along the gradient to ln T, within the lengths that are allowed.
    fn update(&mut self, gradient: f64, (shortest, longest): (f64, f64)) {
        if !gradient.is_finite() {
            return;
        }
        self.updates += 1.0;
        self.square = LENGTH_DECAY * self.square + (1.0 - LENGTH_DECAY) * gradient * gradient;
        let root = (self.square / (1.0 - LENGTH_DECAY.powf(self.updates))).sqrt();
        let step = if root > 0.0 { LENGTH_RATE * gradient / root } else { 0.0 };
        self.ln_length = (self.ln_length + step).clamp(shortest.ln(), longest.ln());
        let weight = self.updates.powf(-FORGETTING);
        self.ln_length_mean = weight * self.ln_length + (1.0 - weight) * self.ln_length_mean;
    }
}

/// Step size and trajectory length of HMC, adapting until they are frozen.
#[derive(Debug, Clone, PartialEq)]
pub struct Adaptation {
    step_size: DualAveraging,
    /// None where the number of leapfrog steps is fixed.
    length: Option<LengthAdaptation>,
    leapfrog_steps: i64,
    max_leapfrog_steps: i64,
    jitter: f64,
    /// Trajectories planned so far, the index of the jitter's sequence.
    planned: u32,
    frozen: bool,
}

impl Adaptation {
    /// Starts from the configured step size and number of steps.
    pub fn new(config: &HmcConfig) -> Self {
        let length = config.step_size * config.leapfrog_steps as f64;
        Self {
            step_size: DualAveraging::new(config.step_size, config.target_acceptance),
            length: config.adapt_length.then(|| LengthAdaptation::new(length)),
            leapfrog_steps: config.leapfrog_steps,
            max_leapfrog_steps: config.max_leapfrog_steps,
            jitter: config.jitter,
            planned: 0,
            frozen: false,
        }
    }

    /// What [`Adaptation::restore`] needs besides the configuration.
    pub fn state(&self) -> Saved {
        let step_size = arr1(&self.step_size.numbers());
        let mut state = Saved::from([
            ("step_size".into(), step_size.into_dyn()),
            ("planned".into(), number(f64::from(self.planned))),
            ("frozen".into(), number(f64::from(u8::from(self.frozen)))),
        ]);
        if let Some(LengthAdaptation { updates, square, ln_length, ln_length_mean }) = self.length {
            let length = arr1(&[updates, square, ln_length, ln_length_mean]);
            state.insert("length".into(), length.into_dyn());
        }
        state
    }

    /// The adaptation of a saved state.
    ///
    /// # Errors
    /// The state lacks something.
    pub fn restore(config: &HmcConfig, state: &Saved) -> Restored<Self> {
        let numbers = |name| -> Restored<Array1<f64>> { array(state, name, 4) };
        let mut adaptation = Self::new(config);
        let saved = numbers("step_size")?;
        adaptation.step_size = DualAveraging::of_numbers(
            config.step_size,
            config.target_acceptance,
            std::array::from_fn(|i| saved[i]),
        );
        if let Some(length) = &mut adaptation.length {
            let saved = numbers("length")?;
            *length = LengthAdaptation {
                updates: saved[0],
                square: saved[1],
                ln_length: saved[2],
                ln_length_mean: saved[3],
            };
        }
        adaptation.planned = read_number(state, "planned")? as u32;
        adaptation.frozen = read_number(state, "frozen")? != 0.0;
        Ok(adaptation)
    }

    /// Leapfrog step size ε.
    pub fn step_size(&self) -> f64 {
        self.step_size.step_size(self.frozen)
    }

    /// Mean trajectory length T, in units of time.
    pub fn trajectory_length(&self) -> f64 {
        match &self.length {
            None => self.leapfrog_steps as f64 * self.step_size(),
            Some(length) if self.frozen => length.ln_length_mean.exp(),
            Some(length) => length.ln_length.exp(),
        }
    }

    /// Number of leapfrog steps of the next trajectory: its length is uniform in T (1 ± jitter), by van der Corput's
    /// sequence, so that no mode of the target has the period of all trajectories.
    pub fn plan(&mut self) -> i64 {
        self.planned += 1;
        let uniform = f64::from(self.planned.reverse_bits()) / 2f64.powi(32);
        let length = self.trajectory_length() * (1.0 + self.jitter * (2.0 * uniform - 1.0));
        ((length / self.step_size()).round() as i64).clamp(1, self.max_leapfrog_steps)
    }

    /// Takes in a trajectory of `steps` leapfrog steps from `start`. Chains whose energy was not finite do not count.
    pub fn update(&mut self, start: &Array2<f64>, moved: &Trajectory, steps: i64) {
        let time = steps as f64 * self.step_size();
        let [acceptance, gradient] = signals(start, moved, time);
        self.step_size.update(acceptance);
        let step = self.step_size.ln_step.exp();
        if let Some(length) = &mut self.length {
            length.update(gradient, (step, step * self.max_leapfrog_steps as f64));
        }
    }

    /// Step size and length stay what they are on average, from now on.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }
}

/// Mean acceptance, and the gradient of ChEES to ln T: with acceptance probabilities as weights, the mean of
/// time · (|x' - x̄'|² - |x - x̄|²) (x' - x̄')·p' over the chains, where x' and p' end the trajectory.
fn signals(start: &Array2<f64>, moved: &Trajectory, time: f64) -> [f64; 2] {
    let weights = &moved.acceptance;
    let total = weights.sum();
    // The others have no weight.
    let usable: Vec<usize> =
        (0..weights.len()).filter(|&chain| moved.energy_error[chain].is_finite()).collect();
    let start_centre = start.mean_axis(Axis(0)).expect("there are chains");
    let mut end_centre = Array1::<f64>::zeros(start.ncols());
    for &chain in &usable {
        end_centre.scaled_add(weights[chain] / total, &moved.end_position.row(chain));
    }
    let term = |&chain: &usize| {
        let start = &start.row(chain) - &start_centre;
        let end = &moved.end_position.row(chain) - &end_centre;
        let change = end.dot(&end) - start.dot(&start);
        weights[chain] * change * end.dot(&moved.end_momentum.row(chain))
    };
    let gradient = usable.iter().map(term).sum::<f64>() / total * time;
    [total / usable.len().max(1) as f64, gradient]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dual_averaging_finds_the_step_size_of_a_known_acceptance() {
        // Acceptance e^{-ε}: the target 0.8 is met at ε = -ln 0.8, from either side.
        for start in [1e-3, 0.1, 10.0] {
            let mut adaptation = DualAveraging::new(start, 0.8);
            for _ in 0..500 {
                adaptation.update((-adaptation.ln_step.exp()).exp());
            }
            let ratio = adaptation.ln_step_mean.exp() / -(0.8f64.ln());
            assert!((ratio - 1.0).abs() < 0.05, "from {start}: {ratio}");
        }
    }

    #[test]
    fn jittered_lengths_fill_their_interval_evenly() {
        let config = HmcConfig {
            jitter: 0.5,
            adapt_length: false,
            leapfrog_steps: 20,
            max_leapfrog_steps: 64,
            ..Default::default()
        };
        let mut adaptation = Adaptation::new(&config);
        let steps: Vec<i64> = (0..1024).map(|_| adaptation.plan()).collect();
        let mean = steps.iter().sum::<i64>() as f64 / 1024.0;
        assert!((mean - 20.0).abs() < 0.05, "{mean}");
        assert_eq!((steps.iter().min(), steps.iter().max()), (Some(&10), Some(&30)));
    }
}
