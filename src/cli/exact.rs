//! `neuralrg exact`.

use super::Lattices;
use super::output::{hint, print};
use crate::config::sweep::decimal_comma_hint;
use crate::targets::exact::exact_ising;

/// Prints them.
pub fn exact(lattices: &Lattices) -> anyhow::Result<()> {
    let Lattices { linear_size, ref temperatures } = *lattices;
    hint(decimal_comma_hint(temperatures));
    print(
        "temperature,ln_z_ising,free_energy_field,energy_per_site,specific_heat_per_site"
            .to_owned()
            + &temperatures
                .iter()
                .map(|&temperature| {
                    let exact = exact_ising(linear_size, temperature);
                    let values = [
                        exact.ln_z_ising,
                        exact.free_energy_field,
                        exact.energy_per_site,
                        exact.specific_heat_per_site,
                    ];
                    // 12 significant digits.
                    let values = values.map(|value| format!("{value:.11e}")).join(",");
                    format!("\n{temperature},{values}")
                })
                .collect::<String>(),
    )
}
