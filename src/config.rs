//! The configuration file: TOML → validated values. The rest of the program trusts what passed here. Each section is
//! defined where it is used; here they are joined, and checked against each other.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bounds::{Check, MOST_TASKS, require, require_fields};
use crate::engine::config::RunConfig;
use crate::error::{Error, Result};
use crate::files::seal;
use crate::flow::config::{FlowConfig, Symmetry};
use crate::lattice::halvings;
use crate::sampling::config::{ControlsConfig, EvaluateConfig, HmcConfig, Sampler};
use crate::train::config::{DataConfig, StartFrom, TrainConfig};
use crate::train::data;
use canonical::CanonicalConfig;
use command::CommandConfig;
use growth::of_tasks;
use learn::LearnConfig;
use sweep::{Depths, SweepConfig, Temperatures, decimal_comma_hint};
use text::parse_over_preset;

pub mod canonical;
pub mod command;
pub mod growth;
pub mod learn;
pub mod sweep;
mod text;

/// One sweep, as the user describes it; every default is filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub sweep: SweepConfig,
    /// With it flows learn from samples of the target (forward KL), without from their own (reverse KL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataConfig>,
    #[serde(default)]
    pub flow: FlowConfig,
    #[serde(default)]
    pub train: TrainConfig,
    #[serde(default)]
    pub evaluate: EvaluateConfig,
    #[serde(default)]
    pub hmc: HmcConfig,
    #[serde(default)]
    pub controls: ControlsConfig,
    #[serde(default)]
    pub run: RunConfig,
}

/// A configuration of any kind, which its section `[learn]` or `[canonical]` tells, as TOML with every default spelled out, and what it
/// may be worth to look at again.
///
/// # Errors
/// As [`Config::read`].
pub fn resolved(path: &Path) -> Result<(String, Option<&'static str>)> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read configuration", path))?;
    let sections: toml::Table = toml::from_str(&text).unwrap_or_default();
    if sections.contains_key("learn") {
        return Ok((LearnConfig::parse(&text, path)?.to_toml(), None));
    }
    if sections.contains_key("canonical") {
        return Ok((CanonicalConfig::parse(&text, path)?.to_toml(), None));
    }
    let config = Config::parse(&text, path)?;
    Ok((config.to_toml(), decimal_comma_hint(config.temperatures())))
}

