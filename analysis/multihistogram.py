"""Observables of the Ising spins as curves over temperature, from samples at several of them.

    from multihistogram import read_spins
    spins = read_spins(tasks)  # of one linear size, as tasks.select gives them
    spins.curve("specific_heat", np.linspace(2.2, 2.4, 100))
    spins.maximum("specific_heat")

All samples at all temperatures together are reweighted to any temperature between
(Ferrenberg and Swendsen, Phys. Rev. Lett. 63, 1195 (1989); analysis/mbar.py has the equations).
Spins have few distinct energies, and the probability of a state depends on its energy alone: so the
sums over samples are sums over energies with counts, which changes no number.

Errors are those of a jackknife over blocks of chains (analysis/jackknife.py) in which free energies
are solved for again without each block.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from jackknife import Chains, jackknife, leave_out, pool
from mbar import common_samples, first_guess, solve
from sweep import Curve, SweepError
from tasks import Task

#: Observables whose averages all quantities follow from.
MEANS = (
    "energy",
    "energy_squared",
    "magnetization_absolute",
    "magnetization_squared",
    "magnetization_fourth",
)

#: Samples that temperatures on both sides of a gap must have in common. With so few the free energy
#: across it is uncertain by 1/sqrt(10) = 0.3 nats.
LEAST_COMMON = 10.0

#: Effective samples below which values at a temperature are in doubt, as the program's verdict has
#: it for importance weights.
LEAST_EFFECTIVE = 100.0

#: Temperatures among which a maximum is looked for, before it is refined.
SEARCH_POINTS = 200


class Samples(NamedTuple):
    """Samples at several temperatures, equal ones together, in independent blocks."""

    linear_size: int
    #: Temperatures that were sampled, ascending. Shape: (num_temperatures,).
    temperature: np.ndarray
    #: u_T(x) = -ln of the weight of all configurations at any temperatures T, so that Z_T is that
    #: of the spins, up to a factor. Shapes: (n,) -> (n, num_configurations).
    potential: Callable[[np.ndarray], np.ndarray]
    #: How often each is found. Shape: (num_blocks, num_temperatures, num_configurations).
    counts: np.ndarray
    #: Sums of `MEANS` over these, all temperatures together. Shape: (num_blocks, num_means,
    #: num_configurations).
    sums: np.ndarray


class Anchor(NamedTuple):
    """A free energy -ln Z of the spins that is known, such as the task's `ising_free_energy`."""

    temperature: float
    free_energy: float
    error: float = 0.0


class Maximum(NamedTuple):
    """Where a curve is highest, and how high, with standard errors."""

    temperature: float
    temperature_error: float
    height: float
    height_error: float


