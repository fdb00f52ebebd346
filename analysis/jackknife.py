"""Errors from independent blocks of Markov chains: the delete-one jackknife.

Chains are independent of each other, so blocks are groups of whole chains, of all seeds, at each
temperature; block b of all temperatures together is left out at once, since temperatures are
independent, too. Where a temperature has fewer than `ENOUGH_CHAINS` chains they are cut into
contiguous pieces, none shorter than `PIECE_LENGTH` autocorrelation times, so that neighbours have
little in common.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sweep import SweepError

MOST_BLOCKS = 32
ENOUGH_CHAINS = 16
#: Least length of a piece of a chain, in integrated autocorrelation times.
PIECE_LENGTH = 40.0


class Chains(NamedTuple):
    """Quantities along the chains of one task."""

    #: Shape: (num_quantities, num_chains, num_trajectories).
    values: np.ndarray
    #: The longest integrated autocorrelation time of them, in trajectories.
    tau_int: float


def jackknife(replicates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value, less its bias of order 1/n, and standard error.

    With the estimate t of all B blocks and t_b without block b: B t - (B - 1) mean(t_b), and
    the root of (B - 1)/B sum_b (t_b - mean)^2 (Efron, The Jackknife, the Bootstrap and Other
    Resampling Plans, SIAM (1982), chapters 2 and 3).

    Shapes: (1 + B, ...), the estimate of all blocks first -> (...), (...).
    """
    whole, left_out = replicates[0], replicates[1:]
    blocks, mean = len(left_out), left_out.mean(axis=0)
    variance = (blocks - 1) / blocks * ((left_out - mean) ** 2).sum(axis=0)
    return blocks * whole - (blocks - 1) * mean, np.sqrt(variance)


def jackknife_of_all(replicates: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The same where blocks of several independent sets are left out: biases and variances add.

    Shapes: (1 + B, ...) for each set, the estimate of all blocks of all sets first in each.
    """
    whole = replicates[0][0]
    values, errors = zip(*map(jackknife, replicates), strict=True)
    return whole + sum(value - whole for value in values), np.sqrt(sum(e**2 for e in errors))


def leave_out(blocks: np.ndarray) -> np.ndarray:
    """Of sums in each block those over all blocks, and over all but each.

    Shapes: (B, ...) -> (1 + B, ...).
    """
    total = blocks.sum(axis=0)
    return np.concatenate([total[None], total - blocks])


class Pool(NamedTuple):
    """All samples of some quantities at all temperatures, one after another."""

    #: Ascending. Shape: (num_temperatures,).
    temperature: np.ndarray
    #: Shape: (num_quantities, num_samples).
    values: np.ndarray
    #: Index of each sample's temperature and block. Shapes: (num_samples,).
    origin: np.ndarray
    block: np.ndarray
    blocks: int

    def sums(self, values: np.ndarray, *index: np.ndarray) -> np.ndarray:
        """Sums of values over the samples of each block and of each value of the indices.

        Shapes: (num_samples,) each -> (num_blocks, ...).
        """
        shape = (self.blocks, *(place.max() + 1 for place in index))
        flat = np.ravel_multi_index((self.block, *index), shape)
        return np.bincount(flat, values, np.prod(shape)).reshape(shape)

    def counts(self, *index: np.ndarray) -> np.ndarray:
        """How many samples each block has of each temperature and value of the indices."""
        return self.sums(np.ones(len(self.block)), self.origin, *index)


def pool(chains: Mapping[float, Sequence[Chains]]) -> Pool:
    """The chains of all tasks at each temperature, shared out among the blocks.

    Raises:
        SweepError: a temperature has a single chain that is too short to be cut.
    """
    temperature = sorted(chains)
    pieces = [_pieces(chains[value]) for value in temperature]
    units = [
        count * sum(task.values.shape[1] for task in chains[value])
        for count, value in zip(pieces, temperature, strict=True)
    ]
    blocks = min(MOST_BLOCKS, *units)
    if blocks < 2:
        raise SweepError("one short chain at a temperature gives no errors; run more of hmc.chains")
    block, origin, values = [], [], []
    for place, value in enumerate(temperature):
        block += _labels(chains[value], pieces[place], blocks, units[place])
        for task in chains[value]:
            values.append(task.values.reshape(len(task.values), -1))
            origin.append(np.full(values[-1].shape[1], place))
    return Pool(
        np.array(temperature),
        np.concatenate(values, axis=1),
        np.concatenate(origin),
        np.concatenate([label.ravel() for label in block]),
        blocks,
    )


def _pieces(tasks: Sequence[Chains]) -> int:
    """Into how many pieces the chains of a temperature are cut."""
    chains = sum(task.values.shape[1] for task in tasks)
    if chains >= ENOUGH_CHAINS:
        return 1
    most = min(task.values.shape[2] / (PIECE_LENGTH * task.tau_int) for task in tasks)
    return max(1, min(math.ceil(MOST_BLOCKS / chains), int(most)))


def _labels(tasks: Sequence[Chains], pieces: int, blocks: int, units: int) -> list[np.ndarray]:
    """The block of each trajectory: pieces of chains, in their order, shared out evenly.

    Shapes: (num_chains, num_trajectories) for each task.
    """
    labels, first = [], 0
    for task in tasks:
        _, chains, trajectories = task.values.shape
        chain = first + np.arange(chains)[:, None]
        piece = np.arange(trajectories) * pieces // trajectories
        labels.append((chain * pieces + piece) * blocks // units)
        first += chains
    return labels
