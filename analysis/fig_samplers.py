#!/usr/bin/env python3
"""Samplers beside each other against the size of the lattice, from task files, one of each size.

(a) Integrated autocorrelation time of m², in trajectories; (b) effective samples of m² per second
of the measured trajectories, by all threads of the task. Neither training nor warm-up is counted.
Markers are hollow where the sampler's own verdict is not ok. With --program also cluster Monte
Carlo of the spins, which the program runs for it on all cores: a measurement comes after as many
clusters as flip about L² spins, and the seconds are those of the whole command. Prints a table.
"""

import argparse
import csv
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import h5py
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from figure import (
    COLOURS,
    MARKERS,
    STYLE,
    Look,
    doubtful_entry,
    draw_doubtful,
    output_arguments,
    run_script,
    save_figure,
)
from sweep import SweepError, open_task

QUANTITY = "magnetization_squared"
#: Samplers in the order of the legend, with what it calls them.
LABELS = {
    "latent": "latent HMC",
    "independence": "independence Metropolis",
    "fourier": "HMC of the field, Fourier accelerated",
    "physical": "HMC of the field",
    "wolff": "Wolff clusters of the spins",
}
HEADER = (
    "| L | sampler | tau_int of m² | ESS of m² / s | <m²> | verdict |",
    "|---|---|---|---|---|---|",
)


class Point(NamedTuple):
    """One sampler on one lattice."""

    sampler: str
    linear_size: int
    tau_int: float
    tau_int_error: float
    ess_per_second: float
    #: <m²> and its standard error.
    value: float
    error: float
    verdict: str


def read_points(path: Path) -> tuple[list[Point], float]:
    """The samplers of a task file, and its temperature.

    Raises:
        SweepError: it is no task file.
    """
    with open_task(path) as file:
        size, temperature = int(file.attrs["linear_size"]), float(file.attrs["temperature"])
        names = [name for name in LABELS if name in file["chains"]]
        return [_point(file, size, name) for name in names], temperature


def _point(file: h5py.File, size: int, sampler: str) -> Point:
    group = file["chains"][sampler]
    number = {name: float(value[()]) for name, value in group["estimates"].items()}
    seconds = float(file[f"timing/{sampler}_seconds"][()])
    return Point(
        sampler,
        size,
        number[f"{QUANTITY}_tau_int"],
        number[f"{QUANTITY}_tau_int_error"],
        number[f"{QUANTITY}_ess_bulk"] / seconds,
        number[QUANTITY],
        number[f"{QUANTITY}_error"],
        str(group.attrs["verdict"]),
    )


def run_wolff(program: Path, size: int, temperature: float, measurements: int) -> Point:
    """Cluster Monte Carlo by the program, timed as a whole.

    Raises:
        SweepError: it cannot be run, or fails.
    """
    command = [str(program), "reference", f"--linear-size={size}", f"--temperatures={temperature}"]
    command.append(f"--measurements={measurements}")
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except OSError as error:
        raise SweepError(f"{program}: cannot be run: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise SweepError(f"{' '.join(command)}: {error.stderr.strip()}") from error
    seconds = time.perf_counter() - start
    [row] = csv.DictReader(done.stdout.splitlines())
    tau_int = float(row[f"{QUANTITY}_tau_int"])
    return Point(
        "wolff",
        size,
        tau_int,
        0.0,
        measurements / (2.0 * tau_int) / seconds,
        float(row[QUANTITY]),
        float(row[f"{QUANTITY}_error"]),
        "ok",
    )


def draw_figure(points: list[Point], temperature: float) -> Figure:
    """Two panels with one curve for each sampler."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.8), layout="constrained")
        tau, rate = figure.subplots(1, 2)
        for index, sampler in enumerate(LABELS):
            curve = sorted(
                (point for point in points if point.sampler == sampler),
                key=lambda point: point.linear_size,
            )
            if curve:
                look = Look(COLOURS[index], MARKERS[index])
                draw_curve(tau, look, curve, "tau_int", LABELS[sampler])
                draw_curve(rate, look, curve, "ess_per_second", LABELS[sampler])
        tau.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
        tau.set_ylabel(r"$\tau_\mathrm{int}$ of $m^2$ (trajectories)")
        rate.set_ylabel(r"effective samples of $m^2$ per second")
        sizes = sorted({point.linear_size for point in points})
        for axes, letter in ((tau, "a"), (rate, "b")):
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(sizes)
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("linear size $L$")
            axes.set_title(f"({letter})", loc="left")
        handles, labels = tau.get_legend_handles_labels()
        if any(point.verdict != "ok" for point in points):
            hollow, words = doubtful_entry()
            handles, labels = [*handles, hollow], [*labels, words]
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        figure.suptitle(rf"$T = {temperature:.6g}\,J/k_\mathrm{{B}}$", fontsize=9)
    return figure


def draw_curve(axes: Axes, look: Look, curve: list[Point], name: str, label: str) -> None:
    """One quantity of one sampler, with error bars where there are any."""
    size = [point.linear_size for point in curve]
    value = [getattr(point, name) for point in curve]
    error = [getattr(point, f"{name}_error", 0.0) for point in curve]
    axes.errorbar(size, value, error, color=look.color, marker=look.marker, label=label)
    doubtful = [
        (x, y) for x, y, point in zip(size, value, curve, strict=True) if point.verdict != "ok"
    ]
    if doubtful:
        draw_doubtful(axes, look, *zip(*doubtful, strict=True))


def row(point: Point) -> str:
    """A row of the table."""
    verdict = point.verdict.split("; ")[0].replace("|", r"\|")
    error = f" ± {point.tau_int_error:.2f}" if point.tau_int_error else ""
    return (
        f"| {point.linear_size} | {LABELS[point.sampler]} | {point.tau_int:.2f}{error} "
        f"| {point.ess_per_second:.3g} | {point.value:.4f} ± {point.error:.4f} | {verdict} |"
    )


def main() -> list[object]:
    """Command line; returns the lines of the table and the files that were written."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[output_arguments("fig_samplers")],
    )
    parser.add_argument("tasks", nargs="+", type=Path, help="task files, DIR/tasks/*.h5")
    parser.add_argument("--program", type=Path, help="neuralrg, to run cluster Monte Carlo too")
    parser.add_argument(
        "--measurements",
        type=int,
        default=100_000,
        help="of cluster Monte Carlo on each lattice (default: %(default)s)",
    )
    arguments = parser.parse_args()
    tasks = [read_points(path) for path in arguments.tasks]
    temperatures = {temperature for _, temperature in tasks}
    if len(temperatures) > 1:
        listed = ", ".join(map(str, sorted(temperatures)))
        raise SweepError(f"the tasks have several temperatures ({listed}); give those of one")
    temperature = temperatures.pop()
    sizes = [task[0].linear_size for task, _ in tasks]
    if len(set(sizes)) < len(sizes):
        raise SweepError("several tasks are of one linear size; give one of each")
    points = [point for task, _ in tasks for point in task]
    if arguments.program:
        points += [
            run_wolff(arguments.program, size, temperature, arguments.measurements)
            for size in sizes
        ]
    order = list(LABELS)
    points.sort(key=lambda point: (point.linear_size, order.index(point.sampler)))
    figure = draw_figure(points, temperature)
    written = save_figure(figure, arguments.output, arguments.formats)
    return [*HEADER, *map(row, points), *written]


if __name__ == "__main__":
    run_script(main)
