#!/usr/bin/env python3
"""Figure S1: error of the variational free energy against temperature, one curve per depth.

Error bars are one standard error (analysis/sweep.py says how seeds are combined). A gap is
never negative in truth, but an estimate can be; on the logarithmic axis such a point is drawn as
an upper bound, two standard errors above the estimate. Markers are hollow where a task's verdict is
not ok. At L = 32 the sweep of Li and Wang lies behind ours: pale, with dashed lines and with larger
markers, so that it shows where both agree.
"""

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

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
    warn,
)
from sweep import (
    Curve,
    depth_curves,
    describe_lattice,
    describe_progress,
    has_problems,
    read_sweep,
    require_variables,
)

PUBLISHED = Path(__file__).parent / "data" / "published_s1.csv"
PUBLISHED_LINEAR_SIZE = 32
PUBLISHED_BATCH = 512

#: Published markers lie around ours, and are told from hollow ones by this share of their colour.
PUBLISHED_MARKER_SIZE = 6.5
PALE_SHARE = 0.35

#: An upper bound is drawn this many standard errors above a non-positive estimate.
BOUND_ERRORS = 2.0

#: Least ratio of the ends of the logarithmic axis: two of 1, 2, 5, 10 always fit in.
LEAST_LOG_SPAN = 6.5


class Quantity(NamedTuple):
    """One of the three ways to state the gap F_variational - F_exact."""

    variable: str
    published_column: str
    label: str


QUANTITIES = {
    "relative": Quantity(
        "relative_error",
        "relative_error",
        r"relative free-energy error, $(F-F_\mathrm{exact})/|F_\mathrm{exact}|$",
    ),
    "per-site": Quantity(
        "gap_per_site", "gap_per_site", r"free-energy gap per site, $(F-F_\mathrm{exact})/N$ (nats)"
    ),
    "nats": Quantity("gap", "gap_nats", r"free-energy gap, $F-F_\mathrm{exact}$ (nats)"),
}


def is_bound(curve: Curve) -> np.ndarray:
    """Where a logarithmic axis can only show an upper bound. Shape: (num_temperatures,)."""
    return np.isfinite(curve.value) & (curve.value <= 0.0)


def bound(curve: Curve) -> np.ndarray:
    """The upper bound on the true value; never below zero in truth, but this may be."""
    return curve.value + BOUND_ERRORS * np.nan_to_num(curve.error)


def gaussian_curve(dataset: xr.Dataset, quantity: Quantity) -> Curve:
    """The yardstick: what a Z2-mixed pair of shifted Gaussians reaches with no network."""
    require_variables(
        dataset, ["relative_error_gaussian", "free_energy_gaussian", "free_energy_exact"]
    )
    dataset = dataset.sortby("temperature")
    gap = dataset["free_energy_gaussian"] - dataset["free_energy_exact"]
    value = {
        "relative_error": dataset["relative_error_gaussian"],
        "gap_per_site": gap / int(dataset.attrs["linear_size"]) ** 2,
        "gap": gap,
    }[quantity.variable]
    return Curve(dataset["temperature"].values, value.values, np.zeros(value.size))


def published_curves(quantity: Quantity, path: Path = PUBLISHED) -> dict[int, Curve]:
    """The authors' own sweep at L = 32, by depth.

    The error is that of the mean over their last batch, std / sqrt(512), in the unit of the
    quantity (nats, nats per site, or relative to |F_exact|).
    """
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["L"]) == PUBLISHED_LINEAR_SIZE]
    by_depth: dict[int, list[tuple[float, float, float]]] = {}
    for row in rows:
        value = float(row[quantity.published_column])
        nats = float(row["std_of_last_batch_512"]) / np.sqrt(PUBLISHED_BATCH)
        unit = {
            "relative_error": abs(float(row["F_exact"])),
            "gap_per_site": PUBLISHED_LINEAR_SIZE**2,
            "gap": 1.0,
        }[quantity.variable]
        by_depth.setdefault(int(row["depth"]), []).append((float(row["T"]), value, nats / unit))
    return {depth: Curve(*np.array(sorted(points)).T) for depth, points in sorted(by_depth.items())}


def draw_figure(
    dataset: xr.Dataset, quantity: Quantity, scale: str = "log", with_published: bool = True
) -> Figure:
    """The whole figure from an opened sweep.

    `with_published` has an effect at L = 32 only, where there are published values.
    """
    curves = depth_curves(dataset, quantity.variable)
    gaussian = gaussian_curve(dataset, quantity)
    published = {}
    if with_published and int(dataset.attrs["linear_size"]) == PUBLISHED_LINEAR_SIZE:
        every_depth = published_curves(quantity)
        published = {depth: curve for depth, curve in every_depth.items() if depth in curves}

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.set_yscale(scale)
        draw_gaussian(axes, gaussian)
        for depth, curve in published.items():
            draw_published(axes, depth, curve)
        doubtful = {depth: has_problems(dataset, depth) for depth in curves}
        bounds = [
            draw_depth(axes, depth, curve, doubtful[depth], scale)
            for depth, curve in curves.items()
        ]
        everything = [*curves.values(), gaussian, *published.values()]
        set_limits(axes, everything, scale)
        mark_critical_temperature(axes)
        axes.set_ylabel(quantity.label)
        title = f"{describe_lattice(dataset)}, {describe_progress(dataset)}"
        axes.set_title(title, loc="left")
        others = [published_entry()] if published else []
        others += [bound_entry()] if any(bounds) else []
        others += [doubtful_entry()] if np.any(list(doubtful.values())) else []
        draw_legend(figure, axes, *others)
    return figure


