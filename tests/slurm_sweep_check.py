"""Checks a collected sweep against its configuration: every task there and complete, on two ranks.

Usage: slurm_sweep_check.py CONFIG DIR LOG
"""

import re
import sys
import tomllib
from pathlib import Path

import h5py


def number_of_temperatures(temperatures):
    """Of a list, or of a table { from, to, step } with both ends included."""
    if isinstance(temperatures, list):
        return len(temperatures)
    span = temperatures["to"] - temperatures["from"]
    return int(span / temperatures["step"] + 1e-6) + 1


def expected_shape(config):
    """Numbers of temperatures, depths and seeds."""
    sweep = tomllib.loads(config.read_text())["sweep"]
    return (
        number_of_temperatures(sweep["temperatures"]),
        len(sweep["depths"]),
        len(sweep.get("seeds", [1])),
    )


def ranks_of(log):
    """Rank of every task, by the lines that tell in the log of its end."""
    finished = re.findall(r"rank (\d+)\] task (\S+) is done", log.read_text())
    return {task: int(rank) for rank, task in finished}


def main(config, directory, log):
    shape = expected_shape(config)
    tasks = sorted((directory / "tasks").glob("*.h5"))
    number = shape[0] * shape[1] * shape[2]
    assert len(tasks) == number, f"{number} tasks expected, {len(tasks)} task files found"
    with h5py.File(directory / "sweep.h5") as file:
        (lattice,) = (name for name in file if name.startswith("L"))
        complete = file[lattice]["complete"]
        dimensions = tuple(axis[0].name for axis in complete.dims)
        expected = tuple(f"/{lattice}/{axis}" for axis in ("temperature", "depth", "seed"))
        assert dimensions == expected, f"dimensions are {dimensions}"
        assert complete.shape == shape, f"shape is {complete.shape}, the configuration's {shape}"
        assert complete[:].all(), f"not complete:\n{complete[:]}"
    ranks = ranks_of(log)
    assert len(ranks) == number, f"the log tells of {len(ranks)} finished tasks, not of {number}"
    assert set(ranks.values()) == {0, 1}, f"tasks did not run on ranks 0 and 1: {ranks}"
    print(f"{number} tasks complete, on ranks 0 and 1")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
