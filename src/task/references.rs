//! What a task is compared with: functions of L and T only.

use crate::files::Numbers;
use crate::targets::exact::{ExactIsing, exact_ising};
use crate::targets::gaussian::gaussian_free_energy;

/// Exact values and the Gaussian yardstick, functions of L and T only.
pub fn references(linear_size: usize, temperature: f64) -> Numbers {
    let ExactIsing { ln_z_ising, free_energy_field, energy_per_site, specific_heat_per_site } =
        exact_ising(linear_size, temperature);
    let gaussian = gaussian_free_energy(linear_size, temperature);
    let numbers = [
        ("free_energy_exact", free_energy_field),
        ("ising_free_energy_exact", -ln_z_ising),
        ("energy_exact", energy_per_site),
        ("specific_heat_exact", specific_heat_per_site),
        ("free_energy_gaussian", gaussian),
        ("relative_error_gaussian", (gaussian - free_energy_field) / free_energy_field.abs()),
    ];
    numbers.into_iter().map(|(name, value)| (name.into(), value)).collect()
}
