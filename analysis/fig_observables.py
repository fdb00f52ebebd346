#!/usr/bin/env python3
"""Observables against temperature, one curve per depth.

Latent HMC samples the target itself, so that every depth must give the same values within its
error bars (one standard error; analysis/sweep.py says how seeds are combined): where one does not,
its chains have not reached equilibrium. All points lie at their own temperature; deeper flows have
smaller markers, so that none hides another. Markers are hollow where a task's verdict is not ok.
Black lines are exact on this lattice; where there is none, thin ones only guide the eye, and
--reference puts values by cluster Monte Carlo beside them.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from exact import exact_ising
from figure import (
    STYLE,
    depth_label,
    depth_look,
    doubtful_entry,
    draw_doubtful,
    draw_legend,
    figure_arguments,
    mark_critical_temperature,
    run_script,
    save_figure,
    set_temperature_axis,
)
from reference import read_reference
from sweep import (
    Curve,
    SweepError,
    depth_curves,
    describe_lattice,
    describe_progress,
    has_problems,
    read_sweep,
)

#: Sizes of the markers of the first and of the last depth.
MARKER_SIZES = (5.0, 2.4)

#: Temperatures of an exact curve: the peak of c is as sharp as it is.
CURVE_POINTS = 400

#: Standard errors that a reference's energy may be off the exact one.
REFERENCE_ERRORS = 8.0


class Observable(NamedTuple):
    """A panel of the figure."""

    variable: str
    label: str
    #: Name of its exact values, where there are any.
    exact: str | None = None


OBSERVABLES = (
    Observable("energy", r"energy per site $e$ ($J$)", "energy"),
    Observable("specific_heat", r"specific heat per site $c$ ($k_\mathrm{B}$)", "specific_heat"),
    Observable("magnetization_squared", r"$\langle m^2\rangle = S(0)/N$"),
    Observable(
        "susceptibility_connected",
        "connected susceptibility per site\n"
        r"$N(\langle m^2\rangle - \langle|m|\rangle^2)/T$ ($1/J$)",
    ),
    Observable(
        "binder_cumulant",
        "Binder cumulant\n" r"$1 - \langle m^4\rangle\,/\,3\langle m^2\rangle^2$",
    ),
    Observable("correlation_length", "second-moment\n" r"correlation length $\xi$ (lattice sites)"),
)


def draw_figure(dataset: xr.Dataset, reference: Mapping[str, Curve] | None = None) -> Figure:
    """The whole figure from an opened sweep, and `neuralrg reference` on the same lattice."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 5.4), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True)
        for axes, observable in zip(panels.flat, OBSERVABLES, strict=True):
            draw_observable(axes, dataset, observable)
            if reference is not None and observable.exact is None:
                draw_reference(axes, reference[observable.variable])
        for axes in panels[0]:
            axes.set_xlabel("")
        title = f"{describe_lattice(dataset)}, {describe_progress(dataset)}, latent HMC"
        figure.suptitle(title, fontsize=STYLE["axes.titlesize"], x=0.01, ha="left")
        doubtful = any(has_problems(dataset, depth).any() for depth in dataset["depth"].values)
        others = [reference_entry()] if reference is not None else []
        others += [doubtful_entry()] if doubtful else []
        # The first panel has an exact curve.
        draw_legend(figure, panels.flat[0], *others)
    return figure


def draw_observable(axes: Axes, dataset: xr.Dataset, observable: Observable) -> None:
    """One panel: points with error bars for each depth, and the exact curve where there is one."""
    set_temperature_axis(axes, dataset["temperature"].values)
    mark_critical_temperature(axes)
    curves = depth_curves(dataset, observable.variable)
    sizes = np.linspace(*MARKER_SIZES, len(curves))
    for size, (depth, curve) in zip(sizes, curves.items(), strict=True):
        look = depth_look(depth)
        axes.errorbar(
            *curve,
            color=look.color,
            marker=look.marker,
            markersize=size,
            linestyle="none" if observable.exact else "-",
            linewidth=0.5,
            elinewidth=0.8,
            label=depth_label(depth, curve),
            zorder=3,
        )
        doubtful = has_problems(dataset, depth)
        draw_doubtful(axes, look, curve.temperature[doubtful], curve.value[doubtful], size)
    if observable.exact is not None:
        draw_exact(axes, int(dataset.attrs["linear_size"]), observable.exact)
    # No marker is cut by the frame.
    axes.margins(y=0.08)
    axes.set_ylabel(observable.label)


def draw_exact(axes: Axes, linear_size: int, quantity: str) -> None:
    """The exact values of this lattice over the whole axis."""
    low, high = axes.get_xlim()
    temperature = np.linspace(max(low, 0.1 * high), high, CURVE_POINTS)
    values = getattr(exact_ising(linear_size, temperature), quantity)
    axes.plot(temperature, values, color="black", linewidth=0.8, label="exact", zorder=2)


def draw_reference(axes: Axes, curve: Curve) -> None:
    """Values by cluster Monte Carlo with their errors, as far as the axis reaches."""
    low, high = axes.get_xlim()
    here = (curve.temperature >= low) & (curve.temperature <= high)
    axes.errorbar(
        *(values[here] for values in curve),
        color="black",
        marker="x",
        linestyle="none",
        label="_reference",
        zorder=4,
    )


def reference_entry() -> tuple[Line2D, str]:
    """What the legend says of the reference."""
    handle = Line2D([], [], color="black", marker="x", linestyle="none")
    return handle, "spins by Wolff clusters"


def read_spins(path: Path, linear_size: int) -> dict[str, Curve]:
    """What `neuralrg reference` printed for all panels.

    It does not say for which lattice; its energies must be the exact ones of this.

    Raises:
        SweepError: it cannot be used, or is of another lattice.
    """
    spins = read_reference(path, [observable.variable for observable in OBSERVABLES])
    energy = spins["energy"]
    exact = exact_ising(linear_size, energy.temperature).energy
    off = np.abs(energy.value - exact) > REFERENCE_ERRORS * energy.error
    if off.any():
        raise SweepError(
            f"{path}: its energy at T = {energy.temperature[off][0]:g} is not that of L = "
            f"{linear_size}; make it with `neuralrg reference --linear-size {linear_size}`"
        )
    return spins


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[figure_arguments("fig_observables")],
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="CSV",
        help="output of `neuralrg reference` for this lattice, for all that has no exact curve",
    )
    return parser.parse_args()


def main() -> list[Path]:
    """Read, draw, save."""
    arguments = parse_arguments()
    with read_sweep(arguments.sweep, arguments.linear_size) as dataset:
        size = int(dataset.attrs["linear_size"])
        reference = arguments.reference and read_spins(arguments.reference, size)
        figure = draw_figure(dataset, reference)
    return save_figure(figure, arguments.output, arguments.formats)


if __name__ == "__main__":
    run_script(main)
