#!/usr/bin/env python3
"""The flow as a renormalization group.

(a) One sample of a task: the fields that are kept at each level, each on its own scale, and the
fields with the latent variables of all finer levels set to zero, all on one scale. (b) A walk along
a great circle in latent space from one sample to another, and (c) the energies on the way beside
those of the straight line between both fields. (d) Effective couplings of the kept variables y,
scaled to a mean square of 1, against the level, one curve for each temperature: least squares of
-ln q(y) by r sum y^2/2 - J sum_nn y y' + u sum y^4; and R^2, how much of it these terms explain. A
single variable has no J. Markers are hollow where the task's verdict is not ok.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage

from figure import (
    COLOURS,
    MARKERS,
    STYLE,
    Look,
    doubtful_entry,
    draw_doubtful,
    run_script,
    save_figure,
)
from study import Study, describe_task, most_telling, read_studies, study_parser

COLOUR_MAP = "RdBu_r"
SCALE_QUANTILE = 0.995
#: Fields shown of a walk.
WALK_IMAGES = 9

COUPLINGS = {
    "mass": r"$r\,\langle y^2\rangle$",
    "coupling": r"$J\,\langle y^2\rangle$",
    "quartic": r"$u\,\langle y^2\rangle^2$",
    "explained": r"$R^2$",
}


def draw_figure(study: Study, others: Sequence[Study], sample: int = 0) -> Figure:
    """All panels: fields of one task, couplings of several that differ in temperature alone."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 8.6), layout="constrained")
        top, middle, bottom = figure.subfigures(3, 1, height_ratios=[2.3, 2.6, 2.2])
        draw_levels(top, study, sample)
        draw_walk(middle, study)
        draw_couplings(bottom, others)
        figure.suptitle(describe_task(study), fontsize=STYLE["axes.titlesize"])
    return figure


def draw_sweep(sweep: Path, task: str | None = None, linear_size: int | None = None) -> Figure:
    """The figure of the named task of a sweep, or of the deepest one nearest to T_c."""
    studies = read_studies(sweep, "coarse", linear_size=linear_size)
    study = most_telling(read_studies(sweep, "coarse", [task], linear_size) if task else studies)
    return draw_figure(study, same_but_temperature(studies, study))


def draw_levels(figure: SubFigure, study: Study, sample: int) -> None:
    """Kept fields above, fields without finer details below, from the top level down."""
    levels = study.arrays["level"].astype(int)
    above, below = figure.subplots(2, len(levels), squeeze=False)
    kept, blurred = (study.arrays[name][:, sample] for name in ("kept", "blurred"))
    for axes, level, field in zip(above, levels, kept, strict=True):
        # Kept variables of different levels have different magnitudes.
        largest = np.abs(field).max()
        draw_field(axes, field, largest)
        axes.set_title(rf"level {level}: $|y| \leq {largest:.2g}$")
    draw_fields(figure, below, blurred)
    figure.colorbar(
        ScalarMappable(Normalize(-1.0, 1.0), COLOUR_MAP),
        ax=above,
        ticks=[-1.0, 0.0, 1.0],
        label=r"$y\,/\,\max|y|$",
        aspect=10,
    )
    above[0].set_ylabel("kept $y$")
    below[0].set_ylabel("field $x$")
    figure.suptitle(
        "(a) one sample: what each level keeps, and the field that it makes",
        x=0.01,
        ha="left",
        size=9,
    )


def draw_fields(figure: SubFigure, panels: Sequence[Axes], fields: np.ndarray) -> None:
    """A row of fields on one scale, with its colour bar."""
    limit = float(np.quantile(np.abs(fields), SCALE_QUANTILE))
    for axes, field in zip(panels, fields, strict=True):
        image = draw_field(axes, field, limit)
    over = np.abs(fields).max() > limit
    figure.colorbar(
        image, ax=panels, label="field $x$", aspect=10, extend="both" if over else "neither"
    )


