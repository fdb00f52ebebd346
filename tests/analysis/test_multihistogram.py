"""analysis/mbar.py, jackknife.py, multihistogram.py and field.py, on the enumerated 4 x 4 torus."""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import field
import ising
from exact import exact_ising
from jackknife import Chains, jackknife, pool
from mbar import mbar
from multihistogram import QUANTITIES, Anchor, Multihistogram, Samples, spin_samples
from sweep import SweepError

TEMPERATURES = (2.0, 2.2, 2.4, 2.7)
#: Samples of the infinite statistics: so many that no warning is due.
MANY = 1e6


def drawn(random, shape=(32, 100), stay=0.0, temperatures=TEMPERATURES):
    """Chains of one task at each temperature."""
    return {value: [ising.draw_chains(random, value, shape, stay)] for value in temperatures}


def infinite_statistics(temperatures=TEMPERATURES, blocks=2):
    """Samples whose histogram is the exact distribution."""
    levels, level = np.unique(ising.ENERGY, return_inverse=True)
    in_level = np.eye(len(levels))[level]
    chance = np.array([ising.weights(value) for value in temperatures])
    chance *= MANY / chance.sum(axis=1, keepdims=True)
    counts, sums = chance @ in_level, (ising.OBSERVABLES * chance.sum(axis=0)) @ in_level
    return Samples(
        4,
        np.array(temperatures),
        lambda temperature: np.outer(1.0 / temperature, ising.SITES * levels),
        np.repeat(counts[None] / blocks, blocks, axis=0),
        np.repeat(sums[None] / blocks, blocks, axis=0),
    )


def test_infinite_statistics_give_the_enumerated_lattice():
    spins = Multihistogram(infinite_statistics())
    temperature = np.linspace(1.8, 3.0, 25)
    for quantity in QUANTITIES:
        curve = spins.curve(quantity, temperature)
        np.testing.assert_allclose(curve.value, ising.exact(quantity, temperature), rtol=1e-10)
        np.testing.assert_allclose(curve.error, 0.0, atol=1e-10)
    anchor = Anchor(2.5, ising.exact_free_energy([2.5])[0], 0.01)
    absolute = spins.free_energy(temperature, anchor)
    np.testing.assert_allclose(absolute.value, ising.exact_free_energy(temperature), rtol=1e-12)
    np.testing.assert_allclose(absolute.error, 0.01)
    ends = spins.free_energy(np.array([2.0, 2.7])).value
    np.testing.assert_allclose(ends, [0.0, 17.1053671187 - 13.9441671531], atol=1e-9)


