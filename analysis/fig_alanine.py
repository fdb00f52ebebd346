#!/usr/bin/env python3
"""Slow modes of alanine dipeptide, from a file of `neuralrg canonical` and its frames.

(a, b) Ramachandran plots of the frames, coloured by the slowest two modes (of `neuralrg modes`).
(c) Mutual information of modes and angles. (d, e) The molecule along both modes from z = -2 to 2,
all others at rest, seen along the axis in which it extends least. Prints a table in Markdown of the
slowest modes and of as many components of TICA (Perez-Hernandez et al., doi:10.1063/1.4811489) of
the same frames: what both know of phi and psi (KSG, 5 neighbours; thinned frames), and the time of
their decay, -lag / ln C(lag), C being the normalised autocorrelation. Needs
analysis/requirements-molecules.txt.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import h5py
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.feature_selection import mutual_info_regression

from alanine import BONDS
from fig_canonical import Canonical, draw_information, read_canonical, read_modes
from figure import STYLE, output_arguments, run_script, save_figure, with_error
from sweep import SweepError

ANGLES = ("phi", "psi")
COORDINATES = 30
PANEL_INCHES = 2.9
#: Frames in a Ramachandran plot, and for the mutual information of the table.
SHOWN, INFORMATION_FRAMES = 20_000, 10_000
NEIGHBOURS = 5
#: Where the molecule is drawn along a mode.
POSITIONS = (-2.0, -1.0, 0.0, 1.0, 2.0)


class Frames(NamedTuple):
    """Frames with their angles and modes.

    Shapes: `coordinates` (frame, coordinate), `trajectory` (frame), `angles` (frame, 2: phi, psi),
    `modes` (frame, mode).
    """

    coordinates: np.ndarray
    trajectory: np.ndarray
    angles: np.ndarray
    modes: np.ndarray

    def thinned(self, most: int) -> np.ndarray:
        """Indices of at most so many frames, evenly over all."""
        count = len(self.coordinates)
        return np.arange(min(most, count)) * count // min(most, count)


def read_frames(canonical: Canonical, frames: Path, modes: Path) -> Frames:
    """Read a file of trajectories.py and one of `neuralrg modes` of a transformation.

    Raises:
        SweepError: one cannot be used, or they do not belong together.
    """
    try:
        with h5py.File(frames) as file:
            coordinates, trajectory = file["coordinates"][...], file["trajectory"][...]
            names = list(file["angles"].attrs["angle_names"])
            angles = file["angles"][...][:, [names.index(name) for name in ANGLES]]
    except (OSError, KeyError, ValueError) as error:
        raise SweepError(
            f"{frames}: cannot be read as frames of alanine dipeptide with the angles phi and psi: "
            f"{error}; make it with trajectories.py"
        ) from error
    if coordinates.shape[1] != COORDINATES:
        raise SweepError(f"{frames}: has {coordinates.shape[1]} coordinates a frame, not 30")
    values = read_modes(modes, canonical.modes["frequency"], frames, len(coordinates))
    return Frames(coordinates, trajectory, angles, values)


def tica(frames: Frames, lag: int, components: int) -> np.ndarray:
    """Slowest components of time-lagged independent component analysis. Shape: (frame, component).

    Raises:
        SweepError: deeptime is not installed.
    """
    try:
        from deeptime.decomposition import TICA
    except ImportError as error:
        raise SweepError(f"{error}; pip install -r analysis/requirements-molecules.txt") from error
    # The stiffest directions of a molecule have a variance of 1e-7 nm^2, and all are to stay.
    coordinates = frames.coordinates.astype(np.float64)
    coordinates /= coordinates.std()
    parts = [coordinates[frames.trajectory == number] for number in np.unique(frames.trajectory)]
    estimator = TICA(lagtime=lag, dim=components, epsilon=1e-9)
    return estimator.fit_from_timeseries(parts).fetch_model().transform(coordinates)


def decay_time(values: np.ndarray, trajectory: np.ndarray, lag: int) -> float:
    """-lag / ln C(lag) in frames; NaN where C is not above 3 / sqrt(frames), three times its noise.

    Shapes: (frame), (frame).
    """
    centred = values - values.mean()
    same = trajectory[lag:] == trajectory[:-lag]
    lagged = float((centred[lag:] * centred[:-lag])[same].mean() / centred.var())
    return -lag / np.log(lagged) if 3.0 / np.sqrt(same.sum()) < lagged < 1.0 else np.nan


def information(values: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Mutual information in nats. Shapes: (frame, component) and (frame, 2) to (component, 2)."""
    columns = [
        mutual_info_regression(
            values.astype(np.float64), angle, n_neighbors=NEIGHBOURS, random_state=1
        )
        for angle in angles.T
    ]
    return np.stack(columns, axis=1)


