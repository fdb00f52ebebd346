#!/usr/bin/env python3
"""Pictures in their slow modes, from a file of `neuralrg canonical` and its pictures.

(a) Held-out pictures in the plane of the two slowest modes, coloured by what they show. (b) Some of
them, below each of which the n slowest modes are kept and all others drawn anew (the key
`canonical.kept_modes`). Prints which share of the held-out pictures the nearest neighbour among
those trained on has the label of, in the slowest modes, in as many random ones (mean and standard
deviation of five draws) and in as many principal components of the field.
"""

import argparse
import tomllib
from pathlib import Path
from typing import NamedTuple

import h5py
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from fig_canonical import read_modes
from figure import STYLE, output_arguments, run_script, save_figure
from sweep import SweepError

DRAWS = 5
#: Columns of (b), and held-out pictures in (a).
COLUMNS, SHOWN = 10, 3000


class Pictures(NamedTuple):
    """Pictures with their modes, the last `held_out` of which were not trained on.

    Shapes: `coordinates` (sample, coordinate), `labels` (sample), `modes` (sample, mode), `shape`
    (2), `edges` (level - 1); `kept` (row) says how many modes each row of `redrawn` (row, sample,
    coordinate) keeps of `original` (sample, coordinate).
    """

    coordinates: np.ndarray
    labels: np.ndarray
    modes: np.ndarray
    held_out: int
    shape: tuple[int, int]
    edges: np.ndarray
    kept: np.ndarray
    original: np.ndarray
    redrawn: np.ndarray


def read_pictures(transformation: Path, data: Path, modes: Path) -> Pictures:
    """Read what `neuralrg canonical`, pictures.py and `neuralrg modes` have written.

    Raises:
        SweepError: one cannot be used, or they do not belong together.
    """
    try:
        with h5py.File(transformation) as file:
            source = tomllib.loads(file["configuration"].asstr()[()])["source"]
            frequency, group = file["modes/frequency"][...], file["evaluate"]
            kept = group["kept_modes"][...]
            # In the units of the data.
            redrawn = [
                group[name][...] / source.get("scale", 1.0) for name in ("original", "redrawn")
            ]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise SweepError(
            f"{transformation}: cannot be read as canonical transformation of pictures with "
            f"canonical.kept_modes: {error}"
        ) from error
    try:
        with h5py.File(data) as file:
            coordinates, labels = file["coordinates"][...], file["labels"][...]
            shape = (int(file.attrs["rows"]), int(file.attrs["columns"]))
            edges = file["edges"][...]
    except (OSError, KeyError) as error:
        raise SweepError(
            f"{data}: cannot be read as coordinates of pictures with labels: {error}; make it with "
            "pictures.py --coordinates"
        ) from error
    values = read_modes(modes, frequency, data, len(coordinates))
    if values.shape[1] != len(frequency):
        raise SweepError(
            f"{modes}: has {values.shape[1]} of {len(frequency)} modes; make it without --slowest"
        )
    sizes = {np.prod(shape), coordinates.shape[1], redrawn[0].shape[1]}
    if len(sizes) > 1 or len(coordinates) <= source["held_out"]:
        raise SweepError(
            f"{data}: is not what {transformation} learned from: its pictures have {shape[0]} by "
            f"{shape[1]} pixels and {coordinates.shape[1]} coordinates, those learned "
            f"{redrawn[0].shape[1]}; {source['held_out']} of {len(coordinates)} are held out"
        )
    return Pictures(coordinates, labels, values, source["held_out"], shape, edges, kept, *redrawn)


def accuracy(values: np.ndarray, labels: np.ndarray, held_out: int) -> float:
    """Share of the held-out samples whose nearest neighbour has their label.

    Shapes: (sample, value) and (sample).
    """
    first = len(values) - held_out
    classifier = KNeighborsClassifier(n_neighbors=1).fit(values[:first], labels[:first])
    return float(classifier.score(values[first:], labels[first:]))


def table(pictures: Pictures, count: int, seed: int) -> list[str]:
    """Accuracies in the slowest modes, random ones, and principal components."""
    labels, held_out, modes = pictures.labels, pictures.held_out, pictures.modes
    generator = np.random.default_rng(seed)
    draws = [generator.choice(modes.shape[1], count, replace=False) for _ in range(DRAWS)]
    random = [accuracy(modes[:, drawn], labels, held_out) for drawn in draws]
    trained = pictures.coordinates[: len(labels) - held_out]
    components = PCA(count, random_state=seed).fit(trained).transform(pictures.coordinates)
    rows = {
        f"{count} slowest modes": f"{accuracy(modes[:, :count], labels, held_out):.4f}",
        f"{count} random modes": f"{np.mean(random):.4f} ± {np.std(random, ddof=1):.4f}",
        f"{count} principal components": f"{accuracy(components, labels, held_out):.4f}",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return ["| nearest neighbour in | right |", "|---|---|", *lines]


def draw_figure(pictures: Pictures) -> Figure:
    """The plane of the two slowest modes beside pictures redrawn from their slowest modes."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 4.2), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(1.0, 1.2))
        axes = left.subplots()
        chosen = slice(len(pictures.labels) - pictures.held_out, None)
        labels = pictures.labels[chosen][:SHOWN]
        colours = mpl.colormaps["tab10"]
        for index, label in enumerate(np.unique(labels)):
            points = pictures.modes[chosen][:SHOWN][labels == label]
            style = {"s": 3.0, "linewidths": 0.0, "color": colours(index % 10)}
            axes.scatter(points[:, 0], points[:, 1], label=f"{label}", rasterized=True, **style)
        axes.set(xlabel="$z_1$", ylabel="$z_2$")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=3.0)
        axes.set_title("(a)", loc="left")
        draw_redrawn(right, pictures)
    return figure


def draw_redrawn(figure: Figure, pictures: Pictures) -> None:
    """Originals above, below them with ever more of their slowest modes kept."""
    rows = [("original", pictures.original)]
    rows += [
        (f"{kept} modes", values)
        for kept, values in zip(pictures.kept, pictures.redrawn, strict=True)
    ]
    columns = min(COLUMNS, len(pictures.original))
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, values) in zip(panels, rows, strict=True):
        for axes, picture in zip(line, values, strict=False):
            levels = np.searchsorted(pictures.edges, picture).reshape(pictures.shape)
            axes.imshow(levels, cmap="gray_r", vmin=0, vmax=len(pictures.edges))
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    panels[0, 0].set_title("(b)", loc="left")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parents = [output_arguments("fig_canonical_digits")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, parents=parents)
    parser.add_argument("transformation", type=Path, help="file of `neuralrg canonical`")
    parser.add_argument("data", type=Path, help="file of pictures.py --coordinates")
    parser.add_argument("modes", type=Path, help="file of `neuralrg modes` of these, of all modes")
    parser.add_argument("--count", type=int, default=10, help="modes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the draws (default: %(default)s)")
    return parser.parse_args()


def main() -> list[object]:
    """Read, classify, draw; the lines of the table and the files that were written."""
    arguments = parse_arguments()
    pictures = read_pictures(arguments.transformation, arguments.data, arguments.modes)
    if not 1 <= arguments.count <= pictures.modes.shape[1]:
        raise SweepError(
            f"--count must be from 1 to {pictures.modes.shape[1]}, the modes there are"
        )
    lines = table(pictures, arguments.count, arguments.seed)
    figure = draw_figure(pictures)
    return [*lines, *save_figure(figure, arguments.output, arguments.formats)]


if __name__ == "__main__":
    run_script(main)
