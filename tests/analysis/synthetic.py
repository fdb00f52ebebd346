"""Writes sweep files with made-up numbers and the exact layout of the real ones."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

import contract

SAMPLES = 4


class SyntheticSweep:
    """Values of a made-up sweep of one lattice, to be changed by a test before `write`."""

    def __init__(
        self,
        temperatures: Sequence[float] = (2.0, 2.2, 2.4, 2.7),
        depths: Sequence[int] = (1, 2, 3),
        seeds: Sequence[int] = (0, 1),
        linear_size: int = 8,
    ) -> None:
        self.attributes = {
            "format": "neuralrg-sweep",
            "format_version": 4,
            "name": "synthetic",
            "configuration": '[sweep]\nname = "synthetic"\n',
            "code_version": "0.0.0",
            "pulls": "",
        }
        self.linear_size = linear_size
        self.coordinates = _coordinates(temperatures, depths, seeds, linear_size)
        self.variables = _variables(self.coordinates, linear_size)

    def unfinish(self, temperature: int, depth: int, seed: int) -> None:
        """Mark one task, by its position, as unfinished, as `collect` would."""
        self.variables["complete"][temperature, depth, seed] = 0
        for name, dims in contract.VARIABLES.items():
            if name != "complete" and dims[:3] == contract.TASK:
                self.variables[name][temperature, depth, seed] = np.nan

    def write(self, path: Path, *others: "SyntheticSweep") -> Path:
        """Write the HDF5 file, with others that are of other lattices."""
        with h5py.File(path, "w") as file:
            file.attrs.update(self.attributes)
            tasks = file.create_group("tasks")
            for made in (self, *others):
                made.write_lattice(file.create_group(contract.lattice_group(made.linear_size)))
                # As in a sweep directory that was moved: the links lead nowhere.
                name = f"L{made.linear_size}_T2_d1_s0"
                tasks[name] = h5py.ExternalLink(f"tasks/{name}.h5", "/")
        return path

    def write_lattice(self, group: h5py.Group) -> None:
        """Write coordinates, as dimension scales, and variables to a group."""
        group.attrs["linear_size"] = self.linear_size
        for name, values in self.coordinates.items():
            scale = group.create_dataset(name, data=values)
            scale.make_scale(name)
            _describe(scale, name)
        for name, values in self.variables.items():
            dataset = group.create_dataset(name, data=values)
            _describe(dataset, name)
            for axis, dim in enumerate(contract.VARIABLES[name]):
                dataset.dims[axis].attach_scale(group[dim])


def _describe(dataset: h5py.Dataset, name: str) -> None:
    dataset.attrs["units"] = "1"
    dataset.attrs["long_name"] = name.replace("_", " ")


def _coordinates(
    temperatures: Sequence[float], depths: Sequence[int], seeds: Sequence[int], linear_size: int
) -> dict[str, np.ndarray]:
    sites = np.arange(linear_size)
    return {
        "temperature": np.array(temperatures, dtype=np.float64),
        "depth": np.array(depths, dtype=np.int64),
        "seed": np.array(seeds, dtype=np.int64),
        "sample": np.arange(SAMPLES),
        "row": sites,
        "column": sites,
        "k_x": 2.0 * np.pi * sites / linear_size,
        "k_y": 2.0 * np.pi * sites / linear_size,
        "r_x": sites,
        "r_y": sites,
    }


def _variables(coordinates: dict[str, np.ndarray], linear_size: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    lengths = {name: len(values) for name, values in coordinates.items()}
    shapes = {
        name: tuple(lengths[dim] for dim in dims) for name, dims in contract.VARIABLES.items()
    }
    values = {name: random.uniform(0.1, 1.0, shape) for name, shape in shapes.items()}
    values["complete"] = np.ones(shapes["complete"], dtype=np.int8)
    values["problems"] = np.zeros(shapes["problems"])
    values.update(_free_energies(coordinates, linear_size, random))
    values["samples"] = _fields(coordinates, shapes["samples"], random)
    return values


def _free_energies(
    coordinates: dict[str, np.ndarray], linear_size: int, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Gaps that fall with depth, like the paper's, and everything that follows from them."""
    temperature = coordinates["temperature"][:, None, None]
    depth = coordinates["depth"][None, :, None]
    seed = coordinates["seed"][None, None, :]
    sites = linear_size**2
    exact = -sites * (2.59 - 0.82 * (coordinates["temperature"] - 2.0))
    magnitude = np.abs(exact)[:, None, None]
    peak = 1.0 + np.exp(-(((temperature - 2.3) / 0.2) ** 2))
    relative = 0.005 * peak + 0.04 * np.exp(1.0 - depth) * (2.2 / temperature) ** 4
    relative = relative * (1.0 + 0.05 * random.standard_normal(relative.shape)) + 0.0 * seed
    error = 0.03 * relative
    return {
        "relative_error": relative,
        "relative_error_error": error,
        "gap": relative * magnitude,
        "gap_error": error * magnitude,
        "gap_per_site": relative * magnitude / sites,
        "gap_per_site_error": error * magnitude / sites,
        "free_energy": relative * magnitude + exact[:, None, None],
        "free_energy_error": error * magnitude,
        "free_energy_exact": exact,
        "free_energy_gaussian": exact + 0.02 * np.abs(exact),
        "relative_error_gaussian": np.full(exact.shape, 0.02),
    }


def _fields(
    coordinates: dict[str, np.ndarray], shape: tuple[int, ...], random: np.random.Generator
) -> np.ndarray:
    """Two-humped noise, more ordered when colder."""
    order = np.clip(2.6 - coordinates["temperature"], 0.0, 0.45).reshape(-1, 1, 1, 1, 1, 1)
    spins = np.where(random.uniform(size=shape) < 0.5 + order, 1.0, -1.0)
    return (3.0 * spins + random.standard_normal(shape)).astype(np.float32)
