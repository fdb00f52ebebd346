"""Writes sweeps of format 4 with task files of made-up chains."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np


class SyntheticTask(NamedTuple):
    """A task with the arrays of its file by their paths in it."""

    linear_size: int
    temperature: float
    arrays: Mapping[str, np.ndarray | float]
    depth: int = 1
    seed: int = 1
    verdict: str = "ok"

    @property
    def name(self) -> str:
        temperature = np.format_float_positional(self.temperature, trim="-")
        return f"L{self.linear_size}_T{temperature}_d{self.depth}_s{self.seed}"


def latent(**arrays: np.ndarray | float) -> dict[str, np.ndarray | float]:
    """Arrays of latent HMC; scalars are estimates."""
    return {
        f"chains/latent/{name if np.ndim(value) else f'estimates/{name}'}": value
        for name, value in arrays.items()
    }


def write_sweep(directory: Path, tasks: Iterable[SyntheticTask]) -> Path:
    """`sweep.h5` in a new folder, with a file of each task in `tasks/`."""
    (directory / "tasks").mkdir(parents=True)
    tasks = list(tasks)
    with h5py.File(directory / "sweep.h5", "w") as file:
        file.attrs.update({"format": "neuralrg-sweep", "format_version": 4, "name": "made-up"})
        links = file.create_group("tasks")
        for task in tasks:
            _write_task(directory / "tasks" / f"{task.name}.h5", task)
            links[task.name] = h5py.ExternalLink(f"tasks/{task.name}.h5", "/")
        for size in {task.linear_size for task in tasks}:
            _write_size(file, size, [task for task in tasks if task.linear_size == size])
    return directory / "sweep.h5"


def _write_task(path: Path, task: SyntheticTask) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "neuralrg-task", "verdict": task.verdict})
        for name in ("linear_size", "temperature", "depth", "seed"):
            file.attrs[name] = getattr(task, name)
        for name, value in task.arrays.items():
            file[name] = value


def _write_size(file: h5py.File, size: int, tasks: list[SyntheticTask]) -> None:
    group = file.create_group(f"L{size}")
    group.attrs["linear_size"] = size
    axes = {
        name: sorted({getattr(task, name) for task in tasks})
        for name in ("temperature", "depth", "seed")
    }
    complete = np.zeros([len(values) for values in axes.values()], dtype=np.int8)
    for task in tasks:
        place = tuple(values.index(getattr(task, name)) for name, values in axes.items())
        complete[place] = 1
    group["complete"] = complete
    for axis, (name, values) in enumerate(axes.items()):
        group[name] = values
        group[name].make_scale(name)
        group["complete"].dims[axis].attach_scale(group[name])
