#!/usr/bin/env python3
"""Pictures as fields for `neuralrg learn`: pads, dequantises and maps to the whole real line.

    pictures.py idx train-images-idx3-ubyte.gz t10k-images-idx3-ubyte.gz -o mnist.h5
    pictures.py scikit-learn -o digits.h5

A pixel n of 0 ... levels-1 becomes p = n + u with u uniform in [0, 1), so that a density of p has
the meaning of a probability of n, then x = logit(alpha + (1 - 2 alpha) p / levels). Pictures are
padded with n = 0 to squares of a power of two. The file keeps ln|det dx/dp| of each picture, from
which `neuralrg` states bits per pixel. Pictures of the IDX files come in the order given, so that
the customary test set, named last, can be held out; those of scikit-learn are shuffled first.
"""

import argparse
import gzip
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from figure import run_script
from sweep import SweepError

FORMAT = "neuralrg-fields"
FORMAT_VERSION = 1
#: Customary for natural images (Dinh, Sohl-Dickstein and Bengio, arXiv:1605.08803).
ALPHA = 0.05

#: Bytes at the start of an IDX file of three-dimensional data of type unsigned byte.
IDX_MAGIC = b"\x00\x00\x08\x03"


class PixelMap(NamedTuple):
    """How pixel values p in [0, levels) and fields belong together."""

    levels: int
    alpha: float

    def to_field(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fields of dequantised pixels, and ln|det dx/dp| of each.

        Shapes: (sample, row, column) to the same and (sample).
        """
        share = self.alpha + (1.0 - 2.0 * self.alpha) * pixels / self.levels
        slope = (1.0 - 2.0 * self.alpha) / self.levels / (share * (1.0 - share))
        return np.log(share / (1.0 - share)), np.log(slope).sum(axis=(1, 2))

    def to_pixels(self, field: np.ndarray) -> np.ndarray:
        """Pixel values of fields; outside [0, levels) for fields that no pixel has."""
        share = 1.0 / (1.0 + np.exp(-field))
        return self.levels * (share - self.alpha) / (1.0 - 2.0 * self.alpha)


def read_idx(path: Path) -> np.ndarray:
    """Pictures of an IDX file, also a gzipped one. Shapes: (sample, row, column), bytes.

    Raises:
        SweepError: it is no IDX file of pictures, or is cut off.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError) as error:
            raise SweepError(f"{path}: is damaged: {error}") from error
    if len(content) < 16 or content[:4] != IDX_MAGIC:
        raise SweepError(f"{path}: is no IDX file of pictures (three axes of unsigned bytes)")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", 3, offset=4))
    pixels = np.frombuffer(content, np.uint8, offset=16)
    if pixels.size != np.prod(shape, dtype=np.int64):
        raise SweepError(f"{path}: has {pixels.size} pixels instead of {shape}; copy it again")
    return pixels.reshape(shape)


def read_all_idx(paths: list[Path]) -> np.ndarray:
    """Pictures of several IDX files, one after the other.

    Raises:
        SweepError: as `read_idx`, or their sizes differ.
    """
    parts = [read_idx(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise SweepError(f"{path}: pictures of {part.shape[1:]}, not {parts[0].shape[1:]}")
    return np.concatenate(parts)


def scikit_learn_digits(generator: np.random.Generator) -> np.ndarray:
    """The 1797 digits of 8 x 8 pixels, of 17 levels, that scikit-learn ships, in random order."""
    from sklearn.datasets import load_digits

    return generator.permutation(load_digits().images.astype(np.uint8))


def pad(pixels: np.ndarray) -> np.ndarray:
    """Zeros around pictures, which stay in the middle, up to squares of a power of two."""
    size = max(4, 1 << (max(pixels.shape[1:]) - 1).bit_length())
    widths = [((size - length) // 2, (size - length + 1) // 2) for length in pixels.shape[1:]]
    return np.pad(pixels, [(0, 0), *widths])


def crop(padded: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The pictures inside what `pad` has made; the last two axes are rows and columns."""
    top, left = (padded.shape[-2] - rows) // 2, (padded.shape[-1] - columns) // 2
    return padded[..., top : top + rows, left : left + columns]


def write_fields(
    path: Path, pixels: np.ndarray, levels: int, alpha: float, generator: np.random.Generator
) -> None:
    """Write whole pixels as a data file of `neuralrg learn`, beside its place and then renamed."""
    padded = pad(pixels)
    dequantised = padded + generator.random(padded.shape)
    field, log_jacobian = PixelMap(levels, alpha).to_field(dequantised)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with h5py.File(partial, "w") as file:
        file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION, alpha=float(alpha))
        file.attrs.update(rows=pixels.shape[1], columns=pixels.shape[2], pixel_levels=levels)
        fields = file.create_dataset("fields", data=field.astype(np.float32))
        fields.attrs["axes"] = "sample row column"
        file.create_dataset("log_jacobian", data=log_jacobian).attrs["units"] = "nat"
    partial.replace(path)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", choices=["idx", "scikit-learn"], help="where pictures come from")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="IDX files, for idx")
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: 1)")
    parser.add_argument(
        "--alpha", type=float, default=ALPHA, help="above 0 and below 0.5 (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if not 0.0 < arguments.alpha < 0.5:
        parser.error("--alpha must be above 0 and below 0.5")
    if (arguments.source == "idx") != bool(arguments.files):
        parser.error("name one IDX file or more for idx, none for scikit-learn")
    return arguments


def main() -> list[Path]:
    """Read, convert, write."""
    arguments = parse_arguments()
    generator = np.random.default_rng(arguments.seed)
    if arguments.source == "idx":
        pixels, levels = read_all_idx(arguments.files), 256
    else:
        pixels, levels = scikit_learn_digits(generator), 17
    write_fields(arguments.output, pixels, levels, arguments.alpha, generator)
    return [arguments.output]


if __name__ == "__main__":
    run_script(main)
