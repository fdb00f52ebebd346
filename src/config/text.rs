//! TOML text over presets and defaults, with messages for slips of the pen, and what two configurations differ in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};
use crate::flow::config::FlowConfig;

/// Parses TOML text over the defaults of the preset that it names, and these over `defaults`.
pub(super) fn parse_over_preset<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    defaults: &str,
    flow: impl Fn(&T) -> &FlowConfig,
) -> Result<T> {
    let parsed = with_whole_numbers(text);
    let syntax = |error: &toml::de::Error| Error::ConfigSyntax {
        path: path.into(),
        message: one_line(error, &parsed, text),
    };
    let written: T = toml::from_str(&parsed).map_err(|error| syntax(&error))?;
    let mut table = toml::from_str(flow(&written).preset.defaults()).expect("presets are TOML");
    overlay(&mut table, toml::from_str(defaults).expect("defaults are TOML"));
    overlay(&mut table, toml::from_str(&parsed).map_err(|error| syntax(&error))?);
    table.try_into().map_err(|error| syntax(&error))
}

/// Whether a key says how the machine is used, on which no result depends.
pub(super) fn is_of_machine(key: &str) -> bool {
    key.starts_with("run.") && key != "run.precision"
}

/// The keys on which two configurations differ, each with `key = mine, there theirs`.
pub(super) fn differences<'a>(
    mine: &'a BTreeMap<String, toml::Value>,
    theirs: &'a BTreeMap<String, toml::Value>,
) -> impl Iterator<Item = (&'a str, String)> {
    let keys: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
    let value = |of: &BTreeMap<String, toml::Value>, key: &String| {
        of.get(key).map_or_else(|| "absent".to_owned(), ToString::to_string)
    };
    keys.into_iter().filter(|key| mine.get(*key) != theirs.get(*key)).map(move |key| {
        (key.as_str(), format!("{key} = {}, there {}", value(mine, key), value(theirs, key)))
    })
}

/// All values by dotted keys.
pub(super) fn flattened(config: &impl Serialize) -> BTreeMap<String, toml::Value> {
    let table = toml::Table::try_from(config).expect("a configuration is a table of tables");
    let keys = |(section, value): (String, toml::Value)| {
        let toml::Value::Table(table) = value else {
            unreachable!("every top-level value is a section")
        };
        table.into_iter().map(move |(key, value)| (format!("{section}.{key}"), value))
    };
    table.into_iter().flat_map(keys).collect()
}

/// A value as it stands in a configuration.
pub(super) fn written(value: impl Serialize) -> toml::Value {
    toml::Value::try_from(value).expect("what is read from TOML has a TOML form")
}

/// Puts the values of `upper` over those of `lower`, section by section.
fn overlay(lower: &mut toml::Table, upper: toml::Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => overlay(below, above),
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

/// TOML text with its whole floats as integers, line by line: 1e3 becomes 1000, which keys of either kind take. Text that
/// is no TOML stays as it is.
fn with_whole_numbers(text: &str) -> String {
    let mut found = Vec::new();
    if let Ok(table) = DeTable::parse(text) {
        table.get_ref().values().for_each(|value| whole_floats(value, &mut found));
    }
    let mut parsed = text.to_owned();
    found.sort_by_key(|(place, _)| Reverse(place.start));
    for (place, whole) in found {
        parsed.replace_range(place, &whole.to_string());
    }
    parsed
}

/// Adds the floats in a value that are whole numbers, with their places in the text.
fn whole_floats(value: &Spanned<DeValue>, found: &mut Vec<(Range<usize>, i64)>) {
    /// Up to 2^53 all whole numbers are floats.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value.get_ref() {
        DeValue::Float(float) => {
            let number: Option<f64> = float.as_str().parse().ok();
            let whole = number.filter(|number| number.fract() == 0.0 && number.abs() <= EXACT);
            found.extend(whole.map(|whole| (value.span(), whole as i64)));
        }
        DeValue::Array(array) => array.iter().for_each(|value| whole_floats(value, found)),
        DeValue::Table(table) => table.values().for_each(|value| whole_floats(value, found)),
        _ => {}
    }
}

/// The parser's message of `parsed` on one line, with the number of the line in front and what is written there behind.
fn one_line(error: &toml::de::Error, parsed: &str, written: &str) -> String {
    let message = with_suggestion(error.message().replace('\n', " "));
    match error.span() {
        Some(span) => {
            let line = parsed[..span.start.min(parsed.len())].matches('\n').count() + 1;
            let excerpt = written.lines().nth(line - 1).unwrap_or_default().trim();
            format!("line {line}: {message} (in `{excerpt}`)")
        }
        None => message,
    }
}

/// "unknown field `stpes`, expected one of `steps`, …" with the most similar of all these names in their place, where one
/// is as similar as clap wants it of suggestions for the command line. Of values, which are few, the message names all.
pub(super) fn with_suggestion(message: String) -> String {
    const LIKENESS: f64 = 0.7;
    let Some((problem, expected)) = message.split_once(", expected ") else { return message };
    let names = |text| str::split(text, '`').skip(1).step_by(2);
    let is_key = problem.starts_with("unknown field ");
    let Some(unknown) = names(problem).next().filter(|_| is_key) else { return message };
    let likely = names(expected).map(|name| (strsim::jaro(unknown, name), name));
    match likely.max_by(|one, other| one.0.total_cmp(&other.0)) {
        Some((likeness, name)) if likeness > LIKENESS => {
            format!("{problem}, did you mean `{name}`?")
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_gets_the_most_similar_one() {
        let listed = "expected one of `steps`, `batch`, `learning_rate`, `warmup_steps`";
        for (written, meant) in [
            ("stpes", Some("steps")),
            ("batch_size", Some("batch")),
            ("learningrate", Some("learning_rate")),
            ("warmup", Some("warmup_steps")),
            ("optimizer", None),
        ] {
            let message = format!("unknown field `{written}`, {listed}");
            let expected = match meant {
                Some(meant) => format!("unknown field `{written}`, did you mean `{meant}`?"),
                None => message.clone(),
            };
            assert_eq!(with_suggestion(message), expected);
        }
        let others = [
            "unknown variant `lower-temperature`, expected one of `none`, `higher-temperature`",
            "invalid type: string \"`steps`\", expected i64",
        ];
        for other in others {
            assert_eq!(with_suggestion(other.into()), other);
        }
    }
}
