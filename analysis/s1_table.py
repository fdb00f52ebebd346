#!/usr/bin/env python3
"""Table in Markdown of a sweep's free-energy gaps beside the published ones, both in nats.

One row a temperature and two columns a depth, where the own sweep of Li and Wang has both (L = 32).
"""

import argparse
from pathlib import Path

import numpy as np
import xarray as xr

from fig_s1 import PUBLISHED_LINEAR_SIZE, QUANTITIES, published_curves
from figure import run_script, with_error
from sweep import Curve, SweepError, depth_curves, read_sweep


def rows(dataset: xr.Dataset) -> list[str]:
    """Header, ruler and one line a temperature that both sweeps have, of the published lattice.

    Raises:
        SweepError: the sweeps share no depth or temperature.
    """
    ours = depth_curves(dataset, "gap")
    published = published_curves(QUANTITIES["nats"])
    columns = {
        f"depth {depth}, {whose}": _cells(curves[depth])
        for depth in sorted(set(ours) & set(published))
        for whose, curves in (("published", published), ("ours", ours))
    }
    both = [
        set().union(*(cells for name, cells in columns.items() if name.endswith(whose)))
        for whose in ("published", "ours")
    ]
    temperatures = sorted(set.intersection(*both))
    if not temperatures:
        raise SweepError("no depth and temperature is in both sweeps")
    lines = [f"| {' | '.join(['T', *columns])} |", "|---" * (len(columns) + 1) + "|"]
    for temperature in temperatures:
        row = [str(temperature), *(cells.get(temperature, "-") for cells in columns.values())]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _cells(curve: Curve) -> dict[float, str]:
    """`value ± error` of the finished points, by temperature."""
    finished = np.isfinite(curve.value)
    points = zip(
        curve.temperature[finished], curve.value[finished], curve.error[finished], strict=True
    )
    return {round(float(t), 4): with_error(value, error) for t, value, error in points}


def main() -> list[str]:
    """Command line; returns the lines of the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("sweep", type=Path, help="sweep.h5, as made by `neuralrg collect`")
    return rows(read_sweep(parser.parse_args().sweep, PUBLISHED_LINEAR_SIZE))


if __name__ == "__main__":
    run_script(main)
