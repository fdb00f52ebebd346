//! The documents tell the truth about the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::job::{CHECKPOINT, EACH_STEP, Job, Point, held_at};
use crate::common::{Sweep, everything_measured, neuralrg, outcome};
use clap::CommandFactory;
use neuralrg::cli::Cli;
use neuralrg::config::Config;
use neuralrg::config::canonical::CanonicalConfig;
use neuralrg::config::command::CommandConfig;
use neuralrg::config::learn::LearnConfig;
use neuralrg::flow::config::FlowConfig;
use neuralrg::sweep::events::Event;
use safetensors::SafeTensors;

const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const LEARNING: &str = include_str!("../../docs/learning.md");
const CANONICAL: &str = include_str!("../../docs/canonical.md");
const FILES: &str = include_str!("../../docs/files.md");
const TUTORIAL: &str = include_str!("../../docs/tutorial.md");
const COMMANDS: &str = include_str!("../../docs/commands.md");

/// Both lists hold the same, in any order.
#[track_caller]
fn assert_same(document: &str, found: impl Iterator<Item = String>, expected: &[String]) {
    let found: Vec<String> = found.collect();
    let lacks: Vec<_> = expected.iter().filter(|item| !found.contains(item)).collect();
    let too_much: Vec<_> = found.iter().filter(|item| !expected.contains(item)).collect();
    assert!(
        lacks.is_empty() && too_much.is_empty(),
        "{document} lacks {lacks:#?} and should not have {too_much:#?}"
    );
    assert_eq!(found.len(), expected.len(), "{document} says something twice");
}

#[test]
fn every_key_is_documented_with_its_default_and_no_other() {
    let text = "[sweep]\nname='t'\nlinear_size=4\ntemperatures=[2.0]\ndepths=[1]\n[data]\nfile='t.h5'\n\
         [flow]\nsymmetry='none'";
    let mut config = Config::parse(text, Path::new("t.toml")).unwrap();
    // The default one, which learning from fields does not have.
    config.flow.symmetry = FlowConfig::default().symmetry;
    let resolved: toml::Table = toml::from_str(&config.to_toml()).unwrap();
    let mut expected = Vec::new();
    for (section, values) in &resolved {
        for (key, value) in values.as_table().unwrap() {
            let required = section == "sweep" && key != "seeds" || key == "file";
            let default = if required { String::new() } else { format!(" `{value}`") };
            expected.push(format!("| `{section}.{key}` |{default} |"));
        }
    }
    let (keys, _) = CONFIGURATION.split_once("\n## ").expect("more follows the keys");
    let rows = keys.lines().filter(|line| line.starts_with("| `"));
    let beginnings = rows.map(|row| row.split(" |").take(2).map(|cell| cell.to_owned() + " |"));
    assert_same("docs/configuration.md", beginnings.map(Iterator::collect), &expected);
}

#[test]
fn every_key_of_learn_is_documented_with_its_default_and_no_other() {
    let text = "[learn]\ndepth=1\n[data]\nfile='t.h5'";
    let config = LearnConfig::parse(text, Path::new("t.toml")).unwrap();
    let resolved: toml::Table = toml::from_str(&config.to_toml()).unwrap();
    let mut expected = Vec::new();
    for (key, value) in resolved["learn"].as_table().unwrap() {
        let default = if key == "depth" { String::new() } else { format!(" `{value}`") };
        expected.push(format!("| `learn.{key}` |{default} |"));
    }
    let rows = LEARNING.lines().filter(|line| line.starts_with("| `learn."));
    let beginnings = rows.map(|row| row.split(" |").take(2).map(|cell| cell.to_owned() + " |"));
    assert_same("docs/learning.md", beginnings.map(Iterator::collect), &expected);
}

