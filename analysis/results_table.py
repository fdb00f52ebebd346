#!/usr/bin/env python3
"""Table of a sweep's free energies in Markdown, one row per finished task.

Gap with its error, effective sample sizes of both directions, the importance-weighted estimate and
that of the bridge against the exact value, times.
"""

import argparse

import xarray as xr

from figure import run_script, sweep_arguments, with_error
from sweep import is_finished, read_sizes, require_variables

VARIABLES = (
    "gap",
    "gap_error",
    "effective_sample_size",
    "forward_effective_sample_size",
    "importance_free_energy",
    "importance_free_energy_error",
    "bridge_free_energy",
    "bridge_free_energy_error",
    "free_energy_exact",
    "train_seconds",
    "wall_seconds",
)

HEADER = (
    "| L | T | depth | seed | gap (nat) | ESS | forward ESS | importance-weighted - exact "
    "| bridge - exact | training (s) | task (s) |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def rows(dataset: xr.Dataset) -> list[str]:
    """One line per finished task, in the order temperature, depth, seed."""
    require_variables(dataset, VARIABLES)
    stacked = dataset[[*VARIABLES]].stack(task=("temperature", "depth", "seed"))
    finished = is_finished(dataset).stack(task=("temperature", "depth", "seed"))
    lines = []
    for index in finished["task"].to_numpy()[finished.to_numpy()]:
        temperature, depth, seed = index
        task = stacked.sel(task=index)
        number = {name: float(task[name]) for name in VARIABLES}
        exact = number["free_energy_exact"]
        cells = (
            dataset.attrs["linear_size"],
            f"{temperature:.6g}",
            depth,
            seed,
            with_error(number["gap"], number["gap_error"]),
            f"{number['effective_sample_size']:.3f}",
            f"{number['forward_effective_sample_size']:.3f}",
            with_error(
                number["importance_free_energy"] - exact, number["importance_free_energy_error"]
            ),
            with_error(number["bridge_free_energy"] - exact, number["bridge_free_energy_error"]),
            f"{number['train_seconds']:.0f}",
            f"{number['wall_seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return lines


def main() -> list[str]:
    """Command line; returns the lines of the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], parents=[sweep_arguments()]
    )
    arguments = parser.parse_args()
    sizes = read_sizes(arguments.sweep, arguments.linear_size)
    return [*HEADER, *(line for dataset in sizes.values() for line in rows(dataset))]


if __name__ == "__main__":
    run_script(main)