class Multihistogram:
    """Averages at any temperature from samples at several, with their jackknife replicates.

    Raises:
        SweepError: the samples at neighbouring temperatures have too little in common.
    """

    def __init__(self, samples: Samples) -> None:
        self.linear_size = samples.linear_size
        self.temperature = samples.temperature
        self._potential = samples.potential
        self._sums = leave_out(samples.sums)
        self._multiplicity = leave_out(samples.counts.sum(axis=1))
        self._ln_mixture = self._solve(samples)
        #: The estimate from all blocks, and those without each of them.
        self.replicates = range(len(self._sums))

    def _solve(self, samples: Samples) -> np.ndarray:
        """ln sum_k N_k exp[f_k - u_k(x_n)] of all replicates: what reweighting divides by.

        Shape: (num_replicates, num_configurations).
        """
        potential = self._potential(self.temperature)
        sizes = leave_out(samples.counts.sum(axis=2))
        guess = first_guess(potential, samples.counts.sum(axis=0))
        whole = solve(potential, sizes[0], self._multiplicity[0], guess)
        self._require_overlap(common_samples(potential, sizes[0], self._multiplicity[0], whole))
        ln_mixture = []
        for size, multiplicity in zip(sizes, self._multiplicity, strict=True):
            free_energy = solve(potential, size, multiplicity, whole)
            terms = (free_energy + np.log(size))[:, None] - potential
            ln_mixture.append(np.logaddexp.reduce(terms))
        return np.array(ln_mixture)

    def _require_overlap(self, common: np.ndarray) -> None:
        for gap in np.flatnonzero(common < LEAST_COMMON):
            below, above = self.temperature[gap : gap + 2]
            raise SweepError(
                f"L = {self.linear_size}: samples at T = {below:g} and {above:g} have too little "
                f"in common ({common[gap]:.2g} samples, {LEAST_COMMON:g} are needed); "
                "add temperatures between them to sweep.temperatures"
            )

    def curve(self, quantity: str, temperature: np.ndarray) -> Curve:
        """One of `QUANTITIES` at any temperatures, with standard errors.

        It warns of temperatures that the samples say too little of.
        """
        self._warn_of_extrapolation(temperature)
        values = [self.values(quantity, temperature, r) for r in self.replicates]
        return Curve(temperature, *jackknife(np.array(values)))

    def free_energy(self, temperature: np.ndarray, anchor: Anchor | None = None) -> Curve:
        """-ln Z of the spins in nats, less that at the lowest sampled temperature.

        With an anchor, a value known at some temperature, it is -ln Z itself.
        """
        self._warn_of_extrapolation(temperature)
        reference = self.temperature[0] if anchor is None else anchor.temperature
        points = np.append(temperature, reference)
        ln_z = np.array([self.reweight(points, r)[0] for r in self.replicates])
        value, error = jackknife(ln_z[:, -1:] - ln_z[:, :-1])
        if anchor is not None:
            value, error = value + anchor.free_energy, np.hypot(error, anchor.error)
        return Curve(temperature, value, error)

    def effective_samples(self, temperature: np.ndarray) -> np.ndarray:
        """(sum w)^2 / sum w^2 of the weights of all samples at any temperatures."""
        ln_weight = -self._potential(temperature) - self._ln_mixture[0]
        weight = np.exp(ln_weight - ln_weight.max(axis=1, keepdims=True))
        multiplicity = self._multiplicity[0]
        return (weight @ multiplicity) ** 2 / (weight**2 @ multiplicity)

    def maximum(
        self, quantity: str, low: float | None = None, high: float | None = None
    ) -> Maximum:
        """The highest point of a curve between two temperatures, by default all that are covered.

        Raises:
            SweepError: it is at an end.
        """
        low = self.temperature[0] if low is None else low
        high = self.temperature[-1] if high is None else high
        grid = np.linspace(low, high, SEARCH_POINTS)
        found = np.array([self._maximum(quantity, grid, r) for r in self.replicates])
        (temperature, height), (temperature_error, height_error) = jackknife(found)
        return Maximum(temperature, temperature_error, height, height_error)

    def _maximum(self, quantity: str, grid: np.ndarray, replicate: int) -> tuple[float, float]:
        place = int(np.argmax(self.values(quantity, grid, replicate)))
        if place in (0, len(grid) - 1):
            raise SweepError(
                f"L = {self.linear_size}: {quantity} has no maximum between T = {grid[0]:g} and "
                f"{grid[-1]:g}; add temperatures beyond T = {grid[place]:g}"
            )
        best = minimize_scalar(
            lambda temperature: -self.values(quantity, np.array([temperature]), replicate)[0],
            bounds=(grid[place - 1], grid[place + 1]),
            method="bounded",
            options={"xatol": 1e-9},
        )
        return best.x, -best.fun

    def values(self, quantity: str, temperature: np.ndarray, replicate: int = 0) -> np.ndarray:
        """A quantity by one of the replicates; the first is the estimate from all blocks."""
        _, means = self.reweight(temperature, replicate)
        by_name = dict(zip(MEANS, means, strict=True))
        return QUANTITIES[quantity](by_name, self.linear_size**2, 1.0 / temperature)

    def reweight(self, temperature: np.ndarray, replicate: int) -> tuple[np.ndarray, np.ndarray]:
        """ln Z up to a constant, and `MEANS`: Eqs. (13) to (15) of Shirts and Chodera.

        Shapes: (n,) -> (n,), (num_means, n).
        """
        ln_weight = -self._potential(temperature) - self._ln_mixture[replicate]
        largest = ln_weight.max(axis=1, keepdims=True)
        weight = np.exp(ln_weight - largest)
        total = weight @ self._multiplicity[replicate]
        return largest[:, 0] + np.log(total), self._sums[replicate] @ weight.T / total

    def _warn_of_extrapolation(self, temperature: np.ndarray) -> None:
        doubtful = np.asarray(temperature)[self.effective_samples(temperature) < LEAST_EFFECTIVE]
        if doubtful.size:
            warnings.warn(
                f"L = {self.linear_size}: fewer than {LEAST_EFFECTIVE:g} effective samples at "
                f"T = {doubtful.min():g} to {doubtful.max():g}; sampled temperatures are "
                f"{self.temperature[0]:g} to {self.temperature[-1]:g}",
                stacklevel=3,
            )


