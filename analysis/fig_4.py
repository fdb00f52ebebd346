#!/usr/bin/env python3
"""Figure 4: what the latent variables of one task stand for.

(a) Mean responses E[dz/dx] of latent variables to the field, one of each kind, from the top level
down; each image is centred on the site of its latent variable and has its own scale, whose end
stands above it. (b, c) Mutual information of all pairs of latent variables, top level first with
white lines between the levels, and of field variables; the diagonal is grey. Where it is lost in
the noise of independent variables it has the darkest colour. (d) Means over all pairs of equal
distance.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, NullFormatter

from figure import COLOURS, STYLE, run_script, save_figure, with_error
from study import Study, describe_task, most_telling, read_studies, study_parser

COLOUR_MAP = "RdBu_r"

#: Levels with a smaller share of the axis have no room for their number.
LABELLED_SHARE = 0.04

#: Noise that single estimates of the mutual information are shown above, in standard deviations.
NOISE_DEVIATIONS = 3.0


def draw_figure(responses: Study, information: Study) -> Figure:
    """All panels from the two studies of one task."""
    rows = len(np.unique(responses.arrays["latent_level"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, max(1.05 * rows + 1.5, 4.8)), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=[1.0, 1.7])
        draw_responses(left, responses)
        mosaic = right.subplot_mosaic([["b", "c"], ["d", "d"]], height_ratios=[1.3, 1.0])
        floor = noise_floor(information)
        image = draw_matrix(mosaic["b"], information, "latent", floor)
        draw_matrix(mosaic["c"], information, "field", floor)
        label_levels(mosaic["b"], information)
        bar = right.colorbar(
            image,
            ax=[mosaic["b"], mosaic["c"]],
            extend="min",
            ticks=LogLocator(subs=(1.0, 2.0, 5.0)),
            format="%g",
        )
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        bar.set_label(
            "mutual information (nat),\n"
            rf"darkest: lost in noise (${NOISE_DEVIATIONS:g}\sigma$)"
        )
        draw_distances(mosaic["d"], information)
        figure.suptitle(describe_task(responses), fontsize=STYLE["axes.titlesize"])
    return figure


def draw_sweep(sweep: Path, task: str | None = None, linear_size: int | None = None) -> Figure:
    """The figure of the named task of a sweep, or of the deepest one nearest to T_c."""
    named = [task] if task else []
    responses = most_telling(read_studies(sweep, "responses", named, linear_size))
    (information,) = read_studies(sweep, "mutual_information", [responses.task])
    return draw_figure(responses, information)


def draw_responses(figure: SubFigure, study: Study) -> None:
    """One row of images for each level."""
    levels = study.arrays["latent_level"].astype(int)
    order = sorted(set(levels), reverse=True)
    columns = max(np.sum(levels == level) for level in order)
    panels = figure.subplots(len(order), columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for row, level in enumerate(order):
        for column, index in enumerate(np.flatnonzero(levels == level)):
            draw_response(panels[row, column], study, index)
        panels[row, 0].text(
            -0.12,
            0.5,
            f"level {level}",
            rotation=90,
            transform=panels[row, 0].transAxes,
            ha="right",
            va="center",
        )
    scale = ScalarMappable(Normalize(-1.0, 1.0), COLOUR_MAP)
    bar = figure.colorbar(scale, ax=panels, location="bottom", aspect=30, ticks=[-1.0, 0.0, 1.0])
    bar.set_label(
        "response, in units of the largest of its image,\nwhich stands above it with its error"
    )
    figure.suptitle(
        r"(a) responses $\mathbb{E}[\partial z\,/\,\partial x]$ around the site of $z$",
        fontsize=9,
        x=0.02,
        ha="left",
    )


def draw_response(axes: Axes, study: Study, index: int) -> None:
    """One image, its latent variable's site in the middle, its largest value in the title."""
    shift = [
        study.linear_size // 2 - int(study.arrays[f"latent_{axis}"][index])
        for axis in ("row", "column")
    ]
    response, error = (
        np.roll(study.arrays[name][index], shift, axis=(0, 1))
        for name in ("response", "response_error")
    )
    largest = np.unravel_index(np.abs(response).argmax(), response.shape)
    limit = abs(response[largest]) or 1.0
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.imshow(response, cmap=COLOUR_MAP, vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_title(with_error(response[largest], error[largest], digits=1), fontsize=7, pad=2)


def noise_floor(study: Study) -> float:
    """What estimates for independent variables hardly exceed."""
    names = ("latent_information_independent", "field_information_independent")
    spread = np.concatenate([study.arrays[name] for name in names])
    return NOISE_DEVIATIONS * float(np.sqrt(np.mean(spread**2)))


def draw_matrix(axes: Axes, study: Study, kind: str, floor: float) -> ScalarMappable:
    """All pairs but the diagonal; of latent variables the top level first."""
    information = study.arrays[f"{kind}_information"]
    if kind == "latent":
        order = np.argsort(-study.arrays["latent_level"], kind="stable")
        information = information[np.ix_(order, order)]
    both = [study.arrays[f"{which}_information"] for which in ("latent", "field")]
    largest = max(float(np.nanmax(values)) for values in both)
    norm = LogNorm(floor, max(largest, 2.0 * floor))
    colours = mpl.colormaps["cividis"].with_extremes(bad="0.8")
    image = axes.imshow(np.maximum(information, 0.99 * floor), cmap=colours, norm=norm)
    axes.set_xlabel(f"{kind} variable")
    axes.set_ylabel(f"{kind} variable")
    letter = {"latent": "b", "field": "c"}[kind]
    axes.set_title(f"({letter}) pairs of {kind} variables", loc="left")
    return image


def label_levels(axes: Axes, study: Study) -> None:
    """White lines between the levels, and their numbers in place of those of the variables."""
    levels = np.sort(study.arrays["latent_level"])[::-1]
    for boundary in np.flatnonzero(np.diff(levels)) + 0.5:
        axes.axhline(boundary, color="white", linewidth=0.5)
        axes.axvline(boundary, color="white", linewidth=0.5)
    wide = [level for level in np.unique(levels) if np.mean(levels == level) > LABELLED_SHARE]
    middles = [np.flatnonzero(levels == level).mean() for level in wide]
    for axis, name in ((axes.xaxis, axes.set_xlabel), (axes.yaxis, axes.set_ylabel)):
        axis.set_ticks(middles, [f"{level:.0f}" for level in wide])
        axis.set_tick_params(length=0)
        name("latent variable, by its level")


def draw_distances(axes: Axes, study: Study) -> None:
    """Both means against distance, with error bars."""
    distance = study.arrays["distance"]
    linear = noise_floor(study) / NOISE_DEVIATIONS
    axes.set_yscale("symlog", linthresh=linear)
    for kind, colour, marker in (("field", COLOURS[1], "s"), ("latent", COLOURS[0], "o")):
        axes.errorbar(
            distance[1:],
            study.arrays[f"{kind}_information_mean"][1:],
            study.arrays[f"{kind}_information_mean_error"][1:],
            fmt=f"{marker}-",
            color=colour,
            markersize=3,
            linewidth=0.8,
            label=f"{kind} variables",
        )
    axes.axhline(0.0, color="black", linewidth=0.6, linestyle=":")
    # No marker is cut by the frame.
    axes.margins(y=0.1)
    axes.set_xlabel("distance (lattice sites)")
    axes.set_ylabel("mutual information (nat)")
    axes.legend()
    axes.set_title(
        rf"(d) mean over pairs of equal distance (linear between $\pm{linear:.2g}$ nat)", loc="left"
    )


def main() -> list[Path]:
    """Read, draw, save."""
    arguments = study_parser("fig_4", __doc__).parse_args()
    figure = draw_sweep(arguments.sweep, arguments.task, arguments.linear_size)
    return save_figure(figure, arguments.output, arguments.formats)


if __name__ == "__main__":
    run_script(main)
