//! The documents tell the truth about the program.

use std::path::Path;

use clap::CommandFactory;
use neuralrg::cli::Cli;
use neuralrg::config::Config;

const CONFIGURATION: &str = include_str!("../docs/configuration.md");
const COMMANDS: &str = include_str!("../docs/commands.md");

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
    let text = "[sweep]\nname='t'\nlinear_size=4\ntemperatures=[2.0]\ndepths=[1]";
    let config = Config::parse(text, Path::new("t.toml")).unwrap();
    let resolved: toml::Table = toml::from_str(&config.to_toml()).unwrap();
    let mut expected = Vec::new();
    for (section, values) in &resolved {
        for (key, value) in values.as_table().unwrap() {
            let required = section == "sweep" && key != "seeds";
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
fn every_command_has_a_section_and_no_other() {
    let sections = COMMANDS.lines().filter(|line| line.starts_with("## `neuralrg "));
    let program = Cli::command();
    let commands = program.get_subcommands().map(clap::Command::get_name);
    let expected: Vec<_> = commands.map(|name| format!("## `neuralrg {name}`")).collect();
    assert_same("docs/commands.md", sections.map(Into::into), &expected);
}
