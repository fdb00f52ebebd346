#!/usr/bin/env python3
"""Observables against temperature, one curve per depth.

Latent HMC samples the target itself, so that every depth must give the same curves within its
error bars (one standard error; analysis/sweep.py says how seeds are combined): where one does not,
its chains have not reached equilibrium. Crosses are exact values on this lattice. Markers are
hollow where a task's verdict is not ok.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figure import (
    STYLE,
    depth_label,
    depth_look,
    figure_arguments,
    mark_critical_temperature,
    run_script,
    save_figure,
    set_temperature_axis,
)
from sweep import (
    depth_curves,
    describe_lattice,
    describe_progress,
    finished_only,
    read_sweep,
    require_variables,
)


class Observable(NamedTuple):
    """A panel of the figure."""

    variable: str
    label: str
    #: Name of its exact values in the sweep, where there are any.
    exact: str | None = None


OBSERVABLES = (
    Observable("energy", r"energy per site $e$ ($J$)", "energy_exact"),
    Observable(
        "specific_heat", r"specific heat per site $c$ ($k_\mathrm{B}$)", "specific_heat_exact"
    ),
    Observable("magnetization_squared", r"$\langle m^2\rangle = S(0)/N$"),
    Observable("susceptibility_connected", r"susceptibility per site $\chi$ ($1/J$)"),
    Observable(
        "binder_cumulant",
        r"Binder cumulant $1 - \langle m^4\rangle\,/\,3\langle m^2\rangle^2$",
    ),
    Observable("correlation_length", r"correlation length $\xi$ (lattice sites)"),
)


def draw_figure(dataset: xr.Dataset) -> Figure:
    """The whole figure from an opened sweep."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 5.2), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True)
        for axes, observable in zip(panels.flat, OBSERVABLES, strict=True):
            draw_observable(axes, dataset, observable)
        for axes in panels[0]:
            axes.set_xlabel("")
        title = f"{describe_lattice(dataset)}, {describe_progress(dataset)}"
        figure.suptitle(title, fontsize=STYLE["axes.titlesize"], x=0.01, ha="left")
        # The first panel has exact values too.
        handles, labels = panels.flat[0].get_legend_handles_labels()
        if any(has_problems(dataset, depth).any() for depth in dataset["depth"].values):
            handles.append(
                Line2D([], [], color="black", marker="o", markerfacecolor="white", linestyle="none")
            )
            labels.append("verdict not ok")
        # Matplotlib lists plain lines, here the references, before curves with error bars.
        order = sorted(range(len(labels)), key=lambda index: not labels[index].startswith("depth"))
        figure.legend(
            [handles[index] for index in order],
            [labels[index] for index in order],
            loc="outside right upper",
        )
    return figure


def draw_observable(axes: Axes, dataset: xr.Dataset, observable: Observable) -> None:
    """One panel: a curve with error bars for each depth, and exact values where there are any.

    The depths stand a little beside each other, since they agree where all is well.
    """
    curves = depth_curves(dataset, observable.variable)
    temperature = np.sort(dataset["temperature"].values)
    spacing = np.diff(temperature).min() if temperature.size > 1 else 0.1
    offsets = spacing * np.linspace(-0.12, 0.12, len(curves)) if len(curves) > 1 else [0.0]
    for offset, (depth, curve) in zip(offsets, curves.items(), strict=True):
        look = depth_look(depth)
        axes.errorbar(
            curve.temperature + offset,
            curve.value,
            curve.error,
            color=look.color,
            marker=look.marker,
            linewidth=0.7,
            label=depth_label(depth, curve),
            zorder=3,
        )
        doubtful = has_problems(dataset, depth)
        axes.plot(
            curve.temperature[doubtful] + offset,
            curve.value[doubtful],
            color=look.color,
            marker=look.marker,
            markerfacecolor="white",
            linestyle="none",
            zorder=3.5,
        )
    if observable.exact is not None:
        require_variables(dataset, [observable.exact])
        exact = dataset[observable.exact].sortby("temperature").values
        axes.plot(
            temperature,
            exact,
            color="black",
            linestyle=(0, (1, 1.5)),
            marker="x",
            label="exact",
            zorder=4,
        )
    set_temperature_axis(axes, temperature)
    mark_critical_temperature(axes)
    axes.set_ylabel(observable.label)


def has_problems(dataset: xr.Dataset, depth: int) -> np.ndarray:
    """Where a seed's verdict is not ok, by ascending temperature. Shape: (num_temperatures,)."""
    problems = finished_only(dataset, "problems").sel(depth=depth).sortby("temperature")
    return (problems > 0).any("seed").values


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[figure_arguments("fig_observables")],
    )
    return parser.parse_args()


def main() -> list[Path]:
    """Read, draw, save."""
    arguments = parse_arguments()
    with read_sweep(arguments.sweep) as dataset:
        figure = draw_figure(dataset)
    return save_figure(figure, arguments.output, arguments.formats)


if __name__ == "__main__":
    run_script(main)
