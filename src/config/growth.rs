//! What becomes of tasks that were done with one configuration when their folder gets another: what they lack, and what they
//! cannot become. Pure.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::Config;
use super::text::{differences, flattened, is_of_machine};
use crate::sampling::config::Sampler;

/// What becomes of a stage of a task that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// As it is.
    Kept,
    /// Goes on from its end.
    Continued,
    /// Is done again, or for the first time.
    Anew,
}

/// What a task that was done with one configuration lacks of another.
#[derive(Debug, Clone, PartialEq)]
pub struct Lacking {
    pub training: Fate,
    pub evaluation: Fate,
    /// Of the samplers of the new configuration, latent HMC first.
    pub chains: Vec<(Sampler, Fate)>,
    /// Why, each as `key = new, there old`.
    pub changes: Vec<String>,
    /// The first of these for which numbers are replaced by others, rather than by more of the same.
    pub replacing: Option<String>,
    /// Chains are there of samplers that the new configuration does not have.
    pub drops_chains: bool,
    /// Which part of the training, of the evaluation and of latent HMC is to be done, from 0 to 1.
    pub shares: [f64; 3],
}

impl Lacking {
    /// Nothing, where latent HMC is the only sampler.
    fn nothing() -> Self {
        Self {
            training: Fate::Kept,
            evaluation: Fate::Kept,
            chains: vec![(Sampler::Latent, Fate::Kept)],
            changes: Vec::new(),
            replacing: None,
            drops_chains: false,
            shares: [0.0; 3],
        }
    }

    /// Whether the task is all that it should be.
    pub fn is_nothing(&self) -> bool {
        self.stages().next().is_none()
    }

    /// Whether a file that has all that is wanted does not have all that was there.
    pub fn replaces(&self) -> bool {
        self.replacing.is_some() || self.training != Fate::Kept || self.drops_chains
    }

    /// The stages that are to be done, as checkpoints name them.
    fn stages(&self) -> impl Iterator<Item = (&'static str, Fate)> {
        let first = [("train", self.training), ("evaluate", self.evaluation)];
        let chains = self.chains.iter().map(|(sampler, fate)| (sampler.name(), *fate));
        first.into_iter().chain(chains).filter(|(_, fate)| *fate != Fate::Kept)
    }

    /// The stages, as checkpoints name them, that begin anew.
    pub fn anew(&self) -> impl Iterator<Item = &'static str> {
        self.stages().filter(|(_, fate)| *fate == Fate::Anew).map(|(stage, _)| stage)
    }

    /// Lets the chains of some samplers begin anew; whether there are any.
    fn renew(&mut self, of: impl Fn(Sampler) -> bool) -> bool {
        let mut found = false;
        for (_, fate) in self.chains.iter_mut().filter(|(sampler, _)| of(*sampler)) {
            *fate = Fate::Anew;
            found = true;
        }
        found
    }

    fn all_chains(&mut self, fate: Fate) {
        self.chains.iter_mut().for_each(|(_, old)| *old = fate.max(*old));
    }
}

/// The stages and why: "training, evaluation, chains of latent (train.steps = 200, there 100)".
impl Display for Lacking {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let name = |stage| match stage {
            "train" => "training".to_owned(),
            "evaluate" => "evaluation".to_owned(),
            sampler => format!("chains of {sampler}"),
        };
        let stages: Vec<String> = self.stages().map(|(stage, _)| name(stage)).collect();
        write!(formatter, "{} ({})", stages.join(", "), self.changes.join("; "))
    }
}