def draw_depth(axes: Axes, depth: int, curve: Curve, doubtful: np.ndarray, scale: str) -> bool:
    """One measured curve with its error bars; whether some of it could only be bounded."""
    look = depth_look(depth)
    on_log = scale == "log"
    bounded = is_bound(curve) if on_log else np.zeros(curve.value.shape, dtype=bool)
    value = np.where(bounded, np.nan, curve.value)
    axes.errorbar(
        curve.temperature,
        value,
        curve.error,
        color=look.color,
        marker=look.marker,
        label=depth_label(depth, curve),
        zorder=3,
    )
    drawable = bounded & (bound(curve) > 0.0)
    shown = np.where(drawable, bound(curve), value)
    for temperature in curve.temperature[bounded & ~drawable]:
        warn(
            f"depth {depth}, T = {temperature:g}: the gap is negative by more than "
            f"{BOUND_ERRORS:g} standard errors and cannot be drawn on a logarithmic axis; "
            "use --scale linear"
        )
    if drawable.any():
        draw_bounds(axes, depth, curve.temperature[drawable], shown[drawable])
    draw_doubtful(axes, look, curve.temperature[doubtful], shown[doubtful])
    return bool(drawable.any())


def draw_bounds(axes: Axes, depth: int, temperature: np.ndarray, bound: np.ndarray) -> None:
    """Upper bounds: markers with an arrow pointing down, not joined to the curve."""
    look = depth_look(depth)
    axes.errorbar(
        temperature,
        bound,
        # 60 % of the value is the same arrow length everywhere on a logarithmic axis.
        0.6 * bound,
        uplims=True,
        color=look.color,
        marker=look.marker,
        linestyle="none",
        label="_bound",
        zorder=3,
    )


def draw_gaussian(axes: Axes, curve: Curve) -> None:
    """The Gaussian yardstick. The marker keeps it visible with one temperature."""
    axes.plot(
        curve.temperature,
        curve.value,
        color="black",
        linestyle=(0, (1, 1.5)),
        marker="x",
        markersize=4,
        label="Gaussians, no network",
        zorder=2,
    )


def draw_published(axes: Axes, depth: int, curve: Curve) -> None:
    """A published curve: pale and dashed, in the colour of its depth, its markers around ours."""
    look = depth_look(depth)
    axes.errorbar(
        curve.temperature,
        curve.value,
        curve.error,
        color=look.color,
        marker=look.marker,
        markersize=PUBLISHED_MARKER_SIZE,
        markerfacecolor=pale(look.color),
        markeredgewidth=0.7,
        linestyle="--",
        linewidth=0.8,
        label=f"_published depth {depth}",
        zorder=2.5,
    )


def set_limits(axes: Axes, curves: list[Curve], scale: str) -> None:
    """Axis limits from the data, so that neither empty points nor clipped error bars set them."""
    set_temperature_axis(axes, np.concatenate([curve.temperature for curve in curves]))
    if scale != "log":
        axes.axhline(0.0, color="0.7", linewidth=0.6, zorder=1)
        return
    lows, highs = [], []
    for curve in curves:
        error = np.nan_to_num(curve.error)
        shown = np.where(is_bound(curve), bound(curve), curve.value)
        # An error bar that reaches towards zero may leave the axis, at a third of its value.
        low = np.where(is_bound(curve), 0.4 * shown, np.maximum(shown - error, shown / 3.0))
        high = np.where(is_bound(curve), shown, shown + error)
        visible = np.isfinite(shown) & (shown > 0.0)
        lows.extend(low[visible])
        highs.extend(high[visible])
    if lows:
        low, high = min(lows) / 1.3, max(highs) * 1.3
        widen = max(1.0, np.sqrt(LEAST_LOG_SPAN * low / high))
        axes.set_ylim(low / widen, high * widen)
        label_log_axis(axes)


def label_log_axis(axes: Axes) -> None:
    """Plain numbers at 1, 2 and 5 of each decade, where the axis spans few of them."""
    low, high = axes.get_ylim()
    if high / low > 300.0:
        return
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def published_entry() -> tuple[Line2D, str]:
    """What the legend says of the published curves."""
    handle = Line2D([], [], color="0.4", marker="o", ls="--", lw=0.8, mew=0.7)
    handle.set(markersize=PUBLISHED_MARKER_SIZE, markerfacecolor=pale("0.4"))
    return handle, "published, same depth\n(Li and Wang 2018)"


def bound_entry() -> tuple[Line2D, str]:
    """What the legend says of the arrows."""
    handle = Line2D([], [], color="0.4", marker=r"$\downarrow$", ms=7, ls="none")
    return handle, rf"upper bound, ${BOUND_ERRORS:g}\sigma$"


def pale(colour: str) -> tuple[float, float, float]:
    """The colour, mostly white."""
    return tuple(1.0 - PALE_SHARE * (1.0 - channel) for channel in to_rgb(colour))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[figure_arguments("fig_s1")],
    )
    parser.add_argument(
        "--scale", choices=("log", "linear"), default="log", help="error axis (default: log)"
    )
    parser.add_argument(
        "--quantity",
        choices=tuple(QUANTITIES),
        default="relative",
        help="gap relative to |F_exact| as in the paper, per site, or in nats (default: relative)",
    )
    parser.add_argument(
        "--no-published",
        action="store_true",
        help="without the published curves, which are drawn for L = 32 only",
    )
    return parser.parse_args()


def main() -> list[Path]:
    """Read, draw, save."""
    arguments = parse_arguments()
    with read_sweep(arguments.sweep, arguments.linear_size) as dataset:
        figure = draw_figure(
            dataset, QUANTITIES[arguments.quantity], arguments.scale, not arguments.no_published
        )
    return save_figure(figure, arguments.output, arguments.formats)


if __name__ == "__main__":
    run_script(main)
