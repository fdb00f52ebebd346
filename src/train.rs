//! Training: minimization of the variational free energy (Eq. 5) over the flow's parameters, or of -ln q over given
//! samples: of the KL divergence in one direction or the other.

pub mod adam;
pub mod config;
pub mod data;

use std::time::Instant;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};

use crate::engine::{Loss, Model};
use crate::error::{Error, Result};
use crate::files::state::{ANY, Restored, Saved, array, number, read_number};
use crate::ranks::Team;
use crate::seed::{Stage, TaskSeed};
use crate::train::adam::Adam;
use crate::train::config::{Schedule, TrainConfig};
use crate::train::data::Data;

/// What is recorded at every step, in the order of the rows of [`History::values`].
pub const RECORDED: [&str; 4] = ["loss", "loss_std", "regularizer", "gradient_norm"];

/// What a training minimizes.
#[derive(Debug, Clone, Copy)]
pub enum Objective<'a> {
    /// KL(q ‖ π), from the flow's own samples, plus this weight times the symmetry regularizer.
    ReverseKl { symmetry_weight: f64 },
    /// KL(data ‖ q), by maximum likelihood.
    ForwardKl(&'a Data),
}

/// What a training changes the parameters of.
pub trait Trainable {
    /// What can be minimized.
    type Objective<'a>: Copy;

    /// Flat.
    fn parameters(&self) -> &Array1<f64>;

    /// The same, to be changed.
    fn parameters_mut(&mut self) -> &mut Array1<f64>;

    /// How many of the parameters, the first ones, weight decay is for.
    fn decaying(&self) -> usize {
        self.parameters().len()
    }

    /// The ranks that train it.
    fn team(&self) -> &Team;

    /// The loss of a step.
    fn loss(
        &self,
        objective: Self::Objective<'_>,
        config: &TrainConfig,
        seed: &TaskSeed,
        step: Step,
    ) -> Loss;
}

/// A step's place in its training.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Steps before.
    pub number: i64,
    /// Samples of all batches before.
    pub drawn: i64,
    /// Its samples.
    pub batch: i64,
}

impl Trainable for Model {
    type Objective<'a> = Objective<'a>;

    fn parameters(&self) -> &Array1<f64> {
        &self.flow.parameters
    }

    fn parameters_mut(&mut self) -> &mut Array1<f64> {
        &mut self.flow.parameters
    }

    fn team(&self) -> &Team {
        self.team()
    }

    fn loss(
        &self,
        objective: Objective,
        config: &TrainConfig,
        seed: &TaskSeed,
        Step { number, drawn, batch }: Step,
    ) -> Loss {
        match objective {
            Objective::ReverseKl { symmetry_weight } => {
                let random = seed.at(Stage::Train, number);
                let prior = (&random, batch as usize);
                self.loss_of_prior(prior, symmetry_weight, config.estimator)
            }
            Objective::ForwardKl(data) => {
                self.likelihood_loss(data.batch(seed, drawn, batch).view())
            }
        }
    }
}

/// The course of a training.
#[derive(Debug)]
pub struct History {
    /// One row for each of [`RECORDED`], one column a step.
    pub values: Array2<f64>,
    /// Learning rate of each step.
    pub learning_rates: Vec<f64>,
    /// Steps that were skipped since loss or gradient was not finite.
    pub skipped_steps: i64,
}

/// What a training tells after each step.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Steps done.
    pub step: i64,
    /// How much of the training's budget is used, of steps or of seconds, whichever is further: from 0 to 1. What
    /// `target_gap` saves is not known before.
    pub used: f64,
    /// Mean loss of the last batch with its standard error, in nats; told every `log_every` steps, unless the step was
    /// skipped.
    pub loss: Option<(f64, f64)>,
}

