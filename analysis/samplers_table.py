#!/usr/bin/env python3
"""Table of the samplers of a sweep in Markdown, one row per finished task and sampler.

The numbers are in the task files, which must lie beside sweep.h5 as `neuralrg collect` left them.
"""

import argparse
from pathlib import Path

import h5py

from figure import run_script, sweep_arguments
from sweep import follow_link, linked_names, read_sizes

HEADER = (
    "| task | sampler | energy - exact (errors) | <m²> | tau_int of m² | acceptance "
    "| least ESS | ESS of m² | ESS of m² / s | ESS of m² / gradient |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def rows(path: Path, linear_size: int | None = None) -> list[str]:
    """Samplers in the order of their names; seconds are those of the measured trajectories.

    `linear_size` chooses the tasks of one lattice.

    Raises:
        SweepError: the sweep cannot be used, or the task files are not where it links to.
    """
    sizes = read_sizes(path, linear_size)
    lines = []
    with h5py.File(path) as file:
        for name in linked_names(file["tasks"], sizes):
            task = follow_link(path, file["tasks"], name)
            exact = task["references/energy_exact"][()]
            for sampler, group in task["chains"].items():
                if sampler != "reweighting":
                    number = {key: float(value[()]) for key, value in group["estimates"].items()}
                    draws = group["energy"].size
                    seconds = task[f"timing/{sampler}_seconds"][()]
                    lines.append(_row(name, sampler, number, exact, seconds, draws))
    return lines


def _row(
    name: str, sampler: str, number: dict[str, float], exact: float, seconds: float, draws: int
) -> str:
    pull = (number["energy"] - exact) / number["energy_error"]
    samples = number["magnetization_squared_ess_bulk"]
    gradients = number["leapfrog_steps"] * draws
    cells = (
        name,
        sampler,
        f"{pull:.1f}",
        f"{number['magnetization_squared']:.4f} ± {number['magnetization_squared_error']:.4f}",
        f"{number['magnetization_squared_tau_int']:.2f}"
        f" ± {number['magnetization_squared_tau_int_error']:.2f}",
        f"{number['acceptance']:.3f}",
        f"{number['ess_least']:.0f}",
        f"{samples:.0f}",
        f"{samples / seconds:.0f}",
        f"{samples / gradients:.4f}" if gradients > 0.0 else "-",
    )
    return f"| {' | '.join(cells)} |"


def main() -> list[str]:
    """Command line; returns the lines of the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[sweep_arguments()],
    )
    arguments = parser.parse_args()
    return [*HEADER, *rows(arguments.sweep, arguments.linear_size)]


if __name__ == "__main__":
    run_script(main)
