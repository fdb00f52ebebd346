"""analysis/crossings.py, scaling.py and correlation.py, on made-up curves with known answers."""

import numpy as np
import pytest
import xarray as xr

from correlation import radial_correlation
from crossings import crossing, length_crossing
from jackknife import Chains
from scaling import CORRECTION, collapse, measure_points
from sweep import Curve, SweepError

CRITICAL = 2.3
NU, GAMMA = 0.8, 1.4
SIZES = (8, 16, 32)
TEMPERATURES = np.linspace(2.1, 2.5, 11)


class Line:
    """Stands for reweighted samples: a straight curve whose blocks shift it up and down."""

    def __init__(self, linear_size, slope, shifts):
        self.linear_size = linear_size
        self.temperature = np.array([2.0, 2.6])
        self._slope = slope
        self._shifts = np.array([shifts.mean(), *(shifts.sum() - shifts) / (len(shifts) - 1)])
        self.replicates = range(len(self._shifts))

    def values(self, _, temperature, replicate=0):
        return 0.6 - self._slope * (temperature - CRITICAL) + self._shifts[replicate]


def test_crossing_of_lines_has_the_error_of_their_heights():
    random = np.random.default_rng(1)
    shifts = random.normal(0.0, 0.01, (2, 32))
    found = crossing(Line(8, 1.0, shifts[0]), Line(16, 3.0, shifts[1]), "binder_cumulant")
    heights = shifts.mean(axis=1)
    errors = shifts.std(axis=1, ddof=1) / np.sqrt(32)
    assert found.sizes == (8, 16)
    assert found.temperature == pytest.approx(CRITICAL + (heights[1] - heights[0]) / 2.0)
    assert found.temperature_error == pytest.approx(np.hypot(*errors) / 2.0, rel=1e-6)
    # U = (3 h_8 - h_16)/2 at the crossing.
    assert found.value == pytest.approx(0.6 + (3.0 * heights[0] - heights[1]) / 2.0)
    expected = np.hypot(3.0 * errors[0], errors[1]) / 2.0
    assert found.value_error == pytest.approx(expected, rel=1e-6)


def test_curves_that_do_not_cross_are_named():
    steady = np.zeros(32)
    with pytest.raises(SweepError, match="binder_cumulant of L = 8 and 16 do not cross"):
        crossing(Line(8, 1.0, steady), Line(16, 1.0, steady + 0.1), "binder_cumulant")


def test_correlation_lengths_cross_at_the_critical_temperature():
    temperature = np.linspace(2.1, 2.5, 9)
    random = np.random.default_rng(2)
    deviations = []
    for _ in range(10):
        curves = []
        for size in (8, 16):
            exact = size * 0.9 * np.exp(-1.2 * size * (temperature / CRITICAL - 1.0))
            error = 0.01 * exact
            curves.append(Curve(temperature, random.normal(exact, error), error))
        found = length_crossing((8, 16), *curves)
        deviations.append((found.temperature - CRITICAL) / found.temperature_error)
    assert 0.5 < np.sqrt(np.mean(np.square(deviations))) < 1.6


def made_points(
    random,
    size,
    noise=0.1,
    curvature=0.0,
    slope=0.0,
    backgrounds=(0.0, 0.0),
    temperatures=TEMPERATURES,
):
    """Chains of m^2 and m^4 around a known scaling function."""
    in_binder, in_chi = np.array(backgrounds) * size**-CORRECTION
    chains = {}
    for temperature in temperatures:
        t = temperature / CRITICAL - 1.0
        x = (t + curvature * t**2) * size ** (1.0 / NU)
        binder = 0.4 - 0.2 * np.tanh(x) + in_binder
        chi = size ** (GAMMA / NU) * np.exp(slope * t + in_chi) / (1.0 + np.exp(x))
        second = temperature * chi / size**2
        fourth = 3.0 * second**2 * (1.0 - binder)
        factors = 1.0 + noise * random.standard_normal((2, 32, 50))
        values = np.array([second, fourth])[:, None, None] * factors
        chains[temperature] = [Chains(values, 0.5)]
    return measure_points(size, chains)


def pulls(found):
    exact = (CRITICAL, NU, GAMMA, GAMMA / NU)
    values, errors = np.array(found[:8]).reshape(4, 2).T
    return (values - exact) / errors


def test_collapse_finds_critical_temperature_and_exponents():
    random = np.random.default_rng(3)
    deviations, chi_squared = [], []
    for _ in range(8):
        points = [made_points(random, size) for size in SIZES]
        found = collapse(points, 2.28, window=2.0, correction=0.0)
        deviations.append(pulls(found))
        chi_squared.append(found.chi_squared / found.degrees_of_freedom)
        assert found.critical_temperature_error < 0.002
        assert found.nu_error < 0.02
        assert found.gamma_error < 0.04
    rms = np.sqrt(np.mean(np.square(deviations), axis=0))
    assert rms.min() > 0.5
    assert rms.max() < 1.6
    assert np.mean(chi_squared) == pytest.approx(1.0, abs=0.15)


