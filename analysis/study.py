"""Reader of the studies of finished tasks that `neuralrg collect` links to in sweep.h5."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import xarray as xr

from figure import figure_arguments
from sweep import (
    CRITICAL_TEMPERATURE,
    SweepError,
    arrays_of,
    finished_only,
    follow_link,
    linked_names,
    read_sizes,
)

#: The command that makes each study.
COMMANDS = {
    "responses": "respond",
    "mutual_information": "mutual-information",
    "coarse": "coarse",
}


class Study(NamedTuple):
    """One study of one task: its arrays by their names in the file."""

    task: str
    linear_size: int
    temperature: float
    depth: int
    seed: int
    #: How many problems the task's verdict lists; 0: ok.
    problems: int
    arrays: dict[str, np.ndarray]


def read_studies(
    sweep: Path, kind: str, tasks: Sequence[str] = (), linear_size: int | None = None
) -> list[Study]:
    """The studies of one kind of the named tasks, or of all tasks that have one.

    `linear_size` chooses among the tasks of one lattice.

    Raises:
        SweepError: the sweep cannot be used, has no such study, or none of a named task.
    """
    problems = {
        size: finished_only(dataset, "problems")
        for size, dataset in read_sizes(sweep, linear_size).items()
    }
    with h5py.File(sweep) as file:
        group = file.get(kind, {})
        names = linked_names(group, problems)
        missing = [name for name in tasks if name not in names]
        if missing or not names:
            what = f"study of {', '.join(missing)}" if missing else "study"
            where = "" if linear_size is None else f" at L = {linear_size}"
            raise SweepError(
                f"{sweep}: has no {kind} {what}{where}; run `neuralrg {COMMANDS[kind]} DIR` and "
                "`neuralrg collect DIR`"
            )
        return [_read(sweep, group, name, problems) for name in tasks or names]


def most_telling(studies: Sequence[Study]) -> Study:
    """Of the deepest flows the one closest to the critical temperature."""
    return min(studies, key=lambda study: (-study.depth, _distance(study), study.seed))


def describe_task(study: Study) -> str:
    """Lattice, temperature and depth, for a figure's title, and whether to trust the task."""
    size = study.linear_size
    verdict = ", verdict not ok" if study.problems else ""
    return (
        rf"${size}\times{size}$ lattice, $T = {study.temperature:.6g}\,J/k_\mathrm{{B}}$, "
        f"depth {study.depth}, seed {study.seed}{verdict}"
    )


def study_parser(stem: str, description: str) -> argparse.ArgumentParser:
    """The command line of a figure of one task's study."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[figure_arguments(stem)],
    )
    parser.add_argument("--task", help="which task (default: the deepest, nearest to T_c)")
    return parser


def _distance(study: Study) -> float:
    return abs(study.temperature - CRITICAL_TEMPERATURE)


def _read(sweep: Path, group: h5py.Group, name: str, problems: dict[int, xr.DataArray]) -> Study:
    file = follow_link(sweep, group, name)
    arrays = arrays_of(file)
    attributes = file.attrs
    linear_size = int(attributes["linear_size"])
    task = {
        "temperature": float(attributes["temperature"]),
        "depth": int(attributes["depth"]),
        "seed": int(attributes["seed"]),
    }
    return Study(
        task=name,
        linear_size=linear_size,
        **task,
        problems=int(problems[linear_size].sel(task)),
        arrays=arrays,
    )
