"""Reader of what `neuralrg reference` prints: the spins by cluster Monte Carlo, with errors."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sweep import Curve, SweepError


def read_reference(path: Path, quantities: Iterable[str]) -> dict[str, Curve]:
    """Each quantity against temperature, in ascending order.

    Raises:
        SweepError: the file cannot be used, or lacks one of the quantities.
    """
    try:
        with path.open(newline="") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: float(row["temperature"]))
        if not rows:
            raise ValueError("it has no rows")
        return {name: _curve(rows, name) for name in quantities}
    except OSError as error:
        raise SweepError(f"{path}: cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise SweepError(f"{path}: not an output of `neuralrg reference`: {error}") from error


def _curve(rows: list[dict[str, str]], name: str) -> Curve:
    columns = ("temperature", name, f"{name}_error")
    return Curve(*(np.array([float(row[column]) for row in rows]) for column in columns))
