"""Finished tasks of one or several sweeps, joined: those that an analysis over temperatures, seeds
and linear sizes takes its chains from."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from figure import output_arguments, warn
from sweep import Curve, SweepError, follow_link, linked_names, read_sizes


class Task(NamedTuple):
    """A finished task; the arrays of its file are read when asked for."""

    linear_size: int
    temperature: float
    depth: int
    seed: int
    verdict: str
    #: The sweep file, and its link to the task.
    sweep: Path
    name: str

    def read(self, *names: str) -> list[np.ndarray]:
        """Arrays of the task file by their paths in it.

        Raises:
            SweepError: it lacks one, or is not where the sweep file expects it.
        """
        with h5py.File(self.sweep) as file:
            group = follow_link(self.sweep, file["tasks"], self.name)
            for name in names:
                if name not in group:
                    raise SweepError(
                        f"{self.sweep}: the task {self.name} has no {name}; do it again with the "
                        "present version of neuralrg and a configuration that keeps it"
                    )
            return [group[name][()] for name in names]


def join(sweeps: Iterable[Path]) -> list[Task]:
    """All finished tasks of the sweep files; of one that several have, the first.

    Raises:
        SweepError: a file is no sweep with finished tasks.
    """
    tasks: dict[tuple, Task] = {}
    for sweep in sweeps:
        sizes = read_sizes(sweep)
        for dataset in sizes.values():
            dataset.close()
        with h5py.File(sweep) as file:
            for name in linked_names(file["tasks"], sizes):
                task = _task(sweep, name, follow_link(sweep, file["tasks"], name).attrs)
                tasks.setdefault(task[:4], task)
    return sorted(tasks.values())


def _task(sweep: Path, name: str, attributes: h5py.AttributeManager) -> Task:
    return Task(
        int(attributes["linear_size"]),
        float(attributes["temperature"]),
        int(attributes["depth"]),
        int(attributes["seed"]),
        str(attributes["verdict"]),
        sweep,
        name,
    )


#: Tasks of each linear size by temperature, both ascending.
Sizes = dict[int, dict[float, list[Task]]]


def select(tasks: Iterable[Task], depth: int | None = None, seeds: Sequence[int] = ()) -> Sizes:
    """The tasks whose verdict is ok, of one depth, or of the deepest at each temperature.

    Without `seeds` all of them.

    Raises:
        SweepError: no task is left.
    """
    candidates = [
        task
        for task in sorted(tasks)
        if task.verdict == "ok"
        and (depth is None or task.depth == depth)
        and (not seeds or task.seed in seeds)
    ]
    if not candidates:
        raise SweepError("no finished task of this depth and these seeds has the verdict ok")
    sizes: Sizes = {}
    for (size, temperature), same in groupby(candidates, key=lambda task: task[:2]):
        alike = list(same)
        deepest = max(task.depth for task in alike)
        chosen = [task for task in alike if task.depth == deepest]
        sizes.setdefault(size, {})[temperature] = chosen
    return sizes


def measured(tasks: Mapping[float, Sequence[Task]], quantity: str) -> Curve:
    """What latent HMC measured of a quantity, averaged over the tasks at each temperature.

    The error is the larger of the combined Monte Carlo errors and the standard error from the
    spread between tasks, as in `sweep.average_over_seeds`.
    """
    names = [f"chains/latent/estimates/{quantity}{ending}" for ending in ("", "_error")]
    points = []
    for temperature, same in tasks.items():
        values, errors = np.array([task.read(*names) for task in same]).T
        within = np.sqrt((errors**2).sum()) / len(same)
        between = values.std(ddof=1) / np.sqrt(len(same)) if len(same) > 1 else 0.0
        points.append((temperature, values.mean(), max(within, between)))
    return Curve(*np.array(points).T)


def task_arguments(default_stem: str) -> argparse.ArgumentParser:
    """Parent parser with the arguments of a figure of tasks of several sweeps."""
    parser = argparse.ArgumentParser(add_help=False, parents=[output_arguments(default_stem)])
    parser.add_argument(
        "sweeps", nargs="+", type=Path, help="sweep.h5, as `neuralrg collect` writes it; all join"
    )
    parser.add_argument(
        "--depth", type=int, help="which depth (default: the deepest at each temperature)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        action="append",
        default=[],
        help="a seed, again for more (default: all)",
    )
    return parser


def chosen_tasks(arguments: argparse.Namespace) -> Sizes:
    """The tasks that the command line asks for, with a warning of those that are left out.

    Raises:
        SweepError: as `join` and `select`.
    """
    tasks = join(arguments.sweeps)
    doubtful = [task.name for task in tasks if task.verdict != "ok"]
    if doubtful:
        warn(f"left out, since their verdict is not ok: {', '.join(doubtful)}")
    return select(tasks, arguments.depth, arguments.seed)
