#!/usr/bin/env python3
"""Figure 3: one task during its training.

(a) Relative error of the variational free energy of each batch; (b) the uniform structure factor
<m^2> by HMC in the latent space of the flow at that step, and by HMC of the field from a cold
start, which takes as many trajectories; (c) the same against wall time, where the training counts
for the latent space. The line is `neuralrg reference`.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import h5py
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figure import COLOURS, STYLE, figure_arguments, run_script, save_figure
from reference import read_reference
from sweep import SweepError, arrays_of, follow_link, linked_names, read_sizes

QUANTITY = "magnetization_squared"

#: Batches whose errors are averaged to one point of the curve.
POINTS = 200


class Course(NamedTuple):
    """What a task measured during its training. Shapes: (step) and (measurement)."""

    name: str
    relative_error: np.ndarray
    steps: np.ndarray
    seconds: dict[str, np.ndarray]
    value: dict[str, np.ndarray]
    error: dict[str, np.ndarray]
    temperature: float
    linear_size: int


def read_course(sweep: Path, task: str | None = None, linear_size: int | None = None) -> Course:
    """The named task of a sweep, or its first one that measured during the training.

    `linear_size` chooses among the tasks of one lattice.

    Raises:
        SweepError: no such task, or none that measured.
    """
    sizes = read_sizes(sweep, linear_size)
    with h5py.File(sweep) as file:
        tasks = file["tasks"]
        names = linked_names(tasks, sizes)
        for name in [task] if task else names:
            if name not in names:
                raise SweepError(f"{sweep}: has no task {name}; it has {', '.join(names)}")
            group = follow_link(sweep, tasks, name)
            if "course" in group:
                return _course(name, group)
    raise SweepError(
        f"{sweep}: no task measured during its training; set train.measure_every, as "
        "configs/fig3.toml does"
    )


def _course(name: str, group: h5py.Group) -> Course:
    course = arrays_of(group["course"])
    exact = group["references/free_energy_exact"][()]
    samplers = ("latent", "physical")
    seconds = {sampler: course[f"{sampler}_seconds"] for sampler in samplers}
    seconds["latent"] = seconds["latent"] + course["train_seconds"]
    return Course(
        name=name,
        relative_error=(np.asarray(group["train/loss"]) - exact) / abs(exact),
        steps=course["step"],
        seconds=seconds,
        value={sampler: course[f"{sampler}_{QUANTITY}"] for sampler in samplers},
        error={sampler: course[f"{sampler}_{QUANTITY}_error"] for sampler in samplers},
        temperature=float(group.attrs["temperature"]),
        linear_size=int(group.attrs["linear_size"]),
    )


def reference_at(path: Path, temperature: float) -> tuple[float, float]:
    """<m^2> and its error at one temperature, from the output of `neuralrg reference`.

    Raises:
        SweepError: the file cannot be used, or lacks the temperature.
    """
    curve = read_reference(path, [QUANTITY])[QUANTITY]
    here = np.flatnonzero(np.isclose(curve.temperature, temperature, rtol=0.0, atol=1e-9))
    if not here.size:
        raise SweepError(f"{path}: has no temperature {temperature}")
    return float(curve.value[here[0]]), float(curve.error[here[0]])


def draw_figure(course: Course, reference: tuple[float, float] | None = None) -> Figure:
    """Three panels beside each other."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 2.9), layout="constrained")
        loss, steps, time = figure.subplots(1, 3)
        draw_loss(loss, course.relative_error)
        shared = {sampler: course.steps for sampler in course.value}
        for axes, abscissas in ((steps, shared), (time, course.seconds)):
            draw_observable(axes, course, abscissas, reference)
        steps.set_xlabel("training step")
        time.set_xlabel("wall time (s), training included")
        time.set_xscale("log")
        steps.legend(fontsize=7)
        for axes, letter in zip((loss, steps, time), "abc", strict=True):
            axes.set_title(f"({letter})", loc="left")
        size = course.linear_size
        title = rf"${size}\times{size}$ lattice, $T = {course.temperature:.6g}\,J/k_\mathrm{{B}}$"
        figure.suptitle(title, fontsize=9)
    return figure


def draw_loss(axes: Axes, relative_error: np.ndarray) -> None:
    """Means over consecutive batches with their standard errors."""
    parts = np.array_split(np.arange(len(relative_error)), min(POINTS, len(relative_error)))
    mean = np.array([relative_error[part].mean() for part in parts])
    error = np.array([relative_error[part].std() / np.sqrt(len(part)) for part in parts])
    middle = np.array([part.mean() + 1.0 for part in parts])
    axes.errorbar(middle, mean, error, fmt=".", markersize=3, color=COLOURS[0], elinewidth=0.6)
    axes.set_yscale("log", nonpositive="mask")
    axes.set_xlabel("training step")
    axes.set_ylabel(r"$(F - F_\mathrm{exact})\,/\,|F_\mathrm{exact}|$")


def draw_observable(
    axes: Axes,
    course: Course,
    abscissas: dict[str, np.ndarray],
    reference: tuple[float, float] | None,
) -> None:
    """Both samplers with error bars, and the reference with its own as a band."""
    labels = {"latent": "latent HMC", "physical": "HMC of the field, cold start"}
    for sampler, colour, marker in zip(labels, COLOURS, "os", strict=False):
        axes.errorbar(
            abscissas[sampler],
            course.value[sampler],
            course.error[sampler],
            fmt=f"{marker}-",
            color=colour,
            label=labels[sampler],
            markersize=3,
            linewidth=0.8,
        )
    if reference is not None:
        value, error = reference
        axes.axhline(value, color="black", linestyle="--", linewidth=0.8, label="Wolff clusters")
        axes.axhspan(value - error, value + error, color="black", alpha=0.15)
    axes.set_ylabel(r"$\langle m^2\rangle = S(0)/N$")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[figure_arguments("fig_3")],
    )
    parser.add_argument("--reference", type=Path, metavar="CSV", help="of `neuralrg reference`")
    parser.add_argument("--task", help="which task (default: the first that measured)")
    return parser.parse_args()


def main() -> list[Path]:
    """Read, draw, save."""
    arguments = parse_arguments()
    course = read_course(arguments.sweep, arguments.task, arguments.linear_size)
    reference = arguments.reference and reference_at(arguments.reference, course.temperature)
    return save_figure(draw_figure(course, reference), arguments.output, arguments.formats)


if __name__ == "__main__":
    run_script(main)