def test_maximum_of_infinite_statistics_is_that_of_the_enumerated_lattice():
    found = Multihistogram(infinite_statistics()).maximum("specific_heat")
    best = minimize_scalar(
        lambda temperature: -exact_ising(4, np.array([temperature])).specific_heat[0],
        bounds=(2.2, 2.6),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert found.temperature == pytest.approx(best.x, abs=1e-6)
    assert found.height == pytest.approx(-best.fun, rel=1e-9)


def test_curves_of_drawn_samples_are_exact_within_errors():
    spins = Multihistogram(spin_samples(4, drawn(np.random.default_rng(1), (64, 500))))
    temperature = np.linspace(1.9, 2.8, 40)
    for quantity in QUANTITIES:
        curve = spins.curve(quantity, temperature)
        deviation = (curve.value - ising.exact(quantity, temperature)) / curve.error
        assert np.abs(deviation).max() < 4.0, quantity


@pytest.fixture(scope="module")
def pymbar():
    import pymbar

    return pymbar


def solved_by(pymbar, potentials, counts):
    with warnings.catch_warnings():
        # It hands SciPy options that SciPy does not know.
        warnings.simplefilter("ignore")
        return pymbar.MBAR(potentials, counts, relative_tolerance=1e-13)


def averaged_by(theirs, values, potential):
    with warnings.catch_warnings():
        # It takes the logarithm of values, the least of them 0.
        warnings.simplefilter("ignore")
        return theirs.compute_expectations(values, u_kn=potential)["mu"][0]


def test_free_energies_and_averages_are_those_of_pymbar(pymbar):
    """Of the same samples, one by one there, as a histogram here."""
    chains = drawn(np.random.default_rng(2), (32, 40))
    energy, magnetization = pool(chains).values
    beta = 1.0 / np.array(TEMPERATURES)
    potentials = np.outer(beta, ising.SITES * energy)
    counts = np.full(len(beta), 32 * 40)
    theirs = solved_by(pymbar, potentials, counts)
    np.testing.assert_allclose(mbar(potentials, counts), theirs.f_k, atol=1e-6)
    spins = Multihistogram(spin_samples(4, chains))
    ln_z, _ = spins.reweight(np.array(TEMPERATURES), 0)
    np.testing.assert_allclose(ln_z[0] - ln_z, theirs.f_k, atol=1e-6)
    potential = ising.SITES * energy[None] / 2.3
    for quantity, values in (("energy", energy), ("magnetization_squared", magnetization**2)):
        expected = averaged_by(theirs, values, potential)
        assert spins.values(quantity, np.array([2.3]))[0] == pytest.approx(expected, abs=1e-6)


def test_free_energies_are_found_from_far_and_with_unequal_counts(pymbar):
    """Harmonic oscillators, f = 1/2 ln k, up to large constants; their samples barely overlap."""
    random = np.random.default_rng(3)
    stiffness, constant = np.array([1.0, 20.0, 400.0]), np.array([0.0, 5e3, -3e3])
    counts = np.array([5000, 50, 500])
    x = np.concatenate(
        [random.standard_normal(n) / np.sqrt(k) for n, k in zip(counts, stiffness, strict=True)]
    )
    potentials = 0.5 * stiffness[:, None] * x**2
    found = mbar(potentials + constant[:, None], counts)
    np.testing.assert_allclose(found - constant, mbar(potentials, counts), atol=1e-9)
    expected = solved_by(pymbar, potentials, counts).f_k
    np.testing.assert_allclose(found - constant, expected, atol=1e-6)
    np.testing.assert_allclose(found - constant, 0.5 * np.log(stiffness), atol=0.3)


#: Chains, trajectories, and the chance that a chain keeps its state.
CASES = {
    "independent samples": ((32, 60), 0.0),
    "correlated chains": ((32, 200), 0.8),
    "few long chains": ((4, 2000), 0.5),
}


@pytest.mark.parametrize("case", CASES)
def test_errors_are_the_spread_of_independent_data(case):
    shape, stay = CASES[case]
    random = np.random.default_rng(4)
    temperature = np.array([2.1, 2.3, 2.55])
    quantities = ("energy", "specific_heat", "magnetization_absolute", "binder_cumulant")
    exact = [ising.exact(quantity, temperature) for quantity in quantities]
    free_energy = np.diff(ising.exact_free_energy([2.0, 2.55]))
    deviations = []
    for _ in range(200):
        chains = drawn(random, shape, stay, (2.0, 2.3, 2.7))
        spins = Multihistogram(spin_samples(4, chains))
        curves = [spins.curve(quantity, temperature) for quantity in quantities]
        rows = [
            (curve.value - value) / curve.error for curve, value in zip(curves, exact, strict=True)
        ]
        difference = spins.free_energy(temperature[-1:])
        rows.append((difference.value - free_energy) / difference.error)
        deviations.append(np.concatenate(rows))
    deviations = np.array(deviations)
    rms = np.sqrt((deviations**2).mean(axis=0))
    assert rms.min() > 0.85
    assert rms.max() < 1.15
    assert np.abs(deviations.mean(axis=0)).max() < 0.25


def test_errors_of_the_peak_are_the_spread_of_independent_data():
    random = np.random.default_rng(5)
    exact = Multihistogram(infinite_statistics()).maximum("specific_heat")
    deviations = []
    for _ in range(60):
        spins = Multihistogram(spin_samples(4, drawn(random, temperatures=(2.0, 2.3, 2.7))))
        found = spins.maximum("specific_heat")
        deviations.append(
            [
                (found.temperature - exact.temperature) / found.temperature_error,
                (found.height - exact.height) / found.height_error,
            ]
        )
    rms = np.sqrt(np.mean(np.square(deviations), axis=0))
    assert rms.min() > 0.75
    assert rms.max() < 1.3


def test_jackknife_of_a_mean_and_of_its_square():
    """The error of a mean is the standard error; the bias of its square is taken off."""
    values = np.random.default_rng(6).normal(3.0, 1.0, 20)
    means = np.array([values.mean(), *((values.sum() - values) / 19)])
    value, error = jackknife(means)
    assert value == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(20))
    square, _ = jackknife(means**2)
    assert square == pytest.approx(values.mean() ** 2 - values.var(ddof=1) / 20)


def blocks_of(*shapes, tau_int=0.5):
    return pool({2.0: [Chains(np.zeros((1, *shape)), tau_int) for shape in shapes]})