/// Learning rate of step 0, 1, …: linear warm-up, times 1 or half a cosine of the training's `progress` (0 to 1)
/// down to the final fraction.
pub fn learning_rate(config: &TrainConfig, step: i64, progress: f64) -> f64 {
    let warmup = ((step + 1) as f64 / config.warmup_steps.max(1) as f64).min(1.0);
    let factor = match config.schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => {
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
            let floor = config.final_learning_rate_fraction;
            floor + (1.0 - floor) * cosine
        }
    };
    config.learning_rate * warmup * factor
}

/// Samples of a step at the training's `progress` (0 to 1).
pub fn batch(config: &TrainConfig, progress: f64) -> i64 {
    let intervals = f64::from(config.batch_doublings + 1);
    config.batch << ((progress * intervals) as u32).min(config.batch_doublings)
}

/// How much of the budget so many steps and seconds use up, from 0 to 1.
fn budget_used(config: &TrainConfig, steps: i64, seconds: f64) -> f64 {
    let of_steps = steps as f64 / config.steps as f64;
    let of_seconds = if config.seconds > 0.0 { seconds / config.seconds } else { 0.0 };
    of_steps.max(of_seconds).min(1.0)
}

/// Trains the model's flow in place by its own samples. `report` is called after every step, with the model at that step.
///
/// # Errors
/// More than `max_skipped_steps` steps were skipped.
pub fn train(
    model: &mut Model,
    config: &TrainConfig,
    symmetry_weight: f64,
    seed: &TaskSeed,
    mut report: impl FnMut(Progress, &Model),
) -> Result<History> {
    let mut training = Training::new(model, config);
    let objective = Objective::ReverseKl { symmetry_weight };
    training.run(model, config, objective, seed, |_, model, progress| {
        report(progress, model);
        Ok(())
    })?;
    Ok(training.history())
}

/// A training with all that it needs to go on after an interruption, besides the model.
pub struct Training {
    adam: Adam,
    average: RunningMean,
    /// (step, quantity), quantities as in [`RECORDED`].
    records: Array2<f64>,
    learning_rates: Vec<f64>,
    /// Samples of all batches so far.
    drawn: i64,
    /// Steps that were skipped.
    skipped: i64,
    /// No further step is needed.
    ended: bool,
    /// Parameters after the last step, where those of the model are their running mean by now.
    last: Option<Array1<f64>>,
    /// Seconds that it took before this process went on with it.
    seconds_before: f64,
    start: Instant,
}

impl Training {
    /// A training of which no step is done.
    pub fn new(model: &impl Trainable, config: &TrainConfig) -> Self {
        let parameters = model.parameters();
        Self {
            adam: Adam::new(parameters.len(), model.decaying(), config),
            average: RunningMean::new(parameters, config.averaging),
            records: Array2::zeros((0, RECORDED.len())),
            learning_rates: Vec::new(),
            drawn: 0,
            skipped: 0,
            ended: config.steps == 0,
            last: None,
            seconds_before: 0.0,
            start: Instant::now(),
        }
    }

    /// What [`Training::restore`] needs to go on, with the model's parameters.
    pub fn state(&self, model: &impl Trainable) -> Saved {
        let last = self.last.as_ref().unwrap_or(model.parameters());
        let mut state = Saved::from([
            ("parameters".into(), last.clone().into_dyn()),
            ("records".into(), self.records.clone().into_dyn()),
            ("learning_rates".into(), Array1::from(self.learning_rates.clone()).into_dyn()),
            ("drawn".into(), number(self.drawn as f64)),
            ("skipped".into(), number(self.skipped as f64)),
            ("ended".into(), number(f64::from(u8::from(self.ended)))),
            ("seconds".into(), number(self.seconds())),
        ]);
        state.extend(self.adam.state());
        let average = self.average.mean.iter().cloned();
        state.extend(average.map(|mean| ("average".into(), mean.into_dyn())));
        state
    }