def _binder_cumulant(means: Mapping[str, np.ndarray], *_: object) -> np.ndarray:
    return 1.0 - means["magnetization_fourth"] / (3.0 * means["magnetization_squared"] ** 2)


#: Quantities, under the program's names, from means, N and beta.
QUANTITIES: dict[str, Callable[..., np.ndarray]] = {
    "energy": lambda means, *_: means["energy"],
    "magnetization_absolute": lambda means, *_: means["magnetization_absolute"],
    "magnetization_squared": lambda means, *_: means["magnetization_squared"],
    "specific_heat": lambda means, sites, beta: (
        beta**2 * sites * (means["energy_squared"] - means["energy"] ** 2)
    ),
    "susceptibility": lambda means, sites, beta: beta * sites * means["magnetization_squared"],
    "susceptibility_connected": lambda means, sites, beta: (
        beta * sites * (means["magnetization_squared"] - means["magnetization_absolute"] ** 2)
    ),
    "binder_cumulant": _binder_cumulant,
}


def read_spins(tasks: Mapping[float, Sequence[Task]]) -> Multihistogram:
    """The spins drawn along the chains of latent HMC of the tasks of one linear size.

    Raises:
        SweepError: a task file has no drawn spins; temperatures have too little in common.
    """
    (size,) = {task.linear_size for alike in tasks.values() for task in alike}
    chains = {temperature: [_spins(task) for task in alike] for temperature, alike in tasks.items()}
    return Multihistogram(spin_samples(size, chains))


def _spins(task: Task) -> Chains:
    energy, magnetization, *tau_int = task.read(
        "chains/latent/spin_energy",
        "chains/latent/spin_magnetization",
        "chains/latent/estimates/energy_tau_int",
        "chains/latent/estimates/magnetization_squared_tau_int",
    )
    return Chains(np.stack([energy, magnetization]), float(max(tau_int)))


def spin_samples(linear_size: int, chains: Mapping[float, Sequence[Chains]]) -> Samples:
    """The histogram of energies, and sums of the observables at each energy.

    `chains` have energy and magnetization per site.

    Raises:
        SweepError: chains are too few for errors.
    """
    samples, sites = pool(chains), linear_size**2
    energy, magnetization = samples.values
    # Sums over bonds are whole numbers; equal ones must not differ by rounding.
    levels, level = np.unique(np.rint(energy * sites), return_inverse=True)
    observables = (energy, energy**2, np.abs(magnetization), magnetization**2, magnetization**4)
    return Samples(
        linear_size,
        samples.temperature,
        lambda temperature: np.outer(1.0 / np.asarray(temperature), levels),
        samples.counts(level),
        np.stack([samples.sums(values, level) for values in observables], axis=1),
    )
