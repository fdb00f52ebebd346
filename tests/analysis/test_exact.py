"""analysis/exact.py: Kaufman's formula against enumeration and against the program."""

import csv
import io

import numpy as np
import pytest

import exact
from sweep import CRITICAL_TEMPERATURE


def enumerated(temperature: float) -> tuple[float, float, float]:
    """ln Z, energy and specific heat per site from all 65,536 states of the 4 x 4 torus."""
    spins = 1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).reshape(-1, 4, 4)
    bonds = spins * (np.roll(spins, 1, axis=1) + np.roll(spins, 1, axis=2))
    energy = -bonds.sum(axis=(1, 2))
    weight = np.exp(-energy / temperature)
    mean = np.average(energy, weights=weight)
    variance = np.average((energy - mean) ** 2, weights=weight)
    return float(np.log(weight.sum())), mean / 16, variance / temperature**2 / 16


@pytest.mark.parametrize("temperature", [1.0, 2.0, CRITICAL_TEMPERATURE, 2.7, 10.0, 300.0])
def test_values_are_those_of_the_enumerated_lattice(temperature):
    """Above T_c, too, where a positive g_0 would give another ln Z and other derivatives."""
    ln_z, energy, specific_heat = enumerated(temperature)
    found = exact.exact_ising(4, np.array([temperature]))
    coupling = np.array(1.0 / temperature)
    assert exact.ln_partition_function(4, coupling) == pytest.approx(ln_z, rel=1e-12)
    assert found.energy[0] == pytest.approx(energy, rel=1e-10)
    assert found.specific_heat[0] == pytest.approx(specific_heat, rel=1e-8)


@pytest.mark.parametrize("linear_size", [4, 16, 64])
def test_values_are_those_of_the_program(neuralrg, linear_size):
    temperatures = "0.8,2,2.2,2.26,2.269185314213022,2.28,2.7,5,100"
    printed = neuralrg("exact", "--linear-size", linear_size, "--temperatures", temperatures)
    rows = list(csv.DictReader(io.StringIO(printed)))
    temperature = np.array([float(row["temperature"]) for row in rows])
    found = exact.exact_ising(linear_size, temperature)
    ln_z = exact.ln_partition_function(linear_size, 1.0 / temperature)
    for column, values, tolerance in (
        ("ln_z_ising", ln_z.real, 1e-10),
        ("energy_per_site", found.energy, 1e-9),
        ("specific_heat_per_site", found.specific_heat, 1e-7),
    ):
        expected = [float(row[column]) for row in rows]
        np.testing.assert_allclose(values, expected, rtol=tolerance, atol=1e-11, err_msg=column)


def test_large_lattices_and_high_temperatures_do_not_overflow():
    with np.errstate(over="raise", invalid="raise"):
        cold, hot = (exact.exact_ising(256, np.array([t])) for t in (0.8, 1000.0))
    assert cold.energy[0] == pytest.approx(-2.0 + 8.0 * np.exp(-10.0), abs=1e-5)
    # Free spins: u = -2 tanh(1/T) up to the third order.
    assert hot.energy[0] == pytest.approx(-2e-3, rel=1e-5)
