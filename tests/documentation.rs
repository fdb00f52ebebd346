//! The README tells the truth about the configuration.

use std::path::Path;

use neuralrg::config::Config;

/// The part of the README that lists the keys.
fn configuration_section() -> &'static str {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once("## Configuration").expect("the section exists");
    rest.split_once("## Files").expect("the files follow").0
}

#[test]
fn readme_lists_every_key_with_its_default_and_no_other() {
    let text = "[sweep]\nname='t'\nlinear_size=4\ntemperatures=[2.0]\ndepths=[1]";
    let config = Config::parse(text, Path::new("t.toml")).unwrap();
    let resolved: toml::Table = toml::from_str(&config.to_toml()).unwrap();
    let mut keys = 0;
    for (section, values) in resolved {
        for (key, value) in values.as_table().unwrap() {
            let required = section == "sweep" && key != "seeds";
            let default = if required { String::new() } else { format!(" `{value}`") };
            let row = format!("| `{section}.{key}` |{default} |");
            assert!(configuration_section().contains(&row), "README.md lacks the row {row}");
            keys += 1;
        }
    }
    let rows = configuration_section().lines().filter(|line| line.starts_with("| `"));
    assert_eq!(rows.count(), keys);
}
