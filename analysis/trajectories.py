#!/usr/bin/env python3
"""A file for `neuralrg canonical` from trajectories in npz files.

    trajectories.py alanine-dipeptide-heavy-atom-positions.npz \\
        --angles alanine-dipeptide-backbone-dihedrals.npz --names phi psi -o frames.h5

Such files hold one array a trajectory, arr_0, arr_1 ...: positions (frame, coordinate) or
(frame, atom, axis), and angles (frame, angle), as the published ones of alanine dipeptide do, or
those that alanine.py writes. Frames are to be aligned already. Trajectories come one after the
other; `trajectory` says which one a frame belongs to.
"""

import argparse
import zlib
from pathlib import Path
from zipfile import BadZipFile

import h5py
import numpy as np

from figure import run_script, written_whole
from sweep import SweepError


def read_npz(path: Path) -> list[np.ndarray]:
    """The arrays of a file, in the order of their numbers, each (frame, value).

    Raises:
        SweepError: it is no such file, or one of them cannot be used.
    """
    try:
        with np.load(path) as file:
            names = [name for name in file.files if name.removeprefix("arr_").isdecimal()]
            names.sort(key=lambda name: int(name.removeprefix("arr_")))
            arrays = [file[name] for name in names]
    except (AttributeError, BadZipFile, EOFError, TypeError, ValueError, zlib.error) as error:
        raise SweepError(f"{path}: cannot be read as npz file: {error}") from error
    if not arrays:
        raise SweepError(f"{path}: has no arrays arr_0, arr_1 ...; numpy.savez makes such files")
    for name, array in zip(names, arrays, strict=True):
        if array.ndim < 2 or array.size == 0 or array.dtype.kind not in "fiu":
            raise SweepError(f"{path}: {name} must be numbers, a row each frame")
        if not np.isfinite(array).all():
            raise SweepError(
                f"{path}: {name} has values that are not finite; leave such frames out"
            )
    arrays = [array.reshape(len(array), -1) for array in arrays]
    for name, array in zip(names, arrays, strict=True):
        if array.shape[1] != arrays[0].shape[1]:
            raise SweepError(
                f"{path}: {name} has {array.shape[1]} values a frame, not {arrays[0].shape[1]}"
            )
    return arrays


def write_frames(
    path: Path, positions: list[np.ndarray], angles: list[np.ndarray], names: list[str], every: int
) -> None:
    """Write every so many frames of all trajectories, beside the file's place and then renamed."""
    thinned = [array[::every] for array in positions]
    number = np.repeat(np.arange(len(thinned)), [len(array) for array in thinned])
    with written_whole(path) as partial, h5py.File(partial, "w") as file:
        coordinates = np.concatenate(thinned).astype(np.float32)
        file.create_dataset("coordinates", data=coordinates).attrs["axes"] = "sample coordinate"
        file.create_dataset("trajectory", data=number).attrs["axes"] = "sample"
        if angles:
            values = np.concatenate([array[::every] for array in angles]).astype(np.float64)
            dataset = file.create_dataset("angles", data=values)
            dataset.attrs["axes"] = "sample angle"
            dataset.attrs.create("angle_names", names, dtype=h5py.string_dtype())


def check_angles(
    arguments: argparse.Namespace, positions: list[np.ndarray], angles: list[np.ndarray]
) -> None:
    """Whether angles belong to the positions, and each has a name.

    Raises:
        SweepError: they do not.
    """
    lengths = [[len(array) for array in arrays] for arrays in (positions, angles)]
    if lengths[0] != lengths[1]:
        raise SweepError(
            f"{arguments.angles}: has trajectories of {lengths[1]} frames, but "
            f"{arguments.positions} of {lengths[0]}"
        )
    if len(arguments.names) != angles[0].shape[1]:
        raise SweepError(
            f"{arguments.angles}: has {angles[0].shape[1]} angles a frame; give as many --names"
        )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("positions", type=Path, help="npz file of positions")
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument("--angles", type=Path, metavar="FILE", help="npz file of angles")
    parser.add_argument("--names", nargs="+", default=[], help="of the angles, in their order")
    parser.add_argument(
        "--every", type=int, default=1, help="keep one frame of so many (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.every < 1:
        parser.error("--every must be 1 or more")
    if (arguments.angles is None) != (not arguments.names):
        parser.error("--angles and --names go together")
    return arguments


def main() -> list[Path]:
    """Read, check, write."""
    arguments = parse_arguments()
    positions, angles = read_npz(arguments.positions), []
    if arguments.angles is not None:
        angles = read_npz(arguments.angles)
        check_angles(arguments, positions, angles)
    write_frames(arguments.output, positions, angles, arguments.names, arguments.every)
    return [arguments.output]


if __name__ == "__main__":
    run_script(main)
