#!/usr/bin/env python3
"""Pictures as fields for `neuralrg learn`, or as coordinates for `neuralrg canonical`.

    pictures.py idx train-images-idx3-ubyte t10k-images-idx3-ubyte --held-out 10000 -o mnist.h5
    pictures.py scikit-learn --held-out 297 -o digits.h5
    pictures.py scikit-learn --held-out 297 --coordinates -o coordinates.h5

Each pixel, a whole number of levels n, becomes a real number x between the edges of this level,
Phi^-1(F(n)) and Phi^-1(F(n+1)), Phi being the normal distribution. F(1) is 0.1, all that black
pixels, of level 0, have of it; levels above have shares like those that they have of all pixels
that are not black, and are spread evenly over Phi(x). Black pixels are drawn from a normal
distribution of the mean and variance that Phi has below the edge, and cut off there, so that a
pixel that is surely black is as Gaussian as a flow's latents. Any such noise r(x|n) gives a bound,
-ln P(n) <= E[ln r(x|n) - ln q(x)].

Fields are padded with n = 0 to squares of a power of two; of coordinates there is one of each
pixel. Pictures of the IDX files come in the order given, so that the customary test set, named
last, can be held out; those of scikit-learn are shuffled first. What is held out does not enter F.
"""

import argparse
import gzip
import zlib
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from scipy.special import ndtr, ndtri

from figure import run_script, written_whole
from sweep import SweepError

FORMAT = "neuralrg-fields"
FORMAT_VERSION = 2

#: Pictures that are made at a time.
BATCH = 4096
#: F(1): chosen among 0.02, 0.05, 0.1, 0.2, 0.35 by the digits of scikit-learn and those of MNIST.
BLACK = 0.1
LN_SQRT_TAU = 0.5 * np.log(2.0 * np.pi)

#: Bytes at the start of an IDX file of unsigned bytes, before the number of its axes.
IDX_MAGIC = b"\x00\x00\x08"