#[test]
fn every_key_of_canonical_is_documented_with_its_default_and_no_other() {
    let text = "[canonical]\nloss='likelihood'\n[source]\nkind='data'\nfile='t.h5'";
    let config = CanonicalConfig::parse(text, Path::new("t.toml")).unwrap();
    let resolved: toml::Table = toml::from_str(&config.to_toml()).unwrap();
    // Keys of some sources only, which have no default.
    let mut expected =
        ["beads", "samples", "sha256"].map(|key| format!("| `source.{key}` | |")).to_vec();
    for section in ["canonical", "source"] {
        for (key, value) in resolved[section].as_table().unwrap() {
            let required = ["loss", "kind", "file"].contains(&key.as_str());
            let default = if required { String::new() } else { format!(" `{value}`") };
            expected.push(format!("| `{section}.{key}` |{default} |"));
        }
    }
    let is_key = |row: &&str| row.starts_with("| `canonical.") || row.starts_with("| `source.");
    let rows = CANONICAL.lines().filter(is_key);
    let beginnings = rows.map(|row| row.split(" |").take(2).map(|cell| cell.to_owned() + " |"));
    assert_same("docs/canonical.md", beginnings.map(Iterator::collect), &expected);
}

#[test]
fn every_command_has_a_section_and_no_other() {
    let sections = COMMANDS.lines().filter(|line| line.starts_with("## `neuralrg "));
    let program = Cli::command();
    let commands = program.get_subcommands().map(clap::Command::get_name);
    let expected: Vec<_> = commands.map(|name| format!("## `neuralrg {name}`")).collect();
    assert_same("docs/commands.md", sections.map(Into::into), &expected);
}

#[test]
fn the_configuration_of_the_tutorial_is_valid() {
    let (_, rest) = TUTORIAL.split_once("```toml\n").expect("it has one");
    let (text, _) = rest.split_once("```").expect("it ends");
    Config::parse(text, Path::new("study.toml")).unwrap();
}

/// Links to files, and to headings of documents, lead somewhere.
#[test]
fn links_between_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents = documents.filter(|path| path.extension().is_some_and(|it| it == "md"));
    for document in documents.chain([root.join("README.md"), root.join("analysis/README.md")]) {
        let text = fs::read_to_string(&document).unwrap();
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().expect("a link ends");
            if !link.starts_with("http") {
                let (file, heading) = link.split_once('#').unwrap_or((link, ""));
                let folder = document.parent().expect("documents are in folders");
                let target = if file.is_empty() { document.clone() } else { folder.join(file) };
                let found =
                    target.exists() && (heading.is_empty() || has_heading(&target, heading));
                assert!(found, "{}: {link}", document.display());
            }
        }
    }
}

/// Whether a document has a heading that GitHub and others give this name in links.
fn has_heading(document: &Path, name: &str) -> bool {
    let text = fs::read_to_string(document).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let kept = |letter: &char| letter.is_alphanumeric() || "- _".contains(*letter);
    let link = |line: &str| {
        let title: String = line.trim_start_matches('#').trim().chars().filter(kept).collect();
        title.to_lowercase().replace(' ', "-")
    };
    headings.map(link).any(|link| link == name)
}

/// What a line of the event log says of its kind. A new kind does not compile here; the test below lists it, too.
fn name_of(event: &Event) -> &'static str {
    match event {
        Event::JobStarted { .. } => "job-started",
        Event::TaskStarted { .. } => "task-started",
        Event::TaskDone { .. } => "task-done",
        Event::TaskFailed { .. } => "task-failed",
        Event::TaskStopped { .. } => "task-stopped",
        Event::TaskPaused { .. } => "task-paused",
        Event::TaskGivenUp { .. } => "task-given-up",
        Event::JobEnded { .. } => "job-ended",
    }
}