impl Config {
    /// Reads and validates a configuration file.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML of the known keys, or holds a value that is not allowed.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read configuration", path))?;
        Self::parse(&text, path)
    }

    /// Parses and validates `text`; `path` only names it in messages.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let mut config: Self = parse_over_preset(text, path, "", |config: &Self| &config.flow)?;
        config.resolve().map_err(|problem| problem.at(path))?;
        Ok(config)
    }

    /// `[hmc]` for a sampler: trajectories of chains of the field have the limit of `[controls]`, but for the steps that they
    /// begin with.
    pub fn hmc_of(&self, sampler: Sampler) -> HmcConfig {
        let max_leapfrog_steps = match sampler {
            Sampler::Latent | Sampler::Independence => self.hmc.max_leapfrog_steps,
            Sampler::Physical | Sampler::Fourier => {
                self.controls.max_leapfrog_steps.max(self.hmc.leapfrog_steps)
            }
        };
        HmcConfig { max_leapfrog_steps, ..self.hmc.clone() }
    }

    /// The resolved configuration as TOML, every default spelled out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a validated configuration has a TOML form")
    }

    /// Fills in the checksums of the files that it names, and looks whether the data have the fields of every task; `path`
    /// names the configuration.
    ///
    /// # Errors
    /// As [`data::identify`], or those of the file with a flow.
    pub fn identify_files(&mut self, path: &Path) -> Result<()> {
        if let StartFrom::File(file) = &mut self.train.start_from {
            file.identify(path)?;
        }
        let Some(mut data) = self.data.clone() else { return Ok(()) };
        let size = self.linear_sizes()[0];
        data::identify(&mut data, (size, self.temperatures()), path)?;
        self.data = Some(data);
        Ok(())
    }

    /// How many tasks run at once on `ranks` ranks; `path` only names the file in messages.
    ///
    /// # Errors
    /// The ranks cannot be divided into teams of `run.ranks_per_task`.
    pub fn teams(&self, ranks: usize, path: &Path) -> Result<usize> {
        let size = self.run.ranks_per_task;
        if ranks.is_multiple_of(size) {
            return Ok(ranks / size);
        }
        Err(Error::ConfigValue {
            path: path.into(),
            key: "run.ranks_per_task".into(),
            problem: format!(
                "is {size}, but must divide the number of ranks, which is {ranks}; start as many ranks as a \
                 multiple of it, or set it to 1"
            ),
        })
    }

    /// The linear sizes of the sweep.
    pub fn linear_sizes(&self) -> &[usize] {
        self.sweep.linear_size.list()
    }

    /// The temperatures of the sweep.
    pub fn temperatures(&self) -> &[f64] {
        match &self.sweep.temperatures {
            Temperatures::List(list) => list,
            _ => unreachable!("ranges are expanded when a file is parsed"),
        }
    }

    /// The depths of the sweep.
    pub fn depths(&self) -> &[usize] {
        match &self.sweep.depths {
            Depths::List(list) => list,
            Depths::Range(_) => unreachable!("ranges are expanded when a file is parsed"),
        }
    }

    /// Those of them that a lattice can have, in their order.
    pub fn depths_of(&self, linear_size: usize) -> Vec<usize> {
        let possible = 1..=halvings(linear_size);
        self.depths().iter().copied().filter(|depth| possible.contains(depth)).collect()
    }

    /// Checksum of everything that the numbers of a task depend on besides the task.
    pub fn sha256_of_tasks(&self) -> String {
        let lines = of_tasks(self).into_iter().map(|(key, value)| format!("{key} = {value}\n"));
        seal::sha256(lines.collect::<String>().as_bytes())
    }

    /// Expands ranges and checks every value.
    fn resolve(&mut self) -> Check {
        self.sweep.resolve()?;
        self.flow.check()?;
        self.train.check()?;
        self.evaluate.check()?;
        self.hmc.check()?;
        self.controls.check()?;
        self.run.check()?;
        self.check_sizes()?;
        self.check_data()
    }

    /// Whether the sweep has few enough tasks, and whether what a task holds at once has a size that memory may have.
    fn check_sizes(&self) -> Check {
        let size = *self.linear_sizes().iter().max().expect("there are sizes");
        let (temperatures, seeds) = (self.temperatures().len(), self.sweep.seeds.len());
        let shapes: usize = self.linear_sizes().iter().map(|&it| self.depths_of(it).len()).sum();
        let tasks = shapes * temperatures * seeds;
        let (sizes, depths) = (self.linear_sizes().len(), self.depths().len());
        let of_sizes = if sizes > 1 { format!("{sizes} sizes × ") } else { String::new() };
        let product = format!(
            "{tasks} tasks ({of_sizes}{temperatures} temperatures × {depths} depths × {seeds} seeds)"
        );
        let allowed = format!("at most {MOST_TASKS}; make several sweeps");
        require(tasks <= MOST_TASKS, "sweep", product, allowed)?;
        for &size in self.linear_sizes() {
            let deepest = self.depths_of(size).into_iter().max();
            self.flow.check_size(size, deepest.expect("each size has a depth"))?;
        }
        self.train.check_size(size)?;
        let EvaluateConfig { samples, batch, keep_samples } = self.evaluate;
        require_fields("evaluate.batch", batch.min(samples), size)?;
        require_fields("evaluate.keep_samples", keep_samples, size)?;
        require_fields("hmc.chains", self.hmc.chains, size)?;
        require_fields("hmc.keep_states", self.hmc.keep_states, size)
    }

    /// Whether flows can learn from samples in this way.
    fn check_data(&self) -> Check {
        let Some(data) = &self.data else { return Ok(()) };
        data.check()?;
        self.train.check_forward()?;
        let sizes = self.linear_sizes();
        require(
            sizes.len() == 1,
            "sweep.linear_size",
            format!("{sizes:?}"),
            "one number with [data], whose fields have one size",
        )?;
        require(
            self.train.start_from != StartFrom::HalfSize,
            "train.start_from",
            "\"half-size\"",
            "another one with [data], which has no fields of smaller lattices",
        )?;
        require(
            self.flow.symmetry != Symmetry::Regularizer,
            "flow.symmetry",
            "\"regularizer\"",
            "another one with [data], since it is a mean over the flow's own samples",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::sweep::decimal_comma_hint;
    use super::*;

    const SMALL: &str = "[sweep]\nname = 'test'\nlinear_size = 8\ndepths = [1, 3]\n";

    fn parse(temperatures: &str) -> Result<Config> {
        Config::parse(&format!("{SMALL}temperatures = {temperatures}\n"), Path::new("test.toml"))
    }

    #[test]
    fn a_range_is_spelled_out_with_both_ends() {
        let config = parse("{ from = 2.0, to = 2.7, step = 0.1 }").unwrap();
        assert_eq!(config.temperatures(), [2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7]);
    }

    #[test]
    fn a_range_of_points_has_both_ends() {
        let config = parse("{ from = 2.0, to = 2.6, points = 10 }").unwrap();
        let [first, second, .., last] = config.temperatures() else { panic!("there are ten") };
        assert_eq!([*first, *second, *last], [2.0, 2.0666666667, 2.6]);
        assert_eq!(config.temperatures().len(), 10);
        assert_eq!(parse("{ from = 2.5, to = 2.5, points = 1 }").unwrap().temperatures(), [2.5]);
    }

    /// What the message about a step that does not fit offers is accepted as it is printed.
    #[test]
    fn both_nearest_steps_fit() {
        for (to, step, offered) in [
            (2.6, 0.07, ["0.075", "0.0666666666667"]),
            (2.6, 0.7, ["0.6", "0.3"]),
            (3.9995, 0.001, ["0.00100025012506", "0.000999750000"]),
            (3.0, 0.0001001, ["0.000100100100100", "0.000100090081073"]),
        ] {
            let range = |step: &str| parse(&format!("{{ from = 2.0, to = {to}, step = {step} }}"));
            let refusal = range(&step.to_string()).unwrap_err().to_string();
            let (_, rest) = refusal.split_once("such as ").unwrap();
            let (steps, _) = rest.split_once(", or with").unwrap();
            for (found, expected) in steps.split(" or ").zip(offered) {
                assert_eq!(found.parse::<f64>(), expected.parse(), "{refusal}");
                assert_eq!(range(found).unwrap().temperatures().last(), Some(&to));
            }
        }
    }

    #[test]
    fn lists_that_look_like_decimal_commas_get_a_hint_and_no_others_do() {
        let hinted = |list: &[f64]| decimal_comma_hint(list).is_some();
        assert!(
            [&[2.0, 27.0][..], &[2.0, 1.0, 2.0, 2.0], &[2.0, 269185.0]].map(hinted) == [true; 3]
        );
        let sensible =
            [&[1.0, 2.0][..], &[2.0, 2.7], &[2.0], &[1.0, 5.0, 20.0], &[10.0, 20.0], &[2.5, 27.0]];
        assert!(sensible.map(hinted) == [false; 6]);
        let refusal = parse("[2,1, 2,2]").unwrap_err().to_string();
        assert!(refusal.contains("has 2 twice") && refusal.contains("as in 2.27"), "{refusal}");
        assert_eq!(parse("[2, 27]").unwrap().temperatures(), [2.0, 27.0], "legal all the same");
    }

    #[test]
    fn a_range_of_depths_has_both_ends() {
        let text = SMALL.replace("[1, 3]", "{ from = 1, to = 3 }") + "temperatures = [2.0]";
        assert_eq!(Config::parse(&text, Path::new("t.toml")).unwrap().depths(), [1, 2, 3]);
    }

    #[test]
    fn whole_floats_are_integers_wherever_they_stand() {
        let text = "[train]\nsteps = 1e3 # not 1e4\nbatch = +2_048.0\nlearning_rate = 1e-3\n\
                    [run]\nslice_minutes = 2.0\n[flow]\npreset = 'best'\n";
        let text =
            SMALL.replace("[1, 3]", "[1.0, 3e0]") + "temperatures = [2.0, 2.5, 3e0]\n" + text;
        let config = Config::parse(&text, Path::new("t.toml")).unwrap();
        assert_eq!((config.train.steps, config.train.batch), (1000, 2048));
        assert_eq!((config.train.learning_rate, config.run.slice_minutes), (1e-3, 2.0));
        assert_eq!((config.depths(), config.temperatures()), (&[1, 3][..], &[2.0, 2.5, 3.0][..]));
        assert_eq!(config.flow.couplings, 7, "the preset's");
    }

    #[test]
    fn the_resolved_text_reads_back_as_the_same_configuration() {
        let config = parse("[2.0, 2.269185314213022]").unwrap();
        assert_eq!(Config::parse(&config.to_toml(), Path::new("again.toml")).unwrap(), config);
    }

    #[test]
    fn sizes_are_one_or_a_list_and_each_has_the_depths_that_it_can_have() {
        let parse = |size: &str, depths: &str| {
            let text = format!(
                "[sweep]\nname = 't'\nlinear_size = {size}\ntemperatures = [2.0]\ndepths = {depths}\n"
            );
            Config::parse(&text, Path::new("t.toml"))
        };
        let config = parse("[8, 16.0, 12]", "{ from = 1, to = 4 }").unwrap();
        assert_eq!(config.linear_sizes(), [8, 16, 12]);
        let depths = [8, 16, 12].map(|size| config.depths_of(size).len());
        assert_eq!(depths, [3, 4, 2]);
        assert_eq!(parse("[8]", "[1]").unwrap(), parse("8", "[1]").unwrap());
        for (size, depths, expected) in [
            ("[8, 8]", "[1]", "`sweep.linear_size` has 8 twice"),
            ("[]", "[1]", "`sweep.linear_size`"),
            ("[8, 7]", "[1]", "is 7 in one place, but must be an even number"),
            ("[8, 12]", "[3]", "given with one that L = 12 has, from 1 to 2"),
            ("[8, 16]", "[5]", "is 5 in one place, but must be from 1 to 4"),
        ] {
            let refusal = parse(size, depths).unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal}");
        }
    }
}
