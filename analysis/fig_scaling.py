#!/usr/bin/env python3
"""Finite-size scaling of several linear sizes: crossings of curves, and their collapse.

(a) Binder cumulant by multi-histogram reweighting, with the crossings of neighbouring sizes;
(b) xi/L of the second-moment correlation length, by splines through the points; (c) Binder cumulant
and (d) susceptibility, less what vanishes with L, against x = (t + b t^2) L^(1/nu), t = T/T_c - 1,
with the parameters that bring all sizes upon one curve (analysis/scaling.py); pale points lie
outside the window that is fitted. The collapse needs three sizes. Prints all of them with standard
errors; exact are T_c = 2.269185, nu = 1 and gamma = 7/4. A chi^2 far above its degrees of freedom
means that other corrections to scaling are seen: take a smaller window or leave out small sizes.
"""

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from crossings import Crossing, crossing, length_crossing, length_spline
from figure import (
    STYLE,
    depth_look,
    mark_critical_temperature,
    run_script,
    save_figure,
    set_temperature_axis,
    warn,
    with_error,
)
from jackknife import jackknife
from multihistogram import Multihistogram, read_spins
from scaling import CORRECTION, LEAST_SIZES, WINDOW, Collapse, Points, collapse, read_points
from sweep import CRITICAL_TEMPERATURE, Curve, SweepError
from tasks import Sizes, chosen_tasks, measured, task_arguments

CURVE_POINTS = 200
#: Opacity of points that are not fitted.
PALE = 0.25

BINDER = r"Binder cumulant $U$"
HEADER = ("| quantity | L | value |", "|---|---|---|")

Result = TypeVar("Result")


class Scaling(NamedTuple):
    """What is drawn and printed; the first three have an entry for each size, ascending."""

    spins: list[Multihistogram]
    lengths: list[Curve]
    points: list[Points]
    binder_crossings: list[Crossing]
    length_crossings: list[Crossing]
    collapse: Collapse | None


def analyse(sizes: Sizes, window: float, correction: float = CORRECTION) -> Scaling:
    """Crossings of neighbouring sizes, and the collapse of all of three or more.

    Raises:
        SweepError: there is one size only; as `read_spins`.
    """
    if len(sizes) < 2:
        raise SweepError("scaling needs several linear sizes; give more of them, or more sweeps")
    spins = [read_spins(tasks) for tasks in sizes.values()]
    lengths = [measured(tasks, "correlation_length") for tasks in sizes.values()]
    points = [read_points(tasks) for tasks in sizes.values()]
    binder = found(partial(crossing, *pair, "binder_cumulant") for pair in pairwise(spins))
    length = found(
        partial(length_crossing, pair, *curves)
        for pair, curves in zip(pairwise(sizes), pairwise(lengths), strict=True)
    )
    start = np.mean([one.temperature for one in binder]) if binder else CRITICAL_TEMPERATURE
    fit = partial(collapse, points, start, window=window, correction=correction)
    attempts = [fit] * (len(sizes) >= LEAST_SIZES)
    return Scaling(spins, lengths, points, binder, length, next(iter(found(attempts)), None))


def found(attempts: Iterable[Callable[[], Result]]) -> list[Result]:
    """What each attempt finds, with a warning where it finds nothing."""
    results = []
    for attempt in attempts:
        try:
            results.append(attempt())
        except SweepError as error:
            warn(str(error))
    return results


def draw_figure(scaling: Scaling, window: float) -> Figure:
    """Crossings above, collapsed points below."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.8, 5.6), layout="constrained")
        rows = 1 if scaling.collapse is None else 2
        panels = figure.subplots(rows, 2, squeeze=False)
        draw_binder(panels[0, 0], scaling)
        draw_lengths(panels[0, 1], scaling)
        if scaling.collapse is not None:
            draw_collapse(panels[1], scaling.points, scaling.collapse, window)
        for axes, letter in zip(panels.flat, "abcd", strict=False):
            axes.set_title(f"({letter})", loc="left")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper")
    return figure


def draw_binder(axes: Axes, scaling: Scaling) -> None:
    """Curves with their bands."""
    set_temperature_axis(axes, np.concatenate([spins.temperature for spins in scaling.spins]))
    mark_critical_temperature(axes)
    for index, spins in enumerate(scaling.spins):
        color = depth_look(index + 1).color
        grid = np.linspace(spins.temperature[0], spins.temperature[-1], CURVE_POINTS)
        _, value, error = spins.curve("binder_cumulant", grid)
        axes.plot(grid, value, color=color, label=f"$L = {spins.linear_size}$")
        axes.fill_between(grid, value - error, value + error, color=color, alpha=0.3, linewidth=0.0)
    draw_crossings(axes, scaling.binder_crossings)
    axes.set_ylabel(BINDER)


def draw_lengths(axes: Axes, scaling: Scaling) -> None:
    """Points of xi/L, and the splines through them."""
    set_temperature_axis(axes, np.concatenate([curve.temperature for curve in scaling.lengths]))
    mark_critical_temperature(axes)
    for index, (spins, curve) in enumerate(zip(scaling.spins, scaling.lengths, strict=True)):
        look, size = depth_look(index + 1), spins.linear_size
        grid = np.linspace(curve.temperature[0], curve.temperature[-1], CURVE_POINTS)
        axes.plot(grid, np.exp(length_spline(size, curve)(grid)), color=look.color, linewidth=0.7)
        axes.errorbar(
            curve.temperature,
            curve.value / size,
            curve.error / size,
            color=look.color,
            marker=look.marker,
            linestyle="none",
        )
    draw_crossings(axes, scaling.length_crossings)
    set_log_scale(axes)
    axes.set_ylabel(r"$\xi/L$")


def set_log_scale(axes: Axes) -> None:
    """A logarithmic axis of a decade or two, whose ticks are plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 3.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")


