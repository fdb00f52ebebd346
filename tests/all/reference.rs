//! The cluster Monte Carlo of the spins against enumeration and against Kaufman's energy.

use neuralrg::targets::exact::exact_ising;
use neuralrg::targets::wolff::{Reference, reference};

const CRITICAL_TEMPERATURE: f64 = 2.269185314213022;

fn scalar(reference: &Reference, name: &str) -> (f64, f64) {
    let index =
        neuralrg::targets::observe::SCALARS.iter().position(|other| *other == name).unwrap();
    (reference.scalars[index].mean, reference.scalars[index].error)
}

#[test]
fn cluster_monte_carlo_equals_the_enumeration() {
    for temperature in [2.0, CRITICAL_TEMPERATURE, 2.7] {
        let found = reference(4, temperature, 200_000, 1);
        let exact = crate::enumeration::enumerate(temperature);
        let ratio = exact.structure_factor[0][0] / exact.structure_factor[0][1];
        let binder = 1.0 - exact.magnetization_4 / (3.0 * exact.magnetization_2.powi(2));
        for ((value, error), expected, what) in [
            (scalar(&found, "energy"), exact.energy_per_site, "energy"),
            (scalar(&found, "magnetization_squared"), exact.magnetization_2, "m²"),
            (scalar(&found, "magnetization_fourth"), exact.magnetization_4, "m⁴"),
            (scalar(&found, "magnetization_absolute"), exact.abs_magnetization, "|m|"),
            (scalar(&found, "magnetization"), 0.0, "m"),
            (scalar(&found, "structure_factor_k_min"), exact.structure_factor[0][1], "S(k)"),
            (found.derived[0], exact.specific_heat_per_site, "specific heat"),
            (found.derived[1], binder, "Binder cumulant"),
            (found.derived[4], (ratio - 1.0).sqrt() / 2f64.sqrt(), "correlation length"),
        ] {
            let pull = (value - expected) / error;
            assert!(pull.abs() < 4.0, "T = {temperature}, {what}: {value} ± {error}, {expected}");
            assert!(error < 0.01 * expected.abs().max(1.0), "T = {temperature}, {what}: {error}");
        }
    }
}

#[test]
fn cluster_monte_carlo_has_the_exact_energy_of_a_larger_lattice() {
    let found = reference(16, CRITICAL_TEMPERATURE, 40_000, 2);
    let exact = exact_ising(16, CRITICAL_TEMPERATURE);
    let (energy, error) = scalar(&found, "energy");
    assert!(((energy - exact.energy_per_site) / error).abs() < 4.0, "{energy} ± {error}");
    let (heat, error) = found.derived[0];
    assert!(((heat - exact.specific_heat_per_site) / error).abs() < 4.0, "{heat} ± {error}");
    assert!(error < 0.05, "{error}");
}

#[test]
fn the_seed_fixes_the_numbers() {
    let energy = |seed| scalar(&reference(4, 2.7, 2000, seed), "energy");
    assert_eq!(energy(3), energy(3));
    assert_ne!(energy(3), energy(4));
}
