#!/usr/bin/env python3
"""Figure 4: what the latent variables of one task stand for.

(a) Mean responses E[dz/dx] of latent variables to the field, one of each kind, from the top level
down; each image is centred on the site of its latent variable and has its own scale. (b, c) Mutual
information of all pairs of latent variables, top level first, and of field variables. Where it is
lost in the noise of independent variables it has the darkest colour. (d) Means over all pairs of
equal distance.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure

from figure import COLOURS, STYLE, run_script, save_figure, with_error
from study import Study, describe_task, most_telling, read_studies, study_parser

#: Noise that single estimates of the mutual information are shown above, in standard deviations.
NOISE_DEVIATIONS = 3.0


def draw_figure(responses: Study, information: Study) -> Figure:
    """All panels from the two studies of one task."""
    rows = len(np.unique(responses.arrays["latent_level"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, max(1.05 * rows + 0.6, 4.8)), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=[1.0, 1.7])
        draw_responses(left, responses)
        mosaic = right.subplot_mosaic([["b", "c"], ["d", "d"]], height_ratios=[1.3, 1.0])
        floor = noise_floor(information)
        image = draw_matrix(mosaic["b"], information, "latent", floor)
        draw_matrix(mosaic["c"], information, "field", floor)
        bar = right.colorbar(image, ax=[mosaic["b"], mosaic["c"]], extend="min", shrink=0.8)
        bar.set_label("mutual information (nat)")
        draw_distances(mosaic["d"], information)
        figure.suptitle(describe_task(responses), fontsize=STYLE["axes.titlesize"])
    return figure


def draw_sweep(sweep: Path, task: str | None = None) -> Figure:
    """The figure of the named task of a sweep, or of the deepest one nearest to T_c."""
    responses = most_telling(read_studies(sweep, "responses", [task] if task else []))
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
    figure.suptitle(r"(a) $\mathbb{E}[\partial z\,/\,\partial x]$", fontsize=9, x=0.02, ha="left")


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
    axes.imshow(response, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_title(with_error(response[largest], error[largest], digits=1), fontsize=7, pad=2)


def noise_floor(study: Study) -> float:
    """What estimates for independent variables hardly exceed."""
    names = ("latent_information_independent", "field_information_independent")
    spread = np.concatenate([study.arrays[name] for name in names])
    return NOISE_DEVIATIONS * float(np.sqrt(np.mean(spread**2)))


def draw_matrix(axes: Axes, study: Study, kind: str, floor: float) -> ScalarMappable:
    """All pairs; of latent variables the top level first, with lines between the levels."""
    information = study.arrays[f"{kind}_information"]
    letter, name = {"latent": ("b", "latent variable"), "field": ("c", "field variable")}[kind]
    if kind == "latent":
        levels = study.arrays["latent_level"]
        order = np.argsort(-levels, kind="stable")
        information = information[np.ix_(order, order)]
        for boundary in np.flatnonzero(np.diff(levels[order])) + 0.5:
            axes.axhline(boundary, color="white", linewidth=0.5)
            axes.axvline(boundary, color="white", linewidth=0.5)
    both = [study.arrays[f"{which}_information"] for which in ("latent", "field")]
    largest = max(float(np.nanmax(values)) for values in both)
    norm = LogNorm(floor, max(largest, 2.0 * floor))
    image = axes.imshow(np.fmax(information, floor * 0.99), cmap="cividis", norm=norm)
    axes.set_xlabel(name)
    axes.set_ylabel(name)
    axes.set_title(f"({letter})", loc="left")
    return image


def draw_distances(axes: Axes, study: Study) -> None:
    """Both means against distance, with error bars."""
    distance = study.arrays["distance"]
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
    axes.set_yscale("symlog", linthresh=noise_floor(study) / NOISE_DEVIATIONS)
    axes.set_xlabel("distance (lattice sites)")
    axes.set_ylabel("mutual information (nat)")
    axes.legend()
    axes.set_title("(d) mean over pairs", loc="left")


def main() -> list[Path]:
    """Read, draw, save."""
    arguments = study_parser("fig_4", __doc__).parse_args()
    figure = draw_sweep(arguments.sweep, arguments.task)
    return save_figure(figure, arguments.output, arguments.formats)


if __name__ == "__main__":
    run_script(main)