def draw_crossings(axes: Axes, crossings: list[Crossing]) -> None:
    """Open circles with error bars, upon the curves."""
    for one in crossings:
        axes.errorbar(
            one.temperature,
            one.value,
            one.value_error,
            one.temperature_error,
            color="black",
            marker="o",
            markerfacecolor="none",
            linestyle="none",
            zorder=4,
        )


def draw_collapse(
    panels: np.ndarray, points: list[Points], collapsed: Collapse, window: float
) -> None:
    """Both scaling functions."""
    for index, one in enumerate(points):
        look = depth_look(index + 1)
        x = collapsed.scaled_temperature(one.linear_size, one.temperature)
        inside = collapsed.distance(one.linear_size, one.temperature) <= window
        scaled = (collapsed.scaled_binder_cumulant(one), collapsed.scaled_susceptibility(one))
        for axes, replicates in zip(panels, scaled, strict=True):
            value, error = jackknife(replicates)
            for here, alpha in ((inside, 1.0), (~inside, PALE)):
                axes.errorbar(
                    x[here],
                    value[here],
                    error[here],
                    color=look.color,
                    marker=look.marker,
                    linestyle="none",
                    alpha=alpha,
                )
    for axes in panels:
        axes.set_xlabel(r"$(t + b t^2)\,L^{1/\nu}$, $t = T/T_\mathrm{c} - 1$")
    panels[0].set_ylabel(BINDER)
    set_log_scale(panels[1])
    panels[1].set_ylabel(r"$\chi\,e^{-ct}L^{-\gamma/\nu}$ ($1/J$)")


def table(scaling: Scaling) -> list[str]:
    """All results, a row each."""
    rows = []
    for name, crossings in (
        ("Binder crossing", scaling.binder_crossings),
        ("xi/L crossing", scaling.length_crossings),
    ):
        for one in crossings:
            pair = f"{one.sizes[0]}, {one.sizes[1]}"
            rows.append((f"T of the {name}", pair, one.temperature, one.temperature_error))
            rows.append((f"value at the {name}", pair, one.value, one.value_error))
    if scaling.collapse is not None:
        every = ", ".join(str(one.linear_size) for one in scaling.points)
        for place, name in enumerate(("T_c", "nu", "gamma", "gamma/nu")):
            value, error = scaling.collapse[2 * place : 2 * place + 2]
            rows.append((f"{name} of the collapse", every, value, error))
    lines = [f"| {name} | {sizes} | {with_error(*value)} |" for name, sizes, *value in rows]
    return [*HEADER, *lines, *quality(scaling.collapse)]


def quality(collapsed: Collapse | None) -> list[str]:
    """What the collapse is worth."""
    if collapsed is None:
        return []
    return [
        f"chi^2 {collapsed.chi_squared:.1f} at {collapsed.degrees_of_freedom} degrees of freedom: "
        f"{collapsed.points} points (L, T), polynomials of degree {collapsed.degree}, "
        f"b = {collapsed.curvature:.2g}, c = {collapsed.slope:.2g}, amplitudes of "
        f"L^-{collapsed.correction:g} in U and ln chi "
        f"{collapsed.backgrounds[0]:.2g} and {collapsed.backgrounds[1]:.2g}"
    ]


def main() -> list[object]:
    """Command line; returns the lines of the table and the files that were written."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[task_arguments("fig_scaling")],
    )
    parser.add_argument(
        "--window",
        type=float,
        default=WINDOW,
        help="largest |t| L^(1/nu) of the points that are fitted (default: %(default)s)",
    )
    parser.add_argument(
        "--least-size", type=int, default=0, metavar="L", help="leave out lattices below this size"
    )
    parser.add_argument(
        "--correction",
        type=float,
        default=CORRECTION,
        metavar="OMEGA",
        help="exponent of the corrections L^-omega; 0: none (default: %(default)s)",
    )
    arguments = parser.parse_args()
    sizes = chosen_tasks(arguments)
    large = {size: tasks for size, tasks in sizes.items() if size >= arguments.least_size}
    scaling = analyse(large, arguments.window, arguments.correction)
    figure = draw_figure(scaling, arguments.window)
    return [*table(scaling), *save_figure(figure, arguments.output, arguments.formats)]


if __name__ == "__main__":
    run_script(main)
