"""The kept states of latent HMC as samples for multi-histogram reweighting.

    from field import read_field
    read_field(tasks).curve("energy", np.linspace(2.2, 2.4, 100))

Reweighting needs the probability of each field at all temperatures, and averages over the spins
given the field. Fields at two temperatures have less in common than their energies, since the
coupling that the temperature changes is that of all modes: temperatures must lie closer together.
<|m|> is no average over independent spins, and is NaN here with what follows from it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from jackknife import Chains, pool
from multihistogram import Multihistogram, Samples
from tasks import Task

#: Lowest eigenvalue of K + alpha I, as in the program's src/targets/ising.rs.
LOWEST_EIGENVALUE = 0.1

#: Where a sum over spins given the field has no closed form.
UNKNOWN = np.nan


class Potential:
    """u_T(x) = 1/2 x^T (K+aI)^-1 x - sum ln 2cosh x_i + 1/2 ln det 2 pi (K+aI) + a N/2.

    Minus the logarithm of Eq. (7) of Li and Wang (arXiv:1802.02840) with the constants that depend
    on T, so that the integral of exp(-u_T) is Z of the spins. Modes of equal eigenvalue
    2 beta (cos k_x + cos k_y) + a, a = 4 beta + 0.1, are taken together.

    Shapes: fields (num_samples, L, L); temperatures (n,) -> (n, num_samples).
    """

    def __init__(self, fields: np.ndarray) -> None:
        size = fields.shape[-1]
        self._sites = size**2
        cosine = np.cos(2.0 * np.pi * np.arange(size) / size)
        # Above the lowest one, in units of 2 beta; rounded, so that equal ones are equal.
        above = np.round(cosine[:, None] + cosine + 2.0, 12).ravel()
        self._above, mode, self._degeneracy = np.unique(
            above, return_inverse=True, return_counts=True
        )
        power = np.abs(np.fft.fft2(fields).reshape(-1, self._sites)) ** 2 / self._sites
        self._power = power @ np.eye(len(self._above))[mode]
        self._ln_cosh = np.logaddexp(fields, -fields).sum(axis=(1, 2))

    def __call__(self, temperature: np.ndarray) -> np.ndarray:
        beta = 1.0 / np.asarray(temperature)[:, None]
        eigenvalue = 2.0 * beta * self._above + LOWEST_EIGENVALUE
        offset = 4.0 * beta + LOWEST_EIGENVALUE
        ln_det = np.log(2.0 * np.pi * eigenvalue) @ self._degeneracy
        constant = 0.5 * (ln_det[:, None] + offset * self._sites)
        return 0.5 * (1.0 / eigenvalue) @ self._power.T + constant - self._ln_cosh


def conditional_means(fields: np.ndarray) -> np.ndarray:
    """`MEANS` of the spins given the field: independent ones with means t_i = tanh x_i.

    The formulas of docs/physics.md, as in the program's src/targets/observe.rs.

    Shapes: (num_samples, L, L) -> (num_means, num_samples).
    """
    t = np.tanh(fields)
    energy, energy_squared = _energy_moments(t)
    second, fourth = _magnetization_moments(t)
    return np.stack([energy, energy_squared, np.full_like(energy, UNKNOWN), second, fourth])


def _energy_moments(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """<e> and <e^2> per site. The latter is the square of <E>, corrected for pairs of equal bonds,
    whose square is 1, and for pairs that share one site."""
    sites, space = t[0].size, (1, 2)
    neighbours = [np.roll(t, shift, axis) for axis in space for shift in (1, -1)]
    around, squares = sum(neighbours), sum(value**2 for value in neighbours)
    energy = -0.5 * (t * around).sum(axis=space)
    same = 2.0 * sites - 0.5 * (t**2 * squares).sum(axis=space)
    sharing = ((1.0 - t**2) * (around**2 - squares)).sum(axis=space)
    return energy / sites, (energy**2 + same + sharing) / sites**2


def _magnetization_moments(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """<m^2> and <m^4> by the cumulants of the spins, which add."""
    sites = t[0].size
    p1, p2, p3, p4 = ((t**power).sum(axis=(1, 2)) for power in (1, 2, 3, 4))
    k2, k3, k4 = sites - p2, 2.0 * (p3 - p1), 8.0 * p2 - 6.0 * p4 - 2.0 * sites
    fourth = k4 + 4.0 * k3 * p1 + 3.0 * k2**2 + 6.0 * k2 * p1**2 + p1**4
    return (k2 + p1**2) / sites**2, fourth / sites**4


def read_field(tasks: Mapping[float, Sequence[Task]]) -> Multihistogram:
    """The states that the tasks of one linear size have kept (`hmc.keep_states`).

    Raises:
        SweepError: a task has kept none; temperatures have too little in common.
    """
    return Multihistogram(
        field_samples({value: [_fields(task) for task in same] for value, same in tasks.items()})
    )


def _fields(task: Task) -> Chains:
    """Shape of the values: (N, num_chains, num_draws)."""
    fields, energy, *tau_int = task.read(
        "chains/latent/states/field",
        "chains/latent/energy",
        "chains/latent/estimates/energy_tau_int",
        "chains/latent/estimates/magnetization_squared_tau_int",
    )
    chains, draws = fields.shape[:2]
    values = np.moveaxis(fields.reshape(chains, draws, -1), -1, 0)
    return Chains(values, float(max(tau_int)) * draws / energy.shape[1])


def field_samples(chains: Mapping[float, Sequence[Chains]]) -> Samples:
    """Fields, each of them once, and averages over the spins given them.

    `chains` have the field of all sites. Shape of their values: (N, num_chains, num_draws).

    Raises:
        SweepError: chains are too few for errors.
    """
    samples = pool(chains)
    size = int(np.sqrt(len(samples.values)))
    fields = samples.values.T.reshape(-1, size, size)
    each = np.arange(len(fields))
    return Samples(
        size,
        samples.temperature,
        Potential(fields),
        samples.counts(each),
        np.stack([samples.sums(values, each) for values in conditional_means(fields)], axis=1),
    )