impl Config {
    /// What a task that was done with another configuration lacks of this one.
    ///
    /// # Errors
    /// The first key, as `key = mine, there theirs`, of which its trained flow would be another one.
    pub fn lacks(&self, done: &Self) -> Result<Lacking, String> {
        let mut lacking = Lacking::nothing();
        let controls = self.controls.samplers.iter();
        lacking.chains.extend(controls.map(|sampler| (*sampler, Fate::Kept)));
        let there = |sampler: Sampler| {
            sampler == Sampler::Latent || done.controls.samplers.contains(&sampler)
        };
        // Observables during a training take the settings of the chains.
        let measured = self.train.measure_every > 0;
        let longer = self.hmc.trajectories > done.hmc.trajectories;
        let (mine, theirs) = (of_tasks(self), of_tasks(done));
        for (key, told) in differences(&mine, &theirs) {
            let more = match key {
                "train.steps" if self.train.steps > done.train.steps => {
                    lacking.training = Fate::Continued;
                    true
                }
                "evaluate.samples" if self.evaluate.samples > done.evaluate.samples => {
                    lacking.evaluation = lacking.evaluation.max(Fate::Continued);
                    true
                }
                "hmc.trajectories" if longer && self.hmc.keeps_states_of(&done.hmc) => {
                    lacking.all_chains(Fate::Continued);
                    true
                }
                "controls.samplers" => {
                    let theirs = &done.controls.samplers;
                    lacking.drops_chains =
                        theirs.iter().any(|sampler| !self.controls.samplers.contains(sampler));
                    if !lacking.renew(|sampler| !there(sampler)) {
                        continue;
                    }
                    true
                }
                _ if key.starts_with("evaluate.") => {
                    lacking.evaluation = Fate::Anew;
                    false
                }
                "hmc.trajectories" | "hmc.keep_states" => {
                    lacking.all_chains(Fate::Anew);
                    false
                }
                _ if key.starts_with("hmc.") && !measured => {
                    lacking.all_chains(Fate::Anew);
                    false
                }
                _ if key.starts_with("controls.") && !measured => {
                    let of_field = |sampler| {
                        matches!(sampler, Sampler::Physical | Sampler::Fourier) && there(sampler)
                    };
                    if !lacking.renew(of_field) {
                        continue;
                    }
                    false
                }
                _ => return Err(told),
            };
            if !more && lacking.replacing.is_none() {
                lacking.replacing = Some(told.clone());
            }
            lacking.changes.push(told);
        }
        if lacking.training == Fate::Continued {
            lacking.evaluation = Fate::Anew;
            lacking.all_chains(Fate::Anew);
        }
        lacking.shares = self.shares(done, &lacking);
        Ok(lacking)
    }

    /// The first of the lists of tasks that lacks something of another configuration's, in words.
    pub fn list_without(&self, other: &Self) -> Option<String> {
        fn lacks<T: PartialEq + fmt::Debug>(key: &str, mine: &[T], theirs: &[T]) -> Option<String> {
            let all = theirs.iter().all(|value| mine.contains(value));
            (!all).then(|| format!("{key} = {mine:?}, there {theirs:?}"))
        }
        lacks("sweep.linear_size", self.linear_sizes(), other.linear_sizes())
            .or_else(|| lacks("sweep.temperatures", self.temperatures(), other.temperatures()))
            .or_else(|| lacks("sweep.depths", self.depths(), other.depths()))
            .or_else(|| lacks("sweep.seeds", &self.sweep.seeds, &other.sweep.seeds))
    }

    fn shares(&self, done: &Self, lacking: &Lacking) -> [f64; 3] {
        let share = |fate: Fate, done: i64, all: i64| match fate {
            Fate::Kept => 0.0,
            Fate::Continued => 1.0 - done as f64 / all as f64,
            Fate::Anew => 1.0,
        };
        let trajectories = |config: &Self| config.hmc.warmup + config.hmc.trajectories;
        [
            share(lacking.training, done.train.steps, self.train.steps),
            share(lacking.evaluation, done.evaluate.samples, self.evaluate.samples),
            share(lacking.chains[0].1, trajectories(done), trajectories(self)),
        ]
    }
}

