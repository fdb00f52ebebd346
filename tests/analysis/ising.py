"""Samples of the Ising model for tests: of the enumerated 4 x 4 torus, and by cluster updates."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from jackknife import Chains
from multihistogram import QUANTITIES

SITES = 16
#: All 65,536 states. Shape: (2^16, 4, 4).
SPINS = 1 - 2 * ((np.arange(2**SITES)[:, None] >> np.arange(SITES)) & 1).reshape(-1, 4, 4)
#: Energy and magnetization per site of each.
ENERGY = -(SPINS * (np.roll(SPINS, 1, axis=1) + np.roll(SPINS, 1, axis=2))).mean(axis=(1, 2))
MAGNETIZATION = SPINS.mean(axis=(1, 2))
#: `MEANS` of each state.
OBSERVABLES = np.stack(
    [ENERGY, ENERGY**2, np.abs(MAGNETIZATION), MAGNETIZATION**2, MAGNETIZATION**4]
)


def weights(temperature: float) -> np.ndarray:
    """Boltzmann weights of all states."""
    return np.exp(-SITES * ENERGY / temperature)


def exact(quantity: str, temperature: np.ndarray) -> np.ndarray:
    """A quantity of the enumerated lattice."""
    names = ("energy", "energy_squared", "magnetization_absolute", "magnetization_squared")
    every = np.array([weights(value) for value in temperature])
    means = OBSERVABLES @ every.T / every.sum(axis=1)
    by_name = dict(zip((*names, "magnetization_fourth"), means, strict=True))
    return QUANTITIES[quantity](by_name, SITES, 1.0 / temperature)


def exact_free_energy(temperature: np.ndarray) -> np.ndarray:
    """-ln Z of the enumerated lattice."""
    return -np.log([weights(value).sum() for value in temperature])


def draw_states(
    random: np.random.Generator, temperature: float, shape: tuple[int, int], stay: float = 0.0
) -> np.ndarray:
    """Chains over the states that keep their state with a probability, else draw anew.

    Stationary, with the autocorrelation `stay`^t. Shape: `shape`, (num_chains, num_trajectories).
    """
    cumulative = np.cumsum(weights(temperature))
    drawn = np.searchsorted(cumulative, cumulative[-1] * random.random(shape))
    kept = random.random(shape) < stay
    kept[:, 0] = False
    last = np.maximum.accumulate(np.where(kept, 0, np.arange(shape[1])), axis=1)
    return np.take_along_axis(drawn, last, axis=1)


def draw_chains(
    random: np.random.Generator, temperature: float, shape: tuple[int, int], stay: float = 0.0
) -> Chains:
    """Energy and magnetization along such chains."""
    states = draw_states(random, temperature, shape, stay)
    tau_int = 0.5 * (1.0 + stay) / (1.0 - stay)
    return Chains(np.stack([ENERGY[states], MAGNETIZATION[states]]), tau_int)


class Measured(NamedTuple):
    """Along chains of any lattice. Shapes: (num_chains, num_sweeps)."""

    energy: np.ndarray
    magnetization: np.ndarray
    structure_factor_k_min: np.ndarray


def swendsen_wang(
    random: np.random.Generator, size: int, temperature: float, chains: int, sweeps: int
) -> Measured:
    """Cluster updates (Swendsen and Wang, Phys. Rev. Lett. 58, 86 (1987)), 20 sweeps left out."""
    spins = np.ones((chains, size, size))
    sites = np.arange(spins.size).reshape(spins.shape)
    wave = np.exp(2j * np.pi * np.arange(size) / size)
    rows = []
    for sweep in range(20 + sweeps):
        pairs = []
        for axis in (1, 2):
            bonds = spins == np.roll(spins, -1, axis)
            bonds &= random.random(spins.shape) < 1.0 - np.exp(-2.0 / temperature)
            pairs.append([sites[bonds], np.roll(sites, -1, axis)[bonds]])
        ends = np.concatenate(pairs, axis=1)
        graph = coo_matrix((np.ones(ends.shape[1]), tuple(ends)), shape=(sites.size, sites.size))
        clusters, cluster = connected_components(graph, directed=False)
        spins = random.choice([-1.0, 1.0], clusters)[cluster].reshape(spins.shape)
        if sweep >= 20:
            bonds = spins * (np.roll(spins, 1, 1) + np.roll(spins, 1, 2))
            modes = [(spins * wave).sum((1, 2)), (spins * wave[:, None]).sum((1, 2))]
            power = np.mean(np.abs(modes) ** 2, axis=0) / size**2
            rows.append([-bonds.mean((1, 2)), spins.mean((1, 2)), power])
    return Measured(*np.moveaxis(np.array(rows), 0, -1))