def table(canonical: Canonical, frames: Frames, lag: int, count: int) -> list[str]:
    """Modes, then components, each with what it knows of phi and psi and its time of decay."""
    chosen = frames.thinned(INFORMATION_FRAMES)
    count = min(count, frames.modes.shape[1])
    frequencies = list(zip(*canonical.measured("frequency"), strict=True))
    lines = ["| | frequency | φ (nat) | ψ (nat) | decay (frames) |", "|---|---|---|---|---|"]
    kinds = {"mode": frames.modes[:, :count], "TICA": tica(frames, lag, count)}
    for kind, values in kinds.items():
        known = information(values[chosen], frames.angles[chosen])
        for index, (phi, psi) in enumerate(known):
            frequency = with_error(*frequencies[index]) if kind == "mode" else ""
            time = decay_time(values[:, index], frames.trajectory, lag)
            decay = f"{time:.1f}" if np.isfinite(time) else f"< {lag}"
            lines.append(f"| {kind} {index + 1} | {frequency} | {phi:.3f} | {psi:.3f} | {decay} |")
    slow, fast = canonical.modes["frequency"][1:3]
    return [*lines, "", f"ω₃/ω₂ = {fast / slow:.2f}"]


def draw_figure(canonical: Canonical, frames: Frames) -> Figure:
    """Two rows: Ramachandran plots and information; the molecule along both modes."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3 * PANEL_INCHES, 2 * PANEL_INCHES), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1.0))
        panels = above.subplots(1, 3)
        for mode in range(2):
            draw_ramachandran(panels[mode], frames, mode)
        draw_information(panels[2], canonical)
        sticks = below.subplots(1, 2)
        for mode in range(2):
            draw_molecule(sticks[mode], canonical, mode)
        for axes, letter in zip([*panels, *sticks], "abcde", strict=True):
            axes.set_title(f"({letter})", loc="left")
    return figure


def draw_ramachandran(axes: Axes, frames: Frames, mode: int) -> None:
    """Frames in the plane of phi and psi, coloured by a mode."""
    chosen = frames.thinned(SHOWN)
    points = axes.scatter(
        *np.degrees(frames.angles[chosen]).T,
        c=frames.modes[chosen, mode],
        s=2.0,
        linewidths=0.0,
        cmap="viridis",
        vmin=-2.5,
        vmax=2.5,
        rasterized=True,
    )
    ticks = [-180, -90, 0, 90, 180]
    axes.set(xlim=(-180, 180), ylim=(-180, 180), xticks=ticks, yticks=ticks)
    axes.set(xlabel=r"$\phi$ (°)", ylabel=r"$\psi$ (°)", aspect="equal")
    axes.figure.colorbar(points, ax=axes, label=f"$z_{mode + 1}$", shrink=0.8)


def draw_molecule(axes: Axes, canonical: Canonical, mode: int) -> None:
    """Bonds along a mode, over each other, seen along the direction of the least extent."""
    places = [int(np.argmin(np.abs(canonical.modes["path_position"] - z))) for z in POSITIONS]
    atoms = canonical.modes["path"][mode, places].reshape(len(places), -1, 3)
    centred = atoms - atoms.mean(axis=1, keepdims=True)
    view = np.linalg.svd(centred.reshape(-1, 3), full_matrices=False)[2][:2]
    flat = centred @ view.T
    colours = mpl.colormaps["viridis"](np.linspace(0.1, 0.9, len(POSITIONS)))
    for z, molecule, colour in zip(POSITIONS, flat, colours, strict=True):
        for one, other in BONDS:
            axes.plot(*molecule[[one, other]].T, color=colour, linewidth=1.6)
        axes.plot([], [], color=colour, label=f"{z:g}")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])
    axes.legend(title=f"$z_{mode + 1}$", loc="center left", bbox_to_anchor=(1.0, 0.5))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    form, parents = argparse.RawDescriptionHelpFormatter, [output_arguments("fig_alanine")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, parents=parents)
    parser.add_argument("transformation", type=Path, help="file of `neuralrg canonical`")
    parser.add_argument("frames", type=Path, help="file of trajectories.py")
    parser.add_argument("modes", type=Path, help="file of `neuralrg modes` of these frames")
    parser.add_argument("--lag", type=int, default=10, help="frames (default: %(default)s)")
    parser.add_argument("--count", type=int, default=6, help="rows of each (default: %(default)s)")
    arguments = parser.parse_args()
    if min(arguments.lag, arguments.count) < 1:
        parser.error("--lag and --count must be 1 or more")
    return arguments


def main() -> list[object]:
    """Read, draw, save; the lines of the table and the files that were written."""
    arguments = parse_arguments()
    canonical = read_canonical(arguments.transformation)
    learned = "information" in canonical.modes and canonical.samples.shape[1] == COORDINATES
    if not learned or len(canonical.modes["path"]) < 2:
        raise SweepError(
            f"{arguments.transformation}: has not learned from frames of alanine dipeptide with "
            "angles, two modes or more being described (canonical.modes)"
        )
    frames = read_frames(canonical, arguments.frames, arguments.modes)
    shortest = np.unique(frames.trajectory, return_counts=True)[1].min()
    if arguments.lag >= shortest:
        raise SweepError(f"--lag must be below {shortest}, the frames of the shortest trajectory")
    lines = table(canonical, frames, arguments.lag, arguments.count)
    figure = draw_figure(canonical, frames)
    return [*lines, *save_figure(figure, arguments.output, arguments.formats)]


if __name__ == "__main__":
    run_script(main)
