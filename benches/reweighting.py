#!/usr/bin/env python3
"""Errors of multi-histogram reweighting over seeds, and Binder crossings of cluster Monte Carlo.

`calibration SWEEP.H5`: every seed of a sweep of one lattice is reweighted for itself
(analysis/multihistogram.py); prints mean and root mean square, over seeds and temperatures, of the
deviations from exact values in standard errors, which should be 0 and 1. Of the Binder cumulant,
which has no exact values, it is the spread between seeds over the mean error.

`crossings CSV CSV ...`: tables of `neuralrg reference`, one a lattice, whose L is the number in the
file's name; prints where the Binder cumulants of neighbouring sizes cross, with standard errors.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))

from crossings import length_crossing
from exact import exact_ising, ln_partition_function
from multihistogram import Multihistogram, read_spins
from sweep import Curve
from tasks import join, select

#: Temperatures between those that are sampled, and these.
POINTS = 7
QUANTITIES = ("energy", "specific heat", "-ln Z", "peak of c, T", "peak of c", "Binder cumulant")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("calibration").add_argument("sweep", type=Path)
    commands.add_parser("crossings").add_argument("references", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "calibration":
        print_calibration(arguments.sweep)
    else:
        print_crossings(arguments.references)


def print_calibration(sweep: Path) -> None:
    tasks = join([sweep])
    seeds = sorted({task.seed for task in tasks})
    pulls: dict[str, list[np.ndarray]] = {name: [] for name in QUANTITIES[:-1]}
    binder = []
    for seed in seeds:
        (by_temperature,) = select(tasks, seeds=[seed]).values()
        histogram = read_spins(by_temperature)
        for name, pull in deviations(histogram).items():
            pulls[name].append(pull)
        binder.append(histogram.curve("binder_cumulant", temperatures(histogram))[1:])
    print(f"{len(seeds)} seeds\n| quantity | mean | root mean square |\n|---|---|---|")
    for name, values in pulls.items():
        every = np.array(values)
        print(f"| {name} | {every.mean():.2f} | {np.sqrt((every**2).mean()):.2f} |")
    value, error = np.moveaxis(np.array(binder), 1, 0)
    spread = np.sqrt(value.var(axis=0, ddof=1).mean() / (error**2).mean())
    print(f"| {QUANTITIES[-1]} | - | {spread:.2f} |")


def temperatures(histogram: Multihistogram) -> np.ndarray:
    return np.linspace(histogram.temperature[0], histogram.temperature[-1], POINTS)


def deviations(histogram: Multihistogram) -> dict[str, np.ndarray]:
    """From exact values, in standard errors."""
    size, points = histogram.linear_size, temperatures(histogram)
    exact = exact_ising(size, points)
    ln_z = ln_partition_function(size, 1.0 / points[:, None]).real[:, 0]
    free_energy = histogram.free_energy(points[1:])
    fine = np.linspace(points[0], points[-1], 20_001)
    heat = exact_ising(size, fine).specific_heat
    peak = histogram.maximum("specific_heat")
    found = {
        "energy": (histogram.curve("energy", points)[1:], exact.energy),
        "specific heat": (histogram.curve("specific_heat", points)[1:], exact.specific_heat),
        "-ln Z": (free_energy[1:], ln_z[0] - ln_z[1:]),
        "peak of c, T": ((peak.temperature, peak.temperature_error), fine[heat.argmax()]),
        "peak of c": ((peak.height, peak.height_error), heat.max()),
    }
    return {name: (value - known) / error for name, ((value, error), known) in found.items()}


def print_crossings(references: list[Path]) -> None:
    curves = {}
    for path in references:
        table = np.genfromtxt(path, delimiter=",", names=True)
        size = int("".join(filter(str.isdigit, path.stem)))
        # Splines are of a length over L.
        cumulant = (size * table[f"binder_cumulant{end}"] for end in ("", "_error"))
        curves[size] = Curve(table["temperature"], *cumulant)
    print("| L | T of the crossing | value |\n|---|---|---|")
    for smaller, larger in pairwise(sorted(curves)):
        found = length_crossing((smaller, larger), curves[smaller], curves[larger])
        print(
            f"| {smaller}, {larger} | {found.temperature:.5f} ± {found.temperature_error:.5f} "
            f"| {found.value:.5f} ± {found.value_error:.5f} |"
        )


if __name__ == "__main__":
    main()
