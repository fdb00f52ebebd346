//! The README tells the truth about the configuration.

use std::path::Path;

use neuralrg::config::Config;

const README: &str = include_str!("../README.md");

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
            assert!(README.contains(&row), "README.md lacks the row {row}");
            keys += 1;
        }
    }
    let rows = README.lines().filter(|line| {
        ["sweep.", "flow.", "train.", "evaluate.", "hmc.", "run."]
            .iter()
            .any(|section| line.starts_with(&format!("| `{section}")))
    });
    assert_eq!(rows.count(), keys);
}
