"""The shared reader of `sweep.h5`, the file that `neuralrg collect` writes.

`read_sweep` opens and checks the file for one size of the lattice, `read_sizes` for all of them;
`average_over_seeds` reduces a measured quantity from (temperature, depth, seed) to (temperature,
depth) with one error bar, `depth_curves` makes curves of that.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import xarray as xr

FORMAT = "neuralrg-sweep"
TASK_FORMAT = "neuralrg-task"
#: The newest version; files of earlier ones are read too.
FORMAT_VERSION = 4
#: The last version without a group for each lattice: its only one is the root.
ROOT_LATTICE_VERSION = 3
#: Names of the groups of lattices.
LATTICE_GROUP = re.compile(r"L\d+")
#: How the user block begins in which `neuralrg` keeps the SHA-256 of what follows it.
SEAL = b"neuralrg sha256 "
SEAL_BLOCK = 512

#: Critical temperature of the square-lattice Ising model, 2 / ln(1 + sqrt 2), in J/k_B.
CRITICAL_TEMPERATURE = 2.0 / np.log(1.0 + np.sqrt(2.0))

TASK_AXES = ("temperature", "depth", "seed")

#: How netCDF marks datasets that only give an axis its name and length.
BARE_DIMENSION = b"This is a netCDF dimension but not a netCDF variable."


class SweepError(Exception):
    """A sweep file that cannot be used; the message names the file and the remedy."""


def read_sweep(path: str | Path, linear_size: int | None = None) -> xr.Dataset:
    """Open one lattice of a sweep file, checked, as a dataset with named coordinates.

    Arrays are read when first used, so that large ones (field samples) cost nothing to a script
    that does not need them. Attributes are those of the file and `linear_size`.

    Raises:
        SweepError: the file is missing, is not a neuralrg sweep, or has a newer format; it has
            several lattices and none is chosen, or not the chosen one; no task is finished.
    """
    path = Path(path)
    root = _read_root(path)
    if linear_size is None and len(root.groups) > 1:
        raise SweepError(
            f"{path}: has lattices of L = {_listed(root.groups)}; choose one by `--linear-size N`"
        )
    (dataset,) = _open_sizes(path, root, linear_size).values()
    return dataset


def read_sizes(path: str | Path, linear_size: int | None = None) -> dict[int, xr.Dataset]:
    """Open all lattices of a sweep file, or the chosen one, as `read_sweep` does.

    Returns:
        A dataset for each linear size with a finished task, in ascending order.

    Raises:
        SweepError: as `read_sweep`, but several lattices are welcome.
    """
    path = Path(path)
    return _open_sizes(path, _read_root(path), linear_size)


def linked_names(group: h5py.Group, sizes: Iterable[int]) -> list[str]:
    """Names of the tasks, or of studies of them, that a group of the sweep file links to.

    Those of the given linear sizes alone, one size after another.
    """
    return [name for size in sizes for name in sorted(group) if name.startswith(f"L{size}_")]


def arrays_of(group: h5py.Group) -> dict[str, np.ndarray]:
    """All arrays of a group of a task or study file, axes without values aside."""
    return {
        name: np.asarray(item)
        for name, item in group.items()
        if isinstance(item, h5py.Dataset)
        and not bytes(item.attrs.get("NAME", b"")).startswith(BARE_DIMENSION)
    }


def require_variables(dataset: xr.Dataset, names: Iterable[str]) -> None:
    """Refuse a dataset that lacks one of the named variables.

    Raises:
        SweepError: names the variables that are missing.
    """
    missing = [name for name in names if name not in dataset.variables]
    if missing:
        raise SweepError(
            f"{source(dataset)}: lacks {', '.join(missing)}; "
            "collect the sweep again with the present version of neuralrg"
        )


def average_over_seeds(dataset: xr.Dataset, quantity: str) -> xr.Dataset:
    """Mean of a measured quantity over its finished seeds, with one error bar.

    With n seeds of values v_i and own (Monte Carlo) errors e_i the error of the mean is

        max( sqrt(sum e_i^2) / n,  s / sqrt(n) ),   s^2 = sum (v_i - mean)^2 / (n - 1),

    where the second term exists for n >= 2. The spread s already contains the Monte Carlo noise
    besides the difference from training to training, so adding the two in quadrature would
    count that noise twice. The first term is the floor below which a chance agreement of two or
    three seeds must not push the error. With one seed the error is that of this one trained
    flow and says nothing about how another seed would have done.

    Shapes: `dataset[quantity]` and `dataset[quantity + "_error"]` (temperature, depth, seed).

    Returns:
        Variables `value`, `error` (both NaN where no seed is finished) and `seeds` (how many
        were averaged), each (temperature, depth).
    """
    require_variables(dataset, [quantity, f"{quantity}_error"])
    value = finished_only(dataset, quantity)
    own_error = finished_only(dataset, f"{quantity}_error").where(value.notnull())
    seeds = value.notnull().sum("seed")
    some_seed = seeds.where(seeds > 0)
    mean = value.sum("seed") / some_seed
    within = _quadrature_sum(own_error, value.notnull()) / some_seed
    squares = ((value - mean) ** 2).sum("seed")
    between = np.sqrt(squares / (seeds - 1).where(seeds > 1) / some_seed)
    averaged = {"value": mean, "error": np.fmax(within, between), "seeds": seeds}
    return xr.Dataset(averaged).transpose("temperature", "depth")


class Curve(NamedTuple):
    """A quantity against temperature. Shapes: all (num_temperatures,)."""

    temperature: np.ndarray
    value: np.ndarray
    error: np.ndarray


def depth_curves(dataset: xr.Dataset, quantity: str) -> dict[int, Curve]:
    """The measured curve of each depth, averaged over seeds; NaN where nothing is finished."""
    averaged = average_over_seeds(dataset, quantity).sortby(["temperature", "depth"])
    temperature = averaged["temperature"].values
    curves = {}
    for depth in averaged["depth"].values:
        row = averaged.sel(depth=depth)
        curves[int(depth)] = Curve(temperature, row["value"].values, row["error"].values)
    return curves


def finished_only(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """A variable with NaN in place of everything that belongs to an unfinished task."""
    require_variables(dataset, [name])
    return dataset[name].where(is_finished(dataset))


def is_finished(dataset: xr.Dataset) -> xr.DataArray:
    """The completeness mask as booleans. Shape: (temperature, depth, seed)."""
    return dataset["complete"].transpose(*TASK_AXES) == 1


def has_problems(dataset: xr.Dataset, depth: int) -> np.ndarray:
    """Where a seed has a verdict that is not ok, by temperature. Shape: (num_temperatures,)."""
    problems = finished_only(dataset, "problems").sel(depth=depth).sortby("temperature")
    return (problems > 0).any("seed").values


def follow_link(path: Path, group: h5py.Group, name: str) -> h5py.Group:
    """The file of a task, or of a study of it, that a sweep file links to.

    Raises:
        SweepError: it is not where the sweep file expects it.
    """
    try:
        return group[name]
    except (KeyError, OSError) as error:
        kind = group.name.lstrip("/")
        raise SweepError(
            f"{path}: cannot read {kind}/{name}.h5, which it links to; keep sweep.h5 in its folder"
        ) from error


def open_task(path: Path) -> h5py.File:
    """A task file, open for reading.

    Raises:
        SweepError: it is missing, or no task file.
    """
    if not path.exists():
        raise SweepError(f"{path}: no such file; task files are in DIR/tasks")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise SweepError(f"{path}: not a readable HDF5 file") from error
    if file.attrs.get("format") != TASK_FORMAT or "chains" not in file:
        file.close()
        raise SweepError(f"{path}: not a neuralrg task file; give one of DIR/tasks/*.h5")
    return file


def describe_lattice(dataset: xr.Dataset) -> str:
    """The lattice, for a figure's title."""
    size = int(dataset.attrs["linear_size"])
    return rf"${size}\times{size}$ lattice"