    /// Goes on from a saved state, which also sets the model's parameters. A training that had ended goes on where
    /// `config` has more steps, unless its time was up or its target reached.
    ///
    /// # Errors
    /// The state lacks something; nothing has changed then.
    pub fn restore(
        &mut self,
        model: &mut impl Trainable,
        config: &TrainConfig,
        state: &Saved,
    ) -> Restored<()> {
        let count = model.parameters().len();
        let parameters = array(state, "parameters", count)?;
        let learning_rates = array(state, "learning_rates", ANY)?.to_vec();
        let records = array(state, "records", (learning_rates.len(), RECORDED.len()))?;
        let drawn = read_number(state, "drawn")? as i64;
        let skipped = read_number(state, "skipped")? as i64;
        let ended = read_number(state, "ended")? != 0.0;
        let seconds_before = read_number(state, "seconds")?;
        let average = self.average.mean.is_some().then(|| array(state, "average", count));
        let average = average.transpose()?;
        self.adam.restore(state)?;

        let steps = learning_rates.len() as i64;
        let spent = steps >= config.steps || budget_used(config, steps, seconds_before) >= 1.0;
        // A training of all steps looks at its gap only then.
        let reached = steps % config.log_every == 0 && is_close_enough(&records, config);
        let ended = ended && (spent || reached);
        self.last = ended.then(|| parameters.clone());
        let mean = average.clone().filter(|_| ended);
        *model.parameters_mut() = mean.unwrap_or(parameters);
        self.learning_rates = learning_rates;
        self.records = records;
        self.drawn = drawn;
        self.skipped = skipped;
        self.ended = ended;
        self.seconds_before = seconds_before;
        self.average.mean = average;
        Ok(())
    }

    /// Whether no further step is needed.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Steps done.
    fn steps(&self) -> i64 {
        self.learning_rates.len() as i64
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.start.elapsed().as_secs_f64()
    }

    /// How much of the budget of steps and seconds is used, from 0 to 1, by the clock of the team's leader.
    fn progress(&self, model: &impl Trainable, config: &TrainConfig) -> f64 {
        let limited = config.seconds > 0.0;
        let seconds = if limited { model.team().leaders(vec![self.seconds()])[0] } else { 0.0 };
        budget_used(config, self.steps(), seconds)
    }

    /// Does the steps that are left. `after_step` is called after every step, when the training can be saved. A step with a
    /// loss or gradient that is not finite is skipped.
    ///
    /// # Errors
    /// More than `max_skipped_steps` steps were skipped, or an error of `after_step`.
    pub fn run<M: Trainable>(
        &mut self,
        model: &mut M,
        config: &TrainConfig,
        objective: M::Objective<'_>,
        seed: &TaskSeed,
        mut after_step: impl FnMut(&Self, &M, Progress) -> Result<()>,
    ) -> Result<()> {
        // What is restored may have diverged.
        check_skipped(self.skipped, self.steps(), config.max_skipped_steps)?;
        while !self.ended {
            let number = self.steps();
            let progress = self.progress(model, config);
            let batch = batch(config, progress);
            let step = Step { number, drawn: self.drawn, batch };
            let loss = model.loss(objective, config, seed, step);
            self.drawn += batch;
            let norm = loss.gradient.dot(&loss.gradient).sqrt();
            let rate = learning_rate(config, number, progress);
            if norm.is_finite() && loss.values.iter().all(|value| value.is_finite()) {
                let scale = clipping(norm, config.clip_norm);
                let gradient = &loss.gradient * scale;
                self.adam.step(model.parameters_mut(), gradient.view(), rate);
            } else {
                self.skipped += 1;
            }
            self.average.update(model.parameters(), number);
            let record = record(&loss, norm);
            let [mean, deviation, ..] = record;
            self.records.push_row(ArrayView1::from(&record)).expect("one number a quantity");
            self.learning_rates.push(rate);
            let done = number + 1;

            let mut known = None;
            self.ended = progress >= 1.0 || done == config.steps;
            if done % config.log_every == 0 || self.ended {
                check_skipped(self.skipped, done, config.max_skipped_steps)?;
                let error = deviation / (batch as f64).sqrt();
                known = Some((mean, error)).filter(|(loss, _)| loss.is_finite());
                self.ended |= is_close_enough(&self.records, config);
            }
            let used = if self.ended { 1.0 } else { progress.max(budget_used(config, done, 0.0)) };
            after_step(self, model, Progress { step: done, used, loss: known })?;
        }
        if self.last.is_none() {
            let mean = self.average.mean.clone();
            let mean = mean.unwrap_or_else(|| model.parameters().clone());
            self.last = Some(std::mem::replace(model.parameters_mut(), mean));
        }
        Ok(())
    }