def test_blocks_are_whole_chains_or_long_pieces_of_few():
    many = blocks_of((40, 10), (24, 30))
    assert many.blocks == 32
    own = many.block[: 40 * 10].reshape(40, 10)
    assert (own == own[:, :1]).all()
    assert own.max() + 1 == 20
    few = blocks_of((4, 400), tau_int=0.6)
    assert few.blocks == 32
    assert np.bincount(few.block).tolist() == [50] * 32
    slow = blocks_of((4, 400), tau_int=3.0)
    assert np.bincount(slow.block).tolist() == [400 // 3 + 1, 133, 133] * 4
    with pytest.raises(SweepError, match="one short chain"):
        blocks_of((1, 30))


def test_temperatures_that_do_not_overlap_are_refused():
    chains = drawn(np.random.default_rng(7), (16, 20), temperatures=(0.7, 1.0, 20.0))
    with pytest.raises(SweepError, match="at T = 1 and 20 have too little in common"):
        Multihistogram(spin_samples(4, chains))


def test_temperatures_beyond_the_samples_get_a_warning():
    spins = Multihistogram(spin_samples(4, drawn(np.random.default_rng(8))))
    spins.curve("energy", np.linspace(1.9, 2.9, 5))
    with pytest.warns(UserWarning, match="at T = 15 to 30; sampled temperatures are 2 to 2.7"):
        spins.curve("energy", np.array([2.4, 15.0, 30.0]))


def test_maximum_at_an_end_is_none():
    spins = Multihistogram(infinite_statistics())
    with pytest.raises(SweepError, match=r"specific_heat has no maximum between T = 2 and 2\.2"):
        spins.maximum("specific_heat", high=2.2)
    with pytest.raises(SweepError, match=r"add temperatures beyond T = 2\.7"):
        spins.maximum("susceptibility_connected")


def dense_coupling(temperature):
    """K + alpha I on the 4 x 4 torus."""
    matrix = (4.0 / temperature + 0.1) * np.eye(16)
    for site in range(16):
        row, column = divmod(site, 4)
        for step in ((0, 1), (0, 3), (1, 0), (3, 0)):
            other = (row + step[0]) % 4 * 4 + (column + step[1]) % 4
            matrix[site, other] += 1.0 / temperature
    return matrix


def draw_fields(random, temperature, shape):
    """Exact fields: given the spins Gaussian with mean (K + aI)s and covariance K + aI."""
    spins = ising.SPINS[ising.draw_states(random, temperature, shape)].reshape(*shape, 16)
    coupling = dense_coupling(temperature)
    noise = random.standard_normal((*shape, 16)) @ np.linalg.cholesky(coupling).T
    return Chains(np.moveaxis(spins @ coupling + noise, -1, 0), 0.5)


def test_potential_of_the_field_is_that_of_the_dense_matrix():
    """And its integral is Z of the spins: the sum over s of the joint density is exp(-u)."""
    x = np.random.default_rng(9).normal(0.0, 2.0, (3, 16))
    found = field.Potential(x.reshape(3, 4, 4))(np.array([2.0, 2.7]))
    for temperature, row in zip((2.0, 2.7), found, strict=True):
        coupling = dense_coupling(temperature)
        spins = ising.SPINS.reshape(-1, 16)
        for one, value in zip(x, row, strict=True):
            distance = one - spins @ coupling
            quadratic = np.einsum("si,si->s", distance @ np.linalg.inv(coupling), distance)
            _, ln_det = np.linalg.slogdet(2.0 * np.pi * coupling)
            joint = ising.weights(temperature) * np.exp(-0.5 * (quadratic + ln_det))
            assert value == pytest.approx(-np.log(joint.sum()), rel=1e-10)


def test_means_given_the_field_are_sums_over_spins():
    x = np.random.default_rng(10).standard_normal((4, 4))
    chance = np.prod(1.0 / (1.0 + np.exp(-2.0 * ising.SPINS * x)), axis=(1, 2))
    found = field.conditional_means(x[None])[:, 0]
    expected = ising.OBSERVABLES @ chance
    np.testing.assert_allclose(found[[0, 1, 3, 4]], expected[[0, 1, 3, 4]], rtol=1e-12)
    assert np.isnan(found[2])


def test_fields_give_free_energies_and_averages_of_the_spins(pymbar):
    random = np.random.default_rng(11)
    chains = {value: [draw_fields(random, value, (32, 100))] for value in TEMPERATURES}
    samples = field.field_samples(chains)
    fields = Multihistogram(samples)
    temperature = np.linspace(2.0, 2.7, 8)
    found = fields.free_energy(temperature)
    exact = ising.exact_free_energy(temperature)
    assert np.abs((found.value - exact + exact[0])[1:] / found.error[1:]).max() < 4.0
    for quantity in ("energy", "specific_heat", "susceptibility", "binder_cumulant"):
        curve = fields.curve(quantity, temperature)
        deviation = (curve.value - ising.exact(quantity, temperature)) / curve.error
        assert np.abs(deviation).max() < 4.0, quantity
    assert np.isnan(fields.curve("magnetization_absolute", temperature).value).all()
    potentials = samples.potential(np.array(TEMPERATURES))
    counts = np.full(len(TEMPERATURES), 3200)
    theirs = solved_by(pymbar, potentials, counts)
    np.testing.assert_allclose(mbar(potentials, counts), theirs.f_k, atol=1e-6)
    potential = samples.potential(np.array([2.3]))
    expected = averaged_by(theirs, samples.sums.sum(axis=0)[0], potential)
    assert fields.values("energy", np.array([2.3]))[0] == pytest.approx(expected, abs=1e-6)