def describe_progress(dataset: xr.Dataset) -> str:
    """How many seeds there are and what is still missing, for a figure's title."""
    seeds = dataset.sizes["seed"]
    line = f"{seeds} seed{'s' if seeds > 1 else ''}"
    finished = is_finished(dataset)
    done, total = int(finished.sum()), finished.size
    return line if done == total else f"{line}, {done} of {total} tasks finished"


def source(dataset: xr.Dataset) -> str:
    """The file a dataset came from, for messages."""
    return str(dataset.encoding.get("source", "sweep"))


def _quadrature_sum(errors: xr.DataArray, used: xr.DataArray) -> xr.DataArray:
    """Root of the summed squares over seeds; NaN where a used seed has no error of its own."""
    total = np.sqrt((errors**2).sum("seed"))
    return total.where((errors.notnull() | ~used).all("seed"))


class _Root(NamedTuple):
    """What the root of a sweep file says."""

    attributes: dict[str, object]
    #: Path of the group of each linear size, in ascending order.
    groups: dict[int, str]


def _read_root(path: Path) -> _Root:
    if path.is_dir():
        raise SweepError(
            f"{path}: is a directory; run `neuralrg collect {path}` and name the sweep.h5 it writes"
        )
    if not path.exists():
        raise SweepError(f"{path}: no such file; `neuralrg collect DIR` writes DIR/sweep.h5")
    _check_seal(path)
    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
            version = _checked_version(path, attributes)
            return _Root(attributes, _lattice_groups(path, file, version))
    except OSError as error:
        reason = "permission denied" if isinstance(error, PermissionError) else _first_line(error)
        raise SweepError(f"{path}: not a readable HDF5 file ({reason})") from error


