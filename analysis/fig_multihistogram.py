#!/usr/bin/env python3
"""Observables of the Ising spins as curves over temperature, one for each linear size.

Multi-histogram reweighting of the spins drawn along the chains of latent HMC at all temperatures of
a size (analysis/multihistogram.py); bands are one standard error, by a jackknife over blocks of
chains. Points are what each temperature measured for itself. Thin black lines are the exact
specific heat. Several sweeps are joined: sizes, temperatures and seeds of all of them. Tasks
whose verdict is not ok are left out.

Prints where specific heat and connected susceptibility are highest, and the difference of -ln Z
between the first and the last temperature, which is exact in the last column.
"""

import argparse
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exact import exact_ising, ln_partition_function
from figure import (
    STYLE,
    Look,
    depth_look,
    mark_critical_temperature,
    run_script,
    save_figure,
    set_temperature_axis,
    warn,
    with_error,
)
from multihistogram import Multihistogram, read_spins
from sweep import Curve, SweepError
from tasks import Sizes, chosen_tasks, measured, task_arguments

#: Points of a curve.
CURVE_POINTS = 200

PANELS = {
    "specific_heat": r"specific heat per site $c$ ($k_\mathrm{B}$)",
    "susceptibility_connected": (
        "connected susceptibility per site\n"
        r"$N(\langle m^2\rangle - \langle|m|\rangle^2)/T$ ($1/J$)"
    ),
    "magnetization_absolute": r"$\langle|m|\rangle$",
    "binder_cumulant": ("Binder cumulant\n" r"$1 - \langle m^4\rangle\,/\,3\langle m^2\rangle^2$"),
}
#: Quantities whose maxima are printed.
PEAKS = ("specific_heat", "susceptibility_connected")

HEADER = (
    "| L | temperatures | T of max c | max c | T of max χ | max χ | -ln Z, last - first | exact |",
    "|---|---|---|---|---|---|---|---|",
)


class Size(NamedTuple):
    """What is drawn of one linear size."""

    spins: Multihistogram
    points: dict[str, Curve]


def read(sizes: Sizes) -> list[Size]:
    """The tasks of each size, reweighted and as they are.

    Raises:
        SweepError: as `read_spins`.
    """
    return [
        Size(read_spins(tasks), {quantity: measured(tasks, quantity) for quantity in PANELS})
        for tasks in sizes.values()
    ]


def draw_figure(sizes: list[Size]) -> Figure:
    """Four panels with a curve of each size."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.8, 5.4), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True)
        every = np.concatenate([size.spins.temperature for size in sizes])
        for axes, (quantity, label) in zip(panels.flat, PANELS.items(), strict=True):
            set_temperature_axis(axes, every)
            mark_critical_temperature(axes)
            for index, size in enumerate(sizes):
                draw_size(axes, depth_look(index + 1), size, quantity)
            axes.set_ylabel(label)
        for axes in panels[0]:
            axes.set_xlabel("")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper")
    return figure


def draw_size(axes: Axes, look: Look, size: Size, quantity: str) -> None:
    """Curve with its band, points, and the exact curve of the specific heat."""
    spins = size.spins
    temperature = np.linspace(spins.temperature[0], spins.temperature[-1], CURVE_POINTS)
    _, value, error = spins.curve(quantity, temperature)
    label = f"$L = {spins.linear_size}$"
    axes.plot(temperature, value, color=look.color, label=label)
    axes.fill_between(
        temperature, value - error, value + error, color=look.color, alpha=0.3, linewidth=0.0
    )
    axes.errorbar(*size.points[quantity], color=look.color, marker=look.marker, linestyle="none")
    if quantity == "specific_heat":
        exact = exact_ising(spins.linear_size, temperature).specific_heat
        axes.plot(temperature, exact, color="black", linewidth=0.5, label="_exact", zorder=4)


def row(size: Size) -> str:
    """A row of the table; without a maximum in the temperatures, a dash and a warning."""
    spins = size.spins
    cells = [str(spins.linear_size), str(len(spins.temperature))]
    for quantity in PEAKS:
        try:
            temperature, temperature_error, height, height_error = spins.maximum(quantity)
        except SweepError as error:
            warn(str(error))
            cells += ["-", "-"]
        else:
            cells += [
                with_error(temperature, temperature_error),
                with_error(height, height_error),
            ]
    ends = spins.temperature[[0, -1]]
    _, value, error = spins.free_energy(ends)
    exact = -ln_partition_function(spins.linear_size, 1.0 / ends).real
    cells += [with_error(value[1], error[1]), f"{exact[1] - exact[0]:.4f}"]
    return f"| {' | '.join(cells)} |"


def main() -> list[object]:
    """Command line; returns the lines of the table and the files that were written."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[task_arguments("fig_multihistogram")],
    )
    arguments = parser.parse_args()
    sizes = read(chosen_tasks(arguments))
    table = [*HEADER, *map(row, sizes)]
    return [*table, *save_figure(draw_figure(sizes), arguments.output, arguments.formats)]


if __name__ == "__main__":
    run_script(main)
