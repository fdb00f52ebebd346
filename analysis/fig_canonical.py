#!/usr/bin/env python3
"""Modes of a canonical transformation, from a file of `neuralrg canonical`.

(a) Frequencies, with the exact ones of a harmonic chain; error bars are the spread between seeds.
(b) Responses dQ_k/dq_i of the slowest modes; of two coordinates samples, and paths along both modes
from z = -3 to 3, the other at rest, with a marker at each whole z. (c) Mutual information of modes
and angles, or overlaps with sine waves, a chain's exact modes. Prints a table in Markdown.
"""

import argparse
import tomllib
from pathlib import Path
from typing import NamedTuple

import h5py
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figure import STYLE, depth_look, output_arguments, run_script, save_figure, with_error
from sweep import SweepError, arrays_of

FORMAT = "neuralrg-canonical"
MODES_FORMAT = "neuralrg-modes"
SLOWEST = 4
PANEL_INCHES = 3.1


class Canonical(NamedTuple):
    """What is drawn: arrays of the group `modes` by their names, and samples of the flow."""

    is_chain: bool
    modes: dict[str, np.ndarray]
    samples: np.ndarray
    angles: list[str]

    def measured(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """An array of `modes` and its errors; NaN where the file has none."""
        unknown = np.full_like(self.modes[name], np.nan)
        return self.modes[name], self.modes.get(f"{name}_error", unknown)


def read_canonical(path: Path) -> Canonical:
    """Read a file of `neuralrg canonical`.

    Raises:
        SweepError: it is not one, not finished or damaged.
    """
    try:
        with h5py.File(path) as file:
            if file.attrs.get("format") != FORMAT or "complete" not in file.attrs:
                raise SweepError(f"{path}: not a finished file of `neuralrg canonical`; give one")
            source = tomllib.loads(file["configuration"].asstr()[()])["source"]
            return Canonical(
                source["kind"] == "harmonic-chain",
                arrays_of(file["modes"]),
                file["evaluate/samples"][...],
                list(file.attrs.get("angle_names", [])),
            )
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise SweepError(f"{path}: cannot be read as canonical transformation: {error}") from error


def read_modes(path: Path, frequency: np.ndarray, data: Path, samples: int) -> np.ndarray:
    """Modes (sample, mode) that `neuralrg modes` made of a transformation and a data file.

    Shapes: `frequency` (mode), that of the transformation; `data` has so many samples.

    Raises:
        SweepError: it cannot be used, or belongs to another transformation or other samples.
    """
    try:
        with h5py.File(path) as file:
            if file.attrs.get("format") != MODES_FORMAT:
                raise SweepError(f"{path}: not a file of `neuralrg modes`; give one")
            values, own = file["modes"][...], file["frequency"][...]
    except (OSError, KeyError) as error:
        raise SweepError(f"{path}: cannot be read as file of `neuralrg modes`: {error}") from error
    if len(values) != samples:
        raise SweepError(f"{path}: has {len(values)} samples, {data} has {samples}")
    if values.shape[1] < 2 or not np.array_equal(own, frequency[: values.shape[1]]):
        raise SweepError(f"{path}: has not the two slowest modes of this transformation or more")
    return values


def exact_modes(beads: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (mode,) and sine waves (mode, coordinate) of a harmonic chain between walls."""
    number = np.arange(1, beads + 1)
    angle = number * np.pi / (beads + 1)
    return 2 * np.sin(angle / 2), np.sqrt(2 / (beads + 1)) * np.sin(np.outer(number, angle))


def overlaps(response: np.ndarray) -> np.ndarray:
    """Overlaps (slow_mode, wave) of responses, each divided by its norm, with sine waves."""
    norm = np.linalg.norm(response, axis=1, keepdims=True)
    return response @ exact_modes(response.shape[1])[1].T / norm


def draw_figure(canonical: Canonical) -> Figure:
    """Two panels, and a third where there are angles or exact modes."""
    panels = [draw_frequencies, draw_plane if canonical.samples.shape[1] == 2 else draw_responses]
    if "information" in canonical.modes:
        panels.append(draw_information)
    elif canonical.is_chain:
        panels.append(draw_overlaps)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(PANEL_INCHES * len(panels), 3.0), layout="constrained")
        for axes, draw, letter in zip(figure.subplots(1, len(panels)), panels, "abc", strict=False):
            draw(axes, canonical)
            axes.set_title(f"({letter})", loc="left")
    return figure


def draw_frequencies(axes: Axes, canonical: Canonical) -> None:
    """Frequencies against the number of the mode; those of molecules span decades."""
    frequency, error = canonical.measured("frequency")
    number = np.arange(1, len(frequency) + 1)
    if canonical.is_chain:
        axes.plot(number, exact_modes(len(number))[0], color="black", linewidth=0.7, label="exact")
        axes.legend(loc="upper left")
    axes.errorbar(number, frequency, error, color=depth_look(1).color, fmt="o", markersize=3.0)
    axes.set_yscale("log" if frequency.max() > 100 * frequency.min() else "linear")
    beside = r"frequency $\omega$ ($\sqrt{k_\mathrm{B}T/m}$ per length)"
    label_axes(axes, "mode $k$", beside, len(frequency))


def label_axes(axes: Axes, below: str, beside: str, count: int) -> None:
    """Labels of both axes; that below has whole numbers from 1 to `count`."""
    axes.locator_params(axis="x", integer=True)
    axes.set(xlabel=below, ylabel=beside, xlim=(0.5 - 0.01 * count, 0.5 + 1.01 * count))


def draw_responses(axes: Axes, canonical: Canonical) -> None:
    """Responses of the slowest modes; of a chain with sine waves, whose signs they take."""
    response = canonical.modes["response"][:SLOWEST]
    number = np.arange(1, response.shape[1] + 1)
    if canonical.is_chain:
        response = response * np.copysign(1.0, np.diag(overlaps(response)))[:, np.newaxis]
        waves = exact_modes(len(number))[1][: len(response)]
        axes.plot(number, waves.T, color="black", linewidth=0.5)
    style = {"markersize": 3.0, "linewidth": 0.0 if canonical.is_chain else 0.7}
    for mode, row in enumerate(response, start=1):
        axes.plot(number, row, label=f"{mode}", **style, **depth_look(mode)._asdict())
    beside = r"response $\mathrm{E}[\partial Q_k/\partial q_i]$"
    label_axes(axes, "coordinate $i$", beside, len(number))
    legend_above(axes, "mode")


def legend_above(axes: Axes, title: str = "") -> None:
    """A legend in one row above the axes, where it cannot hide data."""
    style = {"ncols": 8, "columnspacing": 0.8, "handlelength": 1.2, "borderpad": 0.0}
    handles, labels = axes.get_legend_handles_labels()
    labels[0] = f"{title} {labels[0]}".lstrip()
    axes.legend(handles, labels, loc="lower right", bbox_to_anchor=(1.0, 1.02), **style)


def draw_plane(axes: Axes, canonical: Canonical) -> None:
    """Samples of two coordinates, and the paths along both modes."""
    axes.scatter(*canonical.samples.T, s=3.0, color="0.75", linewidths=0.0, rasterized=True)
    whole = np.flatnonzero(canonical.modes["path_position"] % 1.0 == 0.0).tolist()
    for mode, path in enumerate(canonical.modes["path"], start=1):
        axes.plot(*path.T, markevery=whole, label=f"{mode}", **depth_look(mode)._asdict())
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel="$q_1$", ylabel="$q_2$")
    legend_above(axes, "mode")


def draw_information(axes: Axes, canonical: Canonical) -> None:
    """Bars, the angles of one mode beside each other, in other colours than modes."""
    information, error = canonical.measured("information")
    width = 0.8 / len(canonical.angles)
    for index, name in enumerate(canonical.angles):
        place = np.arange(1, len(information) + 1) + (index + 0.5) * width - 0.4
        look = {"color": depth_look(SLOWEST + index + 1).color, "label": name}
        axes.bar(place, information[:, index], width, yerr=error[:, index], capsize=1.0, **look)
    label_axes(axes, "mode $k$", "mutual information (nat)", len(information))
    legend_above(axes)


def draw_overlaps(axes: Axes, canonical: Canonical) -> None:
    """Absolute overlaps of responses with sine waves, mode 1 below."""
    values = np.abs(overlaps(canonical.modes["response"]))
    edges = (0.5, values.shape[1] + 0.5, 0.5, len(values) + 0.5)
    image = axes.imshow(values, cmap="gray_r", vmin=0, vmax=1, origin="lower", extent=edges)
    axes.set(xlabel="sine wave", ylabel="mode $k$")
    axes.locator_params(integer=True)
    axes.figure.colorbar(image, ax=axes, label="|overlap|", shrink=0.8)


def table(canonical: Canonical) -> list[str]:
    """A row of each mode; responses and information are those of the slowest alone."""
    frequency, error = canonical.measured("frequency")
    number = [str(index + 1) for index in range(len(frequency))]
    columns = {"mode": number, "frequency": list(map(with_error, frequency, error))}
    if canonical.is_chain:
        ratio = frequency / exact_modes(len(frequency))[0]
        columns["from exact (%)"] = [f"{100.0 * value - 100.0:+z.3f}" for value in ratio]
        own = np.diag(overlaps(canonical.modes["response"]))
        columns["overlap"] = [f"{abs(value):.4f}" for value in own]
    if "information" in canonical.modes:
        values, errors = canonical.measured("information")
        for name, *column in zip(canonical.angles, values.T, errors.T, strict=True):
            columns[f"{name} (nat)"] = list(map(with_error, *column))
    padded = [cells + [""] * (len(frequency) - len(cells)) for cells in columns.values()]
    rows = [columns, ["---"] * len(columns), *zip(*padded, strict=True)]
    return [f"| {' | '.join(row)} |" for row in rows]


def main() -> list[object]:
    """Command line; returns the lines of the table and the files that were written."""
    form, parents = argparse.RawDescriptionHelpFormatter, [output_arguments("fig_canonical")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, parents=parents)
    parser.add_argument("file", type=Path, help="file that `neuralrg canonical` has written")
    arguments = parser.parse_args()
    canonical = read_canonical(arguments.file)
    figure = draw_figure(canonical)
    return [*table(canonical), *save_figure(figure, arguments.output, arguments.formats)]


if __name__ == "__main__":
    run_script(main)
