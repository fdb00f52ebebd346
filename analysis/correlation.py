"""The correlation function G(r) against the distance, with the covariance of all distances.

from correlation import radial_correlation
radial_correlation(read_sizes("DIR/sweep.h5")[16], temperature=2.3, depth=4)
"""

from typing import NamedTuple

import numpy as np
import xarray as xr

from sweep import SweepError, finished_only, source


class RadialCorrelation(NamedTuple):
    """G(r) averaged over directions and seeds. Shapes: (n,), (n,), (n, n)."""

    distance: np.ndarray
    value: np.ndarray
    #: Of the averages; of rank num_seeds - 1 at most, so that a fit to more distances than that
    #: must not invert it.
    covariance: np.ndarray


def radial_correlation(dataset: xr.Dataset, temperature: float, depth: int) -> RadialCorrelation:
    """G over all r of equal length, r taken to the nearest image on the torus.

    Distances are strongly correlated, and only independent runs tell how: the covariance is that
    of the seeds, divided by their number.

    Raises:
        SweepError: fewer than two seeds are finished.
    """
    chosen = finished_only(dataset, "correlation").sel(temperature=temperature, depth=depth)
    seeds = chosen.dropna("seed").transpose("seed", "r_x", "r_y").values
    if len(seeds) < 2:
        raise SweepError(
            f"{source(dataset)}: a covariance needs two seeds; T = {temperature:g} at depth "
            f"{depth} has {len(seeds)}"
        )
    size = seeds.shape[-1]
    nearest = np.minimum(np.arange(size), size - np.arange(size))
    square = (nearest[:, None] ** 2 + nearest**2).ravel()
    squares, place, count = np.unique(square, return_inverse=True, return_counts=True)
    radial = seeds.reshape(len(seeds), -1) @ np.eye(len(squares))[place] / count
    covariance = np.cov(radial, rowvar=False) / len(seeds)
    return RadialCorrelation(np.sqrt(squares), radial.mean(axis=0), covariance)
