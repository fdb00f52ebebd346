//! `neuralrg reference`.

use std::path::PathBuf;

use clap::Args;

use super::Lattices;
use super::output::{hint, print};
use crate::config::sweep::decimal_comma_hint;
use crate::files::atomic::check_writable;
use crate::seed::{Stage, TaskSeed};
use crate::targets::observe::{Derived, Observable};
use crate::targets::wolff;
use crate::train::data;

/// Sample the Ising spins on the L × L torus by cluster Monte Carlo, as CSV with standard errors.
///
/// Wolff's algorithm on the spins themselves: it knows neither flow nor field. A measurement comes after as many
/// clusters as flip about L² spins; tau_int counts measurements.
#[derive(Debug, Args)]
pub struct Reference {
    #[command(flatten)]
    pub lattices: Lattices,
    /// Measurements at each temperature, of all chains together.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000_000))]
    pub measurements: u32,
    /// Seed of the random numbers.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Also draw a field given the spins of each measurement and write these exact samples of the
    /// target to an HDF5 file, for flows to learn from.
    #[arg(long, value_name = "FILE")]
    pub fields: Option<PathBuf>,
}

/// Samples, prints, and writes fields if they are wanted.
pub fn reference(arguments: &Reference) -> anyhow::Result<()> {
    let Reference { lattices, measurements, seed, fields: path } = arguments;
    let (measurements, seed) = (*measurements as usize, *seed);
    hint(decimal_comma_hint(&lattices.temperatures));
    let names = Observable::TABLE
        .map(|(_, naming)| naming.name)
        .into_iter()
        .flat_map(|name| [name.to_owned(), format!("{name}_error"), format!("{name}_tau_int")]);
    let derived = Derived::TABLE.into_iter();
    let derived = derived.flat_map(|(_, [name, ..])| [name.to_owned(), format!("{name}_error")]);
    let header: Vec<String> =
        ["temperature".to_owned()].into_iter().chain(names).chain(derived).collect();
    let path = path.as_ref().map(std::path::absolute).transpose()?;
    if let Some(path) = &path {
        check_writable(path)?;
    }
    print(header.join(","))?;
    let size = lattices.linear_size;
    let mut fields = Vec::new();
    for &temperature in &lattices.temperatures {
        let sample = wolff::sample(size, temperature, measurements, seed, path.is_some());
        let reference = sample.reference();
        let random = TaskSeed::of_reference(size, temperature, seed).at(Stage::Reference, 0);
        fields.push(data::fields_of(&sample, size, temperature, &random));
        let scalars = reference.scalars.iter().flat_map(|e| [e.mean, e.error, e.tau_int]);
        let derived = reference.derived.iter().flat_map(|&(value, error)| [value, error]);
        // 9 significant digits.
        let values: Vec<String> =
            scalars.chain(derived).map(|value| format!("{value:.8e}")).collect();
        print(format!("{temperature},{}", values.join(",")))?;
    }
    if let Some(path) = path {
        data::write_fields(&path, &lattices.temperatures, &fields)?;
    }
    Ok(())
}