    /// The course so far.
    pub fn history(&self) -> History {
        History {
            values: self.records.t().as_standard_layout().into_owned(),
            learning_rates: self.learning_rates.clone(),
            skipped_steps: self.skipped,
        }
    }
}

/// Whether the gap, as it is estimated every `log_every` steps, has fallen to `target_gap`.
///
/// Shapes: records (step, quantity).
fn is_close_enough(records: &Array2<f64>, config: &TrainConfig) -> bool {
    gap_estimate(records.view(), config.log_every) <= config.target_gap
}

/// ½ Var(ln q - ln π) averaged over the last `window` steps, those that were skipped aside: the gap in nats where q is
/// close to π. NaN where all were skipped.
///
/// Shapes: records (step, quantity).
fn gap_estimate(records: ArrayView2<f64>, window: i64) -> f64 {
    let first = records.nrows().saturating_sub(window as usize);
    let last = records.slice(s![first.., ..]);
    let counted = last.rows().into_iter().filter(|row| row[1].is_finite() && row[3].is_finite());
    let squares: Array1<f64> = counted.map(|row| row[1] * row[1]).collect();
    0.5 * squares.mean().unwrap_or(f64::NAN)
}

/// Running mean of the parameters: a ← r a + (1 - r) θ, where the rate r rises to the decay as
/// (1 + n)/(10 + n), so that short trainings are not dominated by their start.
struct RunningMean {
    mean: Option<Array1<f64>>,
    decay: f64,
}

impl RunningMean {
    /// No mean at all where the decay is 0.
    fn new(parameters: &Array1<f64>, decay: f64) -> Self {
        Self { mean: (decay > 0.0).then(|| parameters.clone()), decay }
    }

    fn update(&mut self, parameters: &Array1<f64>, step: i64) {
        if let Some(mean) = &mut self.mean {
            let steps = step as f64;
            let decay = self.decay.min((1.0 + steps) / (10.0 + steps));
            mean.zip_mut_with(parameters, |mean, parameter| {
                *mean = *mean * decay + parameter * (1.0 - decay);
            });
        }
    }
}

/// Factor that takes a gradient's norm down to `limit` (0: no limit).
fn clipping(norm: f64, limit: f64) -> f64 {
    if limit == 0.0 { 1.0 } else { (limit / norm).min(1.0) }
}

/// What is recorded of a step, in the order of [`RECORDED`].
fn record(loss: &Loss, norm: f64) -> [f64; 4] {
    let mean = |values: &Array1<f64>| values.mean().unwrap_or(f64::NAN);
    let asymmetry = loss.asymmetry.as_ref().map_or(0.0, mean);
    [mean(&loss.values), loss.values.std(1.0), asymmetry, norm]
}