/// What the numbers of a task depend on besides the task and the one that it starts from: neither the machine, nor what other
/// tasks there are.
pub(super) fn of_tasks(config: &Config) -> BTreeMap<String, toml::Value> {
    let mut values = flattened(config);
    values.retain(|key, _| !is_of_machine(key) && !key.starts_with("sweep."));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[sweep]\nname = 'test'\nlinear_size = 8\ntemperatures = [2.0]\ndepths = [1]\n\
                        [train]\nsteps = 100\n[evaluate]\nsamples = 100\n[hmc]\ntrajectories = 100\nkeep_states = 640\n\
                        [controls]\nsamplers = ['fourier']\n";

    fn config(changes: &[(&str, &str)]) -> Config {
        let text = changes.iter().fold(TEXT.to_owned(), |text, (old, new)| {
            assert!(text.contains(old), "{old}");
            text.replace(old, new)
        });
        Config::parse(&text, "test.toml".as_ref()).unwrap()
    }

    /// What the task of the text above lacks after a change; and whether checksums tell, too.
    fn lacks(old: &str, new: &str) -> Result<Lacking, String> {
        let (done, changed) = (config(&[]), config(&[(old, new)]));
        let lacking = changed.lacks(&done);
        let same = lacking.as_ref().is_ok_and(|lacking| lacking.changes.is_empty());
        let listed = new == "[]";
        assert!(listed || same == (done.sha256_of_tasks() == changed.sha256_of_tasks()), "{new}");
        lacking
    }

    #[test]
    fn neither_the_machine_nor_other_tasks_change_a_task() {
        for (old, new) in [
            ("[2.0]", "[3.0]"),
            ("name = 'test'", "name = 'other'\nseeds = [1, 9]"),
            ("[train]", "[run]\nthreads = 2\ndevice = 'cpu'\n[train]"),
            ("['fourier']", "[]"),
        ] {
            assert!(lacks(old, new).unwrap().is_nothing(), "{new}");
        }
    }

    #[test]
    fn more_of_the_same_goes_on_from_where_it_ended() {
        use Fate::{Anew, Continued, Kept};
        for (old, new, fates, told) in [
            (
                "steps = 100",
                "steps = 200",
                [Continued, Anew, Anew, Anew],
                "training, evaluation, chains of latent, chains of fourier (train.steps = 200, there 100)",
            ),
            (
                "samples = 100",
                "samples = 400",
                [Kept, Continued, Kept, Kept],
                "evaluation (evaluate.samples = 400, there 100)",
            ),
            (
                "trajectories = 100",
                "trajectories = 200",
                [Kept, Kept, Continued, Continued],
                "chains of latent, chains of fourier (hmc.trajectories = 200, there 100)",
            ),
        ] {
            let lacking = lacks(old, new).unwrap();
            let found =
                [lacking.training, lacking.evaluation, lacking.chains[0].1, lacking.chains[1].1];
            assert_eq!(found, fates, "{new}");
            assert_eq!((lacking.to_string().as_str(), &lacking.replacing), (told, &None));
        }
        assert_eq!(lacks("samples = 100", "samples = 400").unwrap().shares, [0.0, 0.75, 0.0]);
        assert_eq!(
            lacks("trajectories = 100", "trajectories = 400").unwrap().shares,
            [0.0, 0.0, 0.5]
        );
        assert_eq!(lacks("steps = 100", "steps = 200").unwrap().shares, [0.5, 1.0, 1.0]);
    }

    #[test]
    fn another_sampler_is_the_only_one_to_run() {
        let lacking = lacks("['fourier']", "['physical', 'fourier']").unwrap();
        let fates = [Fate::Kept, Fate::Anew, Fate::Kept];
        assert!(lacking.chains.iter().map(|(_, fate)| *fate).eq(fates), "{lacking:?}");
        assert_eq!(lacking.anew().collect::<Vec<_>>(), ["physical"]);
        assert_eq!(lacking.replacing, None);
    }

    #[test]
    fn what_would_replace_numbers_says_so() {
        for (old, new, anew) in [
            ("trajectories = 100", "trajectories = 80", &["latent", "fourier"][..]),
            // Ten states of each chain cannot be those of every tenth trajectory any more.
            ("trajectories = 100", "trajectories = 150", &["latent", "fourier"]),
            ("keep_states = 640", "keep_states = 64", &["latent", "fourier"]),
            ("trajectories = 100", "trajectories = 100\nwarmup = 100", &["latent", "fourier"]),
            ("samples = 100", "samples = 90", &["evaluate"]),
            ("samples = 100", "samples = 100\nkeep_samples = 17", &["evaluate"]),
            ("[controls]", "[controls]\nstart = 'cold'", &["fourier"]),
        ] {
            let lacking = lacks(old, new).unwrap();
            assert_eq!(lacking.anew().collect::<Vec<_>>(), anew, "{new}");
            assert_eq!(lacking.replacing.as_ref(), lacking.changes.first(), "{new}");
        }
    }

    #[test]
    fn what_would_be_another_flow_is_named() {
        for (old, new, told) in [
            ("steps = 100", "steps = 50", "train.steps = 50, there 100"),
            ("steps = 100", "steps = 100\nbatch = 7", "train.batch = 7, there 512"),
            ("[train]", "[flow]\ncouplings = 3\n[train]", "flow.couplings = 3, there "),
            (
                "[train]",
                "[run]\nprecision = 'f64'\n[train]",
                "run.precision = \"f64\", there \"f32\"",
            ),
            (
                "[train]",
                "[train]\nstart_from = 'shallower'",
                "train.start_from = \"shallower\", there \"none\"",
            ),
        ] {
            let refusal = lacks(old, new).unwrap_err();
            assert!(refusal.starts_with(told), "{refusal}");
        }
        let measured = ("[train]", "[train]\nmeasure_every = 10");
        let done = config(&[measured]);
        for change in
            [("[hmc]", "[hmc]\nwarmup = 100"), ("[controls]", "[controls]\nstart = 'cold'")]
        {
            assert!(config(&[measured, change]).lacks(&done).is_err(), "{change:?}");
        }
        let longer = config(&[measured, ("trajectories = 100", "trajectories = 200")]);
        assert!(longer.lacks(&done).is_ok());
    }
}