#[test]
fn events_have_the_documented_fields() {
    let task = "t";
    let events = [
        Event::JobStarted { ranks: 1, tasks_to_do: 1, tasks: 1 },
        Event::TaskStarted { task, rank: 0, taken_over_from: Some("j") },
        Event::TaskDone { task, rank: 0 },
        Event::TaskFailed { task, rank: 0, message: "m" },
        Event::TaskStopped { task, rank: 0 },
        Event::TaskPaused { task, rank: 0, remaining_seconds: 0.0 },
        Event::TaskGivenUp { task },
        Event::JobEnded { failed: 0, unfinished: 0 },
    ];
    let row = |event: &Event| {
        let mut fields = serde_json::to_value(event).unwrap();
        let fields = fields.as_object_mut().expect("an event is an object");
        assert_eq!(fields.remove("event").unwrap(), name_of(event));
        let fields: Vec<_> = fields.keys().map(|field| format!("`{field}`")).collect();
        format!("| `{}` | {} |", name_of(event), fields.join(", "))
    };
    let expected: Vec<String> = events.iter().map(row).collect();
    let (_, section) = FILES.split_once("## Events").expect("the section exists");
    let (section, _) = section.split_once("\n## ").expect("more follows");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let found: Vec<String> =
        rows.map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" | ") + " |").collect();
    assert_eq!(found, expected, "events in docs/files.md");
}

/// Names of the tensors in the checkpoint of a step of the only task of a sweep.
fn tensors(configuration: &str, step: usize) -> BTreeSet<String> {
    let text = configuration
        .replace("temperatures = [2.0, 3.0]", "temperatures = [2.0]")
        .replace("depths = [1, 2]", "depths = [2]")
        .replace("[run]", &format!("[run]\n{EACH_STEP}"));
    let sweep = Sweep::new(&text);
    // The checkpoint before the one that is being written.
    let point = Point { path: CHECKPOINT, number: step + 1, later: 0 };
    let mut job = Job::start(held_at(sweep.run_with(neuralrg()), &sweep, point));
    job.wait_until_held(&sweep, 1);
    let bytes = fs::read(sweep.dir.join("checkpoints/L4_T2_d2_s1")).expect("it was written");
    let end = bytes.iter().position(|&byte| byte == b'\n').expect("a line is first");
    let tensors = SafeTensors::deserialize(&bytes[end + 1..]).expect("the rest is safetensors");
    tensors.names().into_iter().cloned().collect()
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(Into::into).collect()
}

#[test]
fn checkpoints_hold_the_documented_tensors() {
    // The training has six steps, the evaluation one batch; the samplings follow, the latent one first.
    let mut found = tensors(&everything_measured(), 4);
    found.extend(tensors(&everything_measured(), 10));
    for prefix in ["train/average", "latent/"] {
        assert!(found.iter().any(|name| name.starts_with(prefix)), "{prefix}: {found:?}");
    }
    let (_, section) = FILES.split_once("## Checkpoints").expect("the section exists");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.map(|row| row.split_once('`').expect("a name in backticks").0);
    let documented: BTreeSet<String> =
        names.map(|name| name.replace("SAMPLER/", "latent/")).collect();
    let general = [
        ("train/course/latent/", "train/course/WALK/"),
        ("train/course/physical/", "train/course/WALK/"),
        ("train/stage_", "STAGE/stage_"),
        ("evaluate/stage_", "STAGE/stage_"),
        ("latent/stage_", "STAGE/stage_"),
    ];
    let rename =
        |name| general.iter().fold(name, |name: String, (from, to)| name.replace(from, to));
    let found: BTreeSet<String> = found.into_iter().map(rename).collect();
    assert_eq!(found, documented, "tensors of checkpoints, as docs/files.md has them");
}

#[test]
fn status_prints_the_documented_fields() {
    let sweep = Sweep::finished();
    let output = outcome(neuralrg().arg("status").arg(&sweep.dir).arg("--json"));
    let status: serde_json::Value = serde_json::from_str(output.success()).unwrap();
    let keys =
        |value: &serde_json::Value| names(value.as_object().unwrap().keys().map(String::as_str));
    let documented = |what: &str| {
        let (_, rest) = COMMANDS.split_once(what).expect("docs/commands.md has the fields");
        let line = rest.lines().next().expect("they follow");
        names(line.split('`').skip(1).step_by(2))
    };
    assert_eq!(documented("| the object | "), keys(&status));
    assert_eq!(documented("| each of `tasks` | "), keys(&status["tasks"][0]));
}