fn check_skipped(skipped: i64, steps: i64, allowed: i64) -> Result<()> {
    if skipped > allowed {
        return Err(Error::TrainingDiverged { skipped, steps, allowed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::Config;
    use crate::engine::device::Device;
    use crate::flow::Flow;
    use crate::task::Task;

    /// Loss, deviation, regularizer, norm of each step.
    fn records(steps: &[[f64; 4]]) -> Array2<f64> {
        Array2::from(steps.to_vec())
    }

    #[test]
    fn skipped_steps_do_not_count_in_the_estimated_gap() {
        let (fine, far) = ([1.0, 0.2, 0.0, 3.0], [1.0, 100.0, 0.0, 3.0]);
        let no_loss = [f64::NAN, f64::NAN, 0.0, f64::NAN];
        let infinite_gradient = [1.0, 100.0, 0.0, f64::INFINITY];
        let all = records(&[far, fine, no_loss, infinite_gradient, fine]);
        assert!((gap_estimate(all.view(), 4) - 0.02).abs() < 1e-15);
        assert!((gap_estimate(all.view(), 100) - 0.5 * (2.0 * 0.04 + 1e4) / 3.0).abs() < 1e-9);
        let skipped = gap_estimate(records(&[fine, no_loss]).view(), 1);
        assert!(skipped.is_nan(), "no step says anything: {skipped}");
    }

    #[test]
    fn budget_is_used_by_steps_or_by_seconds_whichever_is_further() {
        let limited = TrainConfig { steps: 1_000_000, seconds: 600.0, ..Default::default() };
        assert_eq!(budget_used(&limited, 6000, 60.0), 0.1);
        assert_eq!(budget_used(&limited, 500_000, 60.0), 0.5);
        assert_eq!(budget_used(&limited, 6000, 700.0), 1.0);
        let unlimited = TrainConfig { seconds: 0.0, ..limited };
        assert_eq!(budget_used(&unlimited, 6000, 60.0), 0.006);
    }

    /// A small flow to train with the given keys.
    fn small(keys: &str) -> (Config, Model, TaskSeed) {
        let text = "[sweep]\nname='t'\nlinear_size=4\ntemperatures=[2.5]\ndepths=[1]\n\
                    [flow]\ncouplings=1\nhidden_layers=1\nhidden_width=2\n\
                    [train]\nbatch=4\nlog_every=2\n";
        let config = Config::parse(&format!("{text}{keys}"), "t.toml".as_ref()).unwrap();
        let task = Task { linear_size: 4, temperature: 2.5, depth: 1, seed: 1 };
        let architecture = task.architecture(&config.flow);
        let seed = task.streams();
        let random = seed.at(Stage::Initialize, 0);
        let flow = Flow::initialize(architecture, &random);
        let model = Model::new(flow, task.target(), task.temperature, &config.run, Device::Cpu);
        (config, model, seed)
    }

    /// What is reported after each step of a training with the given keys.
    fn reported(keys: &str) -> Vec<f64> {
        let (config, mut model, seed) = small(keys);
        let mut used = Vec::new();
        train(&mut model, &config.train, 0.0, &seed, |progress, _| used.push(progress.used))
            .unwrap();
        used
    }

    #[test]
    fn a_step_that_is_not_finite_is_skipped_and_changes_nothing() {
        let (config, mut model, seed) = small("steps = 3\nmax_skipped_steps = 3\n");
        let mut training = Training::new(&model, &config.train);
        // Infinite scales give infinite losses.
        model.flow.parameters.fill(f64::INFINITY);
        let before = (model.flow.parameters.clone(), training.adam.state());
        let objective = Objective::ReverseKl { symmetry_weight: 0.0 };
        training.run(&mut model, &config.train, objective, &seed, |_, _, _| Ok(())).unwrap();
        assert_eq!((model.flow.parameters.clone(), training.adam.state()), before);
        assert_eq!(training.history().skipped_steps, 3);
    }

    #[test]
    fn each_step_reports_how_much_of_the_budget_is_used() {
        assert_eq!(reported("steps = 4"), [0.25, 0.5, 0.75, 1.0]);
        // The clock has passed the limit before the second step.
        assert_eq!(reported("steps = 1000000\nseconds = 1e-9").last(), Some(&1.0));
        assert_eq!(reported("steps = 1000000\ntarget_gap = 1e9"), [1e-6, 1.0]);
    }
}
