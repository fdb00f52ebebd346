#!/usr/bin/env python3
"""Table in Markdown of a sweep's free-energy gaps beside the published ones, both in nats.

One row a temperature and two columns a depth, where the own sweep of Li and Wang has both (L = 32).
"""

import argparse
from pathlib import Path

import numpy as np
import xarray as xr

from fig_s1 import PUBLISHED_LINEAR_SIZE, QUANTITIES, published_curves
from figure import run_script
from sweep import Curve, SweepError, depth_curves, read_sweep


def rows(dataset: xr.Dataset) -> list[str]:
    """Header, ruler and one line a temperature that both sweeps have.

    Raises:
        SweepError: the sweep is of another lattice, or shares no depth or temperature.
    """
    size = int(dataset.attrs["linear_size"])
    if size != PUBLISHED_LINEAR_SIZE:
        raise SweepError(
            f"the published sweep is at L = {PUBLISHED_LINEAR_SIZE}, this one at {size}"
        )
    ours = depth_curves(dataset, "gap")
    published = published_curves(QUANTITIES["nats"])
    depths = sorted(set(ours) & set(published))
    temperatures = sorted(
        {key for depth in depths for key in _cells(ours[depth])}
        & {key for depth in depths for key in _cells(published[depth])}
    )
    if not temperatures:
        raise SweepError("no depth and temperature is in both sweeps")
    columns = [f"depth {depth}, {whose}" for depth in depths for whose in ("published", "ours")]
    lines = [f"| {' | '.join(['T', *columns])} |", "|---" * (len(columns) + 1) + "|"]
    for temperature in temperatures:
        pairs = [_cells(sweep[depth]) for depth in depths for sweep in (published, ours)]
        cells = [pair.get(temperature, "-") for pair in pairs]
        lines.append(f"| {' | '.join([str(temperature), *cells])} |")
    return lines


def _cells(curve: Curve) -> dict[float, str]:
    """`value ± error` of the finished points, by temperature."""
    finished = np.isfinite(curve.value)
    points = zip(
        curve.temperature[finished], curve.value[finished], curve.error[finished], strict=True
    )
    return {round(float(t), 4): with_error(value, error) for t, value, error in points}


def with_error(value: float, error: float) -> str:
    """`value ± error` to two decimals, or to three where two would leave nothing of the error."""
    decimals = 2 if error >= 0.01 else 3
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def main() -> list[str]:
    """Command line; returns the lines of the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("sweep", type=Path, help="sweep.h5, as made by `neuralrg collect`")
    return rows(read_sweep(parser.parse_args().sweep))


if __name__ == "__main__":
    run_script(main)