class PixelMap(NamedTuple):
    """How levels and fields belong together.

    `black` is F(1); `inked` (level - 1) the share of lower levels among pixels that are not black,
    from 0 at level 1 to 1.
    """

    black: float
    inked: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray, levels: int, black: float) -> "PixelMap":
        """With the shares of some pictures, each level having at least one pixel more."""
        counts = np.bincount(pixels[pixels > 0], minlength=levels)[1:] + 1.0
        return cls(black, np.concatenate([[0.0], np.cumsum(counts) / counts.sum()]))

    @property
    def edges(self) -> np.ndarray:
        """Fields between neighbouring levels. Shape: (level - 1)."""
        return ndtri(self.black + (1.0 - self.black) * self.inked[:-1])

    def to_field(
        self, pixels: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fields x of pictures, and ln r(x|n) of each.

        Shapes: (sample, row, column) to the same and (sample).
        """
        uniform = generator.random(pixels.shape)
        lower = np.maximum(pixels, 1) - 1
        share = np.diff(self.inked)[lower]
        ink = ndtri(self.black + (1.0 - self.black) * (self.inked[lower] + uniform * share))
        ln_ink = -0.5 * ink**2 - LN_SQRT_TAU - np.log((1.0 - self.black) * share)
        mean, deviation, kept = self.noise_of_black()
        standard = ndtri(uniform * kept)
        ln_black = -0.5 * standard**2 - LN_SQRT_TAU - np.log(deviation * kept)
        field = np.where(pixels == 0, mean + deviation * standard, ink)
        return field, np.where(pixels == 0, ln_black, ln_ink).sum(axis=(1, 2))

    def noise_of_black(self) -> tuple[float, float, float]:
        """Mean and deviation of a normal number below the first edge, and how much of a normal
        distribution of these lies there."""
        edge = ndtri(self.black)
        slope = np.exp(-0.5 * edge**2 - LN_SQRT_TAU) / self.black
        mean, deviation = -slope, np.sqrt(1.0 - edge * slope - slope**2)
        return mean, deviation, ndtr((edge - mean) / deviation)


def read_idx(path: Path, axes: int) -> np.ndarray:
    """Unsigned bytes of an IDX file with so many axes, 3 of pictures, 1 of labels; also gzipped.

    Raises:
        SweepError: it is no such file, or is cut off.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise SweepError(f"{path}: is damaged: {error}") from error
    start = 4 + 4 * axes
    if len(content) < start or content[:4] != IDX_MAGIC + bytes([axes]):
        kind = "pictures (three axes of unsigned bytes)" if axes == 3 else "labels (one axis)"
        raise SweepError(f"{path}: is no IDX file of {kind}")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", axes, offset=4))
    values = np.frombuffer(content, np.uint8, offset=start)
    if values.size != np.prod(shape, dtype=np.int64):
        raise SweepError(f"{path}: has {values.size} values instead of {shape}; copy it again")
    return values.reshape(shape)


def read_all_idx(paths: list[Path], axes: int = 3) -> np.ndarray:
    """What several IDX files have, one after the other.

    Raises:
        SweepError: as `read_idx`, or their pictures differ in size.
    """
    parts = [read_idx(path, axes) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise SweepError(f"{path}: pictures of {part.shape[1:]}, not {parts[0].shape[1:]}")
    return np.concatenate(parts)


def scikit_learn_digits(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The 1797 digits of 8 x 8 pixels, of 17 levels, that scikit-learn ships, in random order.

    Shapes: pixels (sample, row, column), labels (sample).
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = generator.permutation(len(digits.images))
    return digits.images[order].astype(np.uint8), digits.target[order]


def pad(pixels: np.ndarray) -> np.ndarray:
    """Zeros around pictures, which stay in the middle, up to squares of a power of two."""
    size = max(4, 1 << (max(pixels.shape[1:]) - 1).bit_length())
    widths = [((size - length) // 2, (size - length + 1) // 2) for length in pixels.shape[1:]]
    return np.pad(pixels, [(0, 0), *widths])


def crop(padded: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The pictures inside what `pad` has made; the last two axes are rows and columns."""
    top, left = (padded.shape[-2] - rows) // 2, (padded.shape[-1] - columns) // 2
    return padded[..., top : top + rows, left : left + columns]


class Pictures(NamedTuple):
    """Whole pixels (sample, row, column), so many levels, and what is held out: the last ones.

    `labels` (sample) say what they show, where that is known; `black` is F(1).
    """

    pixels: np.ndarray
    levels: int
    held_out: int
    labels: np.ndarray | None = None
    black: float = BLACK


def write_pictures(
    path: Path, pictures: Pictures, coordinates: bool, generator: np.random.Generator
) -> None:
    """Write a data file, beside its place and then renamed.

    Raises:
        SweepError: none are left beside those that are held out, or labels are not theirs.
    """
    pixels, levels, held_out, labels, black = pictures
    count = len(pixels)
    if held_out >= count:
        raise SweepError(f"there are {count} pictures; --held-out must leave some of them")
    if labels is not None and len(labels) != count:
        raise SweepError(f"there are {len(labels)} labels of {count} pictures; name files of both")
    pixel_map = PixelMap.of(pixels[: count - held_out], levels, black)
    shown = pixels if coordinates else pad(pixels)
    field, ln_noise = np.empty(shown.shape, np.float32), np.empty(count)
    for first in range(0, count, BATCH):
        part = slice(first, first + BATCH)
        field[part], ln_noise[part] = pixel_map.to_field(shown[part], generator)
    with written_whole(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update(rows=pixels.shape[1], columns=pixels.shape[2], pixel_levels=levels)
        file.attrs["held_out"] = held_out
        if coordinates:
            flat = file.create_dataset("coordinates", data=field.reshape(count, -1))
            flat.attrs["axes"] = "sample coordinate"
        else:
            file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION)
            fields = file.create_dataset("fields", data=field)
            fields.attrs["axes"] = "sample row column"
        file.create_dataset("ln_noise", data=ln_noise).attrs["units"] = "nat"
        file.create_dataset("edges", data=pixel_map.edges).attrs["axes"] = "edge"
        if labels is not None:
            file.create_dataset("labels", data=labels).attrs["axes"] = "sample"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", choices=["idx", "scikit-learn"], help="where pictures come from")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="IDX files, for idx")
    parser.add_argument(
        "--labels",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help="IDX files of labels, in the order of FILE",
    )
    parser.add_argument(
        "--black", type=float, default=BLACK, metavar="SHARE", help="F(1) (default: %(default)s)"
    )
    parser.add_argument(
        "--coordinates", action="store_true", help="one of each pixel, for `neuralrg canonical`"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: 1)")
    parser.add_argument(
        "--held-out", type=int, required=True, metavar="N", help="as data.held_out: the last ones"
    )
    arguments = parser.parse_args()
    if arguments.held_out < 0:
        parser.error("--held-out must be 0 or more")
    if not 0.0 < arguments.black < 1.0:
        parser.error("--black must be above 0 and below 1")
    if (arguments.source == "idx") != bool(arguments.files):
        parser.error("name one IDX file or more for idx, none for scikit-learn")
    if arguments.source == "scikit-learn" and arguments.labels:
        parser.error("--labels is for idx: scikit-learn has labels of its own")
    return arguments


def main() -> list[Path]:
    """Read, convert, write."""
    arguments = parse_arguments()
    generator = np.random.default_rng(arguments.seed)
    labels = None
    if arguments.source == "idx":
        pixels, levels = read_all_idx(arguments.files), 256
        if arguments.labels:
            labels = read_all_idx(arguments.labels, axes=1)
    else:
        (pixels, labels), levels = scikit_learn_digits(generator), 17
    pictures = Pictures(pixels, levels, arguments.held_out, labels, arguments.black)
    write_pictures(arguments.output, pictures, arguments.coordinates, generator)
    return [arguments.output]


if __name__ == "__main__":
    run_script(main)
