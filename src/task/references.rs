//! What a task is compared with: functions of target and temperature only, where these are known.

use crate::files::Numbers;
use crate::targets::Target;
use crate::targets::exact::ExactIsing;

/// Exact values and the Gaussian yardstick, by the names of [`crate::files::schema::REFERENCE_SCALARS`].
pub fn references(target: &Target, temperature: f64) -> Numbers {
    let mut numbers = Numbers::new();
    let mut insert = |name: &str, value| {
        numbers.insert(name.to_owned(), value);
    };
    let Some(exact) = target.exact(temperature) else { return numbers };
    let ExactIsing { ln_z_ising, free_energy_field, energy_per_site, specific_heat_per_site } =
        exact;
    insert("free_energy_exact", free_energy_field);
    insert("ising_free_energy_exact", -ln_z_ising);
    insert("energy_exact", energy_per_site);
    insert("specific_heat_exact", specific_heat_per_site);
    if let Some(gaussian) = target.gaussian(temperature) {
        insert("free_energy_gaussian", gaussian);
        let relative = (gaussian - free_energy_field) / free_energy_field.abs();
        insert("relative_error_gaussian", relative);
    }
    numbers
}
