#!/usr/bin/env python3
"""Figure S2: generated field configurations, one row per depth, one column per temperature.

Every panel is one sample drawn from the trained flow of that depth and temperature; all share
one colour scale. A circle marks a task whose verdict is not ok. A task that is not finished leaves
an empty, labelled panel.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from figure import STYLE, figure_arguments, run_script, save_figure
from sweep import (
    CRITICAL_TEMPERATURE,
    SweepError,
    describe_lattice,
    finished_only,
    is_finished,
    read_sweep,
    require_variables,
    source,
)

COLOUR_MAP = "RdBu_r"

#: The colour scale spans this share of all |x|; the rare larger ones take the end colours.
SCALE_QUANTILE = 0.995

PANEL_INCHES = 1.05


class SampleGrid(NamedTuple):
    """One field sample per depth and temperature.

    Shapes: `field` (num_depths, num_temperatures, L, L), NaN where the task is not finished;
    `doubtful` (num_depths, num_temperatures), where its verdict is not ok.
    """

    seed: int
    sample: int
    depth: np.ndarray
    temperature: np.ndarray
    field: np.ndarray
    doubtful: np.ndarray

    def limit(self) -> float:
        """Symmetric end of the colour scale."""
        size = np.abs(self.field[np.isfinite(self.field)])
        return float(np.quantile(size, SCALE_QUANTILE)) if size.size and size.any() else 1.0


def select_samples(dataset: xr.Dataset, sample: int = 0, seed: int | None = None) -> SampleGrid:
    """Sample number `sample` of each task of one seed (default: the first with a finished task).

    Raises:
        SweepError: no such sample or seed, or a seed without any finished task.
    """
    require_variables(dataset, ["samples", "sample"])
    chosen = _choose_seed(dataset, seed)
    available = dataset["sample"].values
    if sample not in available:
        span = f"{available.min()} to {available.max()}" if available.size else "none stored"
        raise SweepError(f"{source(dataset)}: no sample {sample}; there are: {span}")
    one = dataset.sel(sample=sample, seed=[chosen]).sortby(["depth", "temperature"])
    field = finished_only(one, "samples").isel(seed=0)
    field = field.transpose("depth", "temperature", "row", "column")
    problems = finished_only(one, "problems").isel(seed=0).transpose("depth", "temperature")
    axes = one["depth"].values, one["temperature"].values
    return SampleGrid(chosen, sample, *axes, field.values, problems.values > 0)


def _choose_seed(dataset: xr.Dataset, seed: int | None) -> int:
    finished = is_finished(dataset).any(["temperature", "depth"])
    usable = [int(label) for label in dataset["seed"].values[finished.values]]
    if seed is None:
        return usable[0]
    if seed not in dataset["seed"].values:
        every = ", ".join(str(label) for label in dataset["seed"].values)
        raise SweepError(f"{source(dataset)}: no seed {seed}; there are: {every}")
    if seed not in usable:
        some = ", ".join(str(label) for label in usable)
        raise SweepError(f"{source(dataset)}: seed {seed} has no finished task; these have: {some}")
    return seed


def draw_figure(dataset: xr.Dataset, sample: int = 0, seed: int | None = None) -> Figure:
    """The whole figure from an opened sweep."""
    grid = select_samples(dataset, sample, seed)
    rows, columns = len(grid.depth), len(grid.temperature)
    limit = grid.limit()
    with mpl.rc_context(STYLE):
        # Narrow and low grids still need room for the title and the colour bar's label.
        size = (max(columns * PANEL_INCHES + 1.5, 3.2), max(rows * PANEL_INCHES + 0.7, 2.0))
        figure = Figure(figsize=size, layout="compressed")
        panels = figure.subplots(rows, columns, squeeze=False)
        image = None
        for row, column in np.ndindex(rows, columns):
            drawn = draw_panel(panels[row, column], grid.field[row, column], limit)
            image = image or drawn
            if grid.doubtful[row, column]:
                mark_doubtful(panels[row, column])
        label_panels(panels, grid)
        title = f"{describe_lattice(dataset)}, seed {grid.seed}, sample {grid.sample}"
        if grid.doubtful.any():
            title += r"; $\bigcirc$: verdict not ok"
        figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
        if image is not None:
            over = np.nanmax(np.abs(grid.field)) > limit
            figure.colorbar(
                image,
                ax=panels,
                label="field $x$",
                extend="both" if over else "neither",
                aspect=max(8 * rows, 12),
                pad=0.12 / size[0],
            )
    return figure


def draw_panel(axes: Axes, field: np.ndarray, limit: float) -> AxesImage | None:
    """One sample, or a labelled empty panel where there is none."""
    axes.set_xticks([])
    axes.set_yticks([])
    if np.isfinite(field).any():
        return axes.imshow(field, cmap=COLOUR_MAP, vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_aspect("equal")
    axes.set_facecolor("0.96")
    axes.text(
        0.5, 0.5, "not\nfinished", transform=axes.transAxes, ha="center", va="center", color="0.4"
    )
    return None


def mark_doubtful(axes: Axes) -> None:
    """A circle in the corner."""
    corner = {"transform": axes.transAxes, "clip_on": False}
    axes.plot(0.92, 0.92, "o", color="black", markerfacecolor="white", markersize=5, **corner)


def label_panels(panels: np.ndarray, grid: SampleGrid) -> None:
    """Temperatures above the columns, depths left of the rows."""
    for axes, temperature in zip(panels[0], grid.temperature, strict=True):
        axes.set_title(_temperature_label(temperature))
    for axes, depth in zip(panels[:, 0], grid.depth, strict=True):
        axes.set_ylabel(f"depth {depth}")


def _temperature_label(temperature: float) -> str:
    if np.isclose(temperature, CRITICAL_TEMPERATURE, rtol=0.0, atol=1e-5):
        return r"$T = T_\mathrm{c}$"
    return f"$T = {np.format_float_positional(temperature, precision=4, trim='0')}$"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[figure_arguments("fig_s2")],
    )
    parser.add_argument(
        "--sample", type=int, default=0, metavar="INDEX", help="which sample (default: 0)"
    )
    parser.add_argument(
        "--seed", type=int, help="which seed (default: the first with a finished task)"
    )
    return parser.parse_args()


def main() -> list[Path]:
    """Read, draw, save."""
    arguments = parse_arguments()
    with read_sweep(arguments.sweep, arguments.linear_size) as dataset:
        figure = draw_figure(dataset, arguments.sample, arguments.seed)
    return save_figure(figure, arguments.output, arguments.formats)


if __name__ == "__main__":
    run_script(main)
