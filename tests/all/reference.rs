//! The cluster Monte Carlo of the spins against enumeration and against Kaufman's energy.

use neuralrg::targets::exact::exact_ising;
use neuralrg::targets::observe::{Derived, Observable};
use neuralrg::targets::wolff::{Reference, reference};

const CRITICAL_TEMPERATURE: f64 = 2.269185314213022;

fn scalar(reference: &Reference, observable: Observable) -> (f64, f64) {
    let estimate = &reference.scalars[observable as usize];
    (estimate.mean, estimate.error)
}

#[test]
fn cluster_monte_carlo_equals_the_enumeration() {
    for temperature in [2.0, CRITICAL_TEMPERATURE, 2.7] {
        let found = reference(4, temperature, 200_000, 1);
        let exact = crate::enumeration::enumerate(temperature);
        let ratio = exact.structure_factor[0][0] / exact.structure_factor[0][1];
        let binder = 1.0 - exact.magnetization_4 / (3.0 * exact.magnetization_2.powi(2));
        for ((value, error), expected, what) in [
            (scalar(&found, Observable::Energy), exact.energy_per_site, "energy"),
            (scalar(&found, Observable::MagnetizationSquared), exact.magnetization_2, "m²"),
            (scalar(&found, Observable::MagnetizationFourth), exact.magnetization_4, "m⁴"),
            (scalar(&found, Observable::MagnetizationAbsolute), exact.abs_magnetization, "|m|"),
            (scalar(&found, Observable::Magnetization), 0.0, "m"),
            (scalar(&found, Observable::StructureFactorKMin), exact.structure_factor[0][1], "S(k)"),
            (
                found.derived[Derived::SpecificHeat as usize],
                exact.specific_heat_per_site,
                "specific heat",
            ),
            (found.derived[Derived::BinderCumulant as usize], binder, "Binder cumulant"),
            (
                found.derived[Derived::CorrelationLength as usize],
                (ratio - 1.0).sqrt() / 2f64.sqrt(),
                "correlation length",
            ),
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
    let (energy, error) = scalar(&found, Observable::Energy);
    assert!(((energy - exact.energy_per_site) / error).abs() < 4.0, "{energy} ± {error}");
    let (heat, error) = found.derived[Derived::SpecificHeat as usize];
    assert!(((heat - exact.specific_heat_per_site) / error).abs() < 4.0, "{heat} ± {error}");
    assert!(error < 0.05, "{error}");
}

#[test]
fn the_seed_fixes_the_numbers() {
    let energy = |seed| scalar(&reference(4, 2.7, 2000, seed), Observable::Energy);
    assert_eq!(energy(3), energy(3));
    assert_ne!(energy(3), energy(4));
}