def _check_seal(path: Path) -> None:
    """Refuse a file that is not what was written; one without a checksum passes."""
    try:
        with path.open("rb") as file:
            block = file.read(SEAL_BLOCK)
            if not block.startswith(SEAL):
                return
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return  # reported when HDF5 opens it
    if block.removeprefix(SEAL).split(b"\n")[0] != found.encode():
        raise SweepError(
            f"{path}: damaged sweep file: its checksum does not fit; run `neuralrg collect` again"
        )


def _checked_version(path: Path, attributes: dict[str, object]) -> int:
    """The version of the format, of a sweep file that these scripts can read."""
    form = _text(attributes.get("format"))
    if form != FORMAT:
        raise SweepError(
            f'{path}: not a neuralrg sweep (its attribute "format" is {form!r}, not "{FORMAT}"); '
            "give the sweep.h5 that `neuralrg collect` writes"
        )
    try:
        version = int(np.ravel(attributes.get("format_version"))[0])
    except (TypeError, ValueError, IndexError) as error:
        raise SweepError(f'{path}: its attribute "format_version" is not a number') from error
    if version > FORMAT_VERSION:
        raise SweepError(
            f"{path}: format version {version} is newer than the {FORMAT_VERSION} this script "
            "reads; use the analysis scripts of the neuralrg that wrote it"
        )
    return version


def _lattice_groups(path: Path, file: h5py.File, version: int) -> dict[int, str]:
    has_groups = version > ROOT_LATTICE_VERSION
    names = [name for name in file if LATTICE_GROUP.fullmatch(name)] if has_groups else ["/"]
    if not names:
        raise SweepError(f"{path}: damaged sweep file: no group of a lattice, such as L8")
    if any("linear_size" not in file[name].attrs for name in names):
        raise SweepError(f'{path}: damaged sweep file: no attribute "linear_size"')
    return dict(sorted((int(file[name].attrs["linear_size"]), name) for name in names))


def _open_sizes(path: Path, root: _Root, linear_size: int | None) -> dict[int, xr.Dataset]:
    if linear_size is not None and linear_size not in root.groups:
        raise SweepError(
            f"{path}: has no lattice of L = {linear_size}; there are: {_listed(root.groups)}"
        )
    finished = {}
    for size in root.groups if linear_size is None else [linear_size]:
        dataset = _open_group(path, root.groups[size])
        if is_finished(dataset).any():
            dataset.attrs = root.attributes | dataset.attrs
            finished[size] = dataset
        else:
            dataset.close()
    if not finished:
        where = "in this sweep" if linear_size is None else f"of L = {linear_size}"
        raise SweepError(
            f"{path}: no finished task {where}; "
            "run `neuralrg run` until some are done, then `neuralrg collect` again"
        )
    return finished


def _open_group(path: Path, group: str) -> xr.Dataset:
    try:
        dataset = xr.open_dataset(path, engine="h5netcdf", group=group, decode_times=False)
    # A file without its dimension scales makes h5netcdf raise the last two.
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise SweepError(f"{path}: cannot be read as a sweep file: {_first_line(error)}") from error
    missing = {*TASK_AXES, "complete"} - set(dataset.variables)
    if missing or set(dataset["complete"].dims) != set(TASK_AXES):
        dataset.close()
        raise SweepError(f"{path}: damaged sweep file: no complete(temperature, depth, seed)")
    return dataset


def _listed(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, sizes))


def _text(value: object) -> str | None:
    """An HDF5 string attribute, whichever way it was stored, as `str`."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if value is None else str(value)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