def test_collapse_finds_analytic_corrections():
    random = np.random.default_rng(4)
    points = [made_points(random, size, curvature=-0.7, slope=-0.5) for size in SIZES]
    found = collapse(points, 2.28, window=2.0, correction=0.0)
    assert np.abs(pulls(found)).max() < 3.5
    assert found.backgrounds == pytest.approx((0.0, 0.0), abs=1e-12)
    assert found.curvature == pytest.approx(-0.7, abs=0.3)
    assert found.slope == pytest.approx(-0.5, abs=0.2)
    # The points in the window, scaled, lie on the known curve.
    for one in points:
        inside = found.distance(one.linear_size, one.temperature) <= 2.0
        x = found.scaled_temperature(one.linear_size, one.temperature[inside])
        scaled = found.scaled_susceptibility(one)[0, inside]
        np.testing.assert_allclose(scaled, 1.0 / (1.0 + np.exp(x)), rtol=0.05)


def test_collapse_finds_the_background_and_is_off_without_it():
    random = np.random.default_rng(6)
    backgrounds = (0.3, -2.0)
    deviations, without = [], []
    for _ in range(8):
        points = [made_points(random, size, backgrounds=backgrounds) for size in (8, 16, 24, 32)]
        found = collapse(points, 2.28, window=2.0)
        deviations.append(pulls(found))
        without.append(pulls(collapse(points, 2.28, window=2.0, correction=0.0)))
        assert found.backgrounds == pytest.approx(backgrounds, abs=1.0)
    rms = np.sqrt(np.mean(np.square(deviations), axis=0))
    assert rms.min() > 0.5
    assert rms.max() < 1.6
    assert np.sqrt(np.mean(np.square(without), axis=0)).max() > 3.0
    # All sizes lie on the known curves once it is taken away.
    for one in points:
        x = found.scaled_temperature(one.linear_size, one.temperature)
        inside = np.abs(x) < 2.0
        binder = found.scaled_binder_cumulant(one)[0, inside]
        np.testing.assert_allclose(binder, 0.4 - 0.2 * np.tanh(x[inside]), atol=0.03)


def test_collapse_of_too_little_is_refused():
    random = np.random.default_rng(5)
    points = [made_points(random, size) for size in SIZES]
    with pytest.raises(SweepError, match="needs 3 linear sizes; there are 2"):
        collapse(points[:2], CRITICAL)
    with pytest.raises(SweepError, match=r"points \(L, T\) have .* below 0\.01"):
        collapse(points, CRITICAL, window=0.01)


def test_points_have_the_definitions_of_the_program():
    second = np.linspace(0.1, 0.2, 64).reshape(16, 4)
    one = measure_points(8, {2.5: [Chains(np.stack([second, second**2]), 0.5)]})
    means = second.mean(), (second**2).mean()
    assert one.susceptibility[0, 0] == pytest.approx(64 * means[0] / 2.5)
    assert one.binder_cumulant[0, 0] == pytest.approx(1.0 - means[1] / (3.0 * means[0] ** 2))
    assert one.binder_cumulant.shape == (17, 1)


def made_correlation(seeds):
    """A sweep's correlation functions at one temperature and depth. Shape: (seed, r_x, r_y)."""
    axes = ("temperature", "depth", "seed", "r_x", "r_y")
    shape = (1, 1, len(seeds), *seeds.shape[1:])
    return xr.Dataset(
        {
            "correlation": (axes, seeds.reshape(shape)),
            "complete": (axes[:3], np.ones(shape[:3], dtype=np.int8)),
        },
        coords={"temperature": [2.3], "depth": [3], "seed": range(len(seeds))},
    )


def test_radial_correlation_and_its_covariance():
    sites = np.minimum(np.arange(8), 8 - np.arange(8))
    distance = np.hypot(sites[:, None], sites)
    amplitude = np.array([0.9, 1.0, 1.3])
    found = radial_correlation(
        made_correlation(amplitude[:, None, None] * np.exp(-distance)), 2.3, 3
    )
    np.testing.assert_allclose(found.distance[:4], [0.0, 1.0, np.sqrt(2.0), 2.0])
    assert found.distance[-1] == pytest.approx(np.sqrt(32.0))
    decay = np.exp(-found.distance)
    np.testing.assert_allclose(found.value, amplitude.mean() * decay)
    expected = amplitude.var(ddof=1) / 3 * np.outer(decay, decay)
    np.testing.assert_allclose(found.covariance, expected, atol=1e-15)
    with pytest.raises(SweepError, match="needs two seeds"):
        radial_correlation(made_correlation(np.ones((1, 8, 8))), 2.3, 3)
