#!/usr/bin/env python3
"""Pictures that a flow generates, at each level of its hierarchy.

Each column is one picture, drawn by `neuralrg learn`. From top to bottom ever finer latents take
part: in the first row those of the coarsest level alone, all others being zero, in the last row
all of them.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import h5py
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from figure import STYLE, output_arguments, run_script, save_figure, with_error
from pictures import crop
from sweep import SweepError

FORMAT = "neuralrg-learned"
PANEL_INCHES = 0.62


class Pictures(NamedTuple):
    """Generated pictures by level.

    Shapes: `pixels` (level, sample, row, column), in levels of a pixel; level 0 has all latents.
    """

    pixels: np.ndarray
    levels: int
    bits_per_dimension: float
    error: float


def read_pictures(path: Path) -> Pictures:
    """Read a file of `neuralrg learn`.

    Raises:
        SweepError: it is not one, or not of pictures.
    """
    try:
        with h5py.File(path) as file:
            if file.attrs.get("format") != FORMAT or "complete" not in file.attrs:
                raise SweepError(f"{path}: is no finished file of `neuralrg learn`")
            attributes = dict(file.attrs)
            pixels = np.searchsorted(file["evaluate/edges"][...], file["evaluate/levels"][...])
            bits = [
                float(file[f"held_out/bits_per_dimension{ending}"][()]) for ending in ("", "_error")
            ]
    except (OSError, KeyError) as error:
        raise SweepError(
            f"{path}: cannot be read as pictures that were learned: {error}"
        ) from error
    levels = int(attributes["pixel_levels"])
    return Pictures(crop(pixels, attributes["rows"], attributes["columns"]), levels, *bits)


def draw_figure(pictures: Pictures, count: int) -> Figure:
    """The first `count` pictures, one column each, coarse levels above fine ones."""
    levels, available = pictures.pixels.shape[:2]
    count = min(count, available)
    with mpl.rc_context(STYLE):
        size = (PANEL_INCHES * count + 1.1, PANEL_INCHES * levels + 0.4)
        figure = Figure(figsize=size, layout="compressed")
        panels = figure.subplots(levels, count, squeeze=False)
        for row, level in enumerate(reversed(range(levels))):
            for column in range(count):
                axes = panels[row, column]
                axes.imshow(
                    pictures.pixels[level, column],
                    cmap="gray_r",
                    vmin=0,
                    vmax=pictures.levels - 1,
                    interpolation="nearest",
                )
                axes.set_xticks([])
                axes.set_yticks([])
            panels[row, 0].set_ylabel(
                row_label(level), rotation=0, ha="right", va="center", labelpad=4
            )
        bits = with_error(pictures.bits_per_dimension, pictures.error)
        title = f"{bits} bits per pixel, held out"
        figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
    return figure


def row_label(level: int) -> str:
    """Which latents a row has."""
    return "all latents" if level == 0 else f"levels ≥ {level}"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[output_arguments("fig_digits")],
    )
    parser.add_argument("learned", type=Path, help="file that `neuralrg learn` has written")
    parser.add_argument("--count", type=int, default=10, help="pictures (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error("--count must be 1 or more")
    return arguments


def main() -> list[Path]:
    """Read, draw, save."""
    arguments = parse_arguments()
    figure = draw_figure(read_pictures(arguments.learned), arguments.count)
    return save_figure(figure, arguments.output, arguments.formats)


if __name__ == "__main__":
    run_script(main)