def draw_field(axes: Axes, field: np.ndarray, limit: float) -> AxesImage:
    """One field without ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(
        field, cmap=COLOUR_MAP, vmin=-limit or -1.0, vmax=limit or 1.0, interpolation="nearest"
    )


def draw_walk(figure: SubFigure, study: Study) -> None:
    """Fields above, energies below."""
    fraction, fields = study.arrays["walk_fraction"], study.arrays["walk"]
    shown = np.unique(np.linspace(0, len(fraction) - 1, WALK_IMAGES).round().astype(int))
    images, energies = figure.subfigures(2, 1, height_ratios=[1.0, 1.5])
    panels = images.subplots(1, len(shown))
    for axes, step in zip(panels, shown, strict=True):
        axes.set_title(f"{fraction[step]:.3g}", fontsize=8, pad=2)
    draw_fields(images, panels, fields[shown])
    images.suptitle(
        "(b) a walk along a great circle in latent space; above the fields: fraction of the way",
        x=0.01,
        ha="left",
        size=9,
    )
    axes = energies.subplots()
    for name, label, colour, marker in (
        ("walk_energy", "great circle in latent space", COLOURS[0], "o"),
        ("straight_energy", "straight line between the fields", COLOURS[1], "s"),
    ):
        axes.plot(
            fraction, study.arrays[name], f"{marker}-", color=colour, label=label, markersize=3
        )
    axes.set_xlabel("fraction of the way")
    axes.set_ylabel(r"$-\ln\pi(x)$ (nat)")
    axes.set_title("(c) energies on the way", loc="left")
    axes.legend()


def draw_couplings(figure: SubFigure, studies: Sequence[Study]) -> None:
    """One panel for each coupling, one curve for each temperature."""
    panels = figure.subplots(1, len(COUPLINGS))
    colours = mpl.colormaps["cividis"](np.linspace(0.0, 0.9, len(studies)))
    for axes, (name, label) in zip(panels, COUPLINGS.items(), strict=True):
        for index, (study, colour) in enumerate(zip(studies, colours, strict=True)):
            axes.errorbar(
                study.arrays["level"],
                study.arrays[name],
                study.arrays[f"{name}_error"],
                fmt=f"{MARKERS[index % len(MARKERS)]}-",
                color=colour,
                markersize=3.5,
                linewidth=0.8,
                label=f"{study.temperature:.4g}",
            )
            if study.problems:
                look = Look(colour, MARKERS[index % len(MARKERS)])
                draw_doubtful(axes, look, study.arrays["level"], study.arrays[name], 3.5)
        axes.set_xlabel("level")
        axes.set_ylabel(label)
        axes.set_xticks(studies[0].arrays["level"])
    handles, labels = panels[-1].get_legend_handles_labels()
    if any(study.problems for study in studies):
        handle, label = doubtful_entry()
        handles, labels = [*handles, handle], [*labels, label.replace(": ", ":\n")]
    figure.legend(
        handles,
        labels,
        loc="outside right center",
        title=r"$T$ ($J/k_\mathrm{B}$)",
        fontsize=7,
        title_fontsize=7,
    )
    figure.suptitle("(d) effective couplings of the kept variables", x=0.01, ha="left", size=9)


def same_but_temperature(studies: Sequence[Study], study: Study) -> list[Study]:
    """Those of the same lattice, depth and seed, by temperature."""
    same = (study.linear_size, study.depth, study.seed)
    alike = [other for other in studies if (other.linear_size, other.depth, other.seed) == same]
    return sorted(alike, key=lambda other: other.temperature)


def main() -> list[Path]:
    """Read, draw, save."""
    arguments = study_parser("fig_rg", __doc__).parse_args()
    figure = draw_sweep(arguments.sweep, arguments.task, arguments.linear_size)
    return save_figure(figure, arguments.output, arguments.formats)


if __name__ == "__main__":
    run_script(main)
