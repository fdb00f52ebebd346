"""Times tasks on one rank and on several: teams (`run.ranks_per_task`), or a task for each rank.

Runs the same small task again and again, alone and under mpirun, at L = 16 with batches of 512
samples and 64 chains, one thread a rank; prints samples per second of the training and leapfrog
steps per second (all chains together) of the latent HMC, and their ratios. Beside them stands what
the machine allows: the same for unrelated tasks at the same time, one for each rank with its share
of the batch, which never wait for each other. Then it runs a sweep of four tasks a rank, alone and
with a task for each rank, again and again, and prints tasks per hour, start and end of the job
included; beside them, sweeps at the same time that know nothing of each other, one for each rank
with its share of the tasks. The machine should have a free core for each rank: ratios of a busy
machine mean little.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import h5py

Result = TypeVar("Result")

# So many that one of unequal length at the end of a sweep weighs little.
TASKS_PER_RANK = 4

CONFIGURATION = """
[sweep]
name = "teams"
linear_size = 16
temperatures = [2.269185314213022]
depths = [4]
seeds = {seeds}

[flow]
preset = "{preset}"

[train]
steps = {steps}
batch = {batch}
seconds = 0.0
batch_doublings = 0

[evaluate]
samples = 512
batch = 512

[hmc]
chains = {chains}
warmup = 0
trajectories = {trajectories}
leapfrog_steps = 6
adapt_length = false

[run]
device = "cpu"
engine = "{engine}"
ranks_per_task = {ranks_per_task}
"""

# Open MPI as the Makefile wants it: no rank pinned, and root may.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
}


def run_sweep(folder: Path, ranks: int, values: dict[str, object]) -> Path:
    """Runs a sweep of the configuration with these values; its folder."""
    config, directory = folder / "teams.toml", folder / "sweep"
    config.write_text(CONFIGURATION.format(**values))
    launcher = [] if ranks == 1 else ["mpirun", "-n", str(ranks)]
    command = [*launcher, values["program"], "run", str(config), "-o", str(directory)]
    environment = os.environ | ENVIRONMENT | {"RUST_LOG": "error"}
    subprocess.run(command, check=True, env=environment)
    return directory


def rates(ranks: int, preset: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Training samples and leapfrog steps per second of one task on a team of ranks."""
    values = vars(arguments) | {"ranks_per_task": ranks, "preset": preset, "seeds": [1]}
    with tempfile.TemporaryDirectory() as folder:
        (path,) = (run_sweep(Path(folder), ranks, values) / "tasks").glob("*.h5")
        with h5py.File(path) as task:
            seconds = {name: task["timing"][name][()] for name in ("train_seconds", "hmc_seconds")}
    samples = arguments.steps * arguments.batch
    leapfrogs = 10 * arguments.trajectories * arguments.chains
    return samples / seconds["train_seconds"], leapfrogs / seconds["hmc_seconds"]


def at_once(count: int, work: Callable[[int], Result]) -> list[Result]:
    """What `work` returns for 0 to `count` - 1, done at the same time."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def unrelated(preset: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Rates of tasks at the same time, one for each rank with its share of the batch, together."""
    share = {name: vars(arguments)[name] // arguments.ranks for name in ("batch", "chains")}
    one = argparse.Namespace(**vars(arguments) | share)
    found = at_once(arguments.ranks, lambda _: rates(1, preset, one))
    train, hmc = (sum(column) for column in zip(*found, strict=True))
    return train, hmc


def throughput(ranks: int, sweeps: int, preset: str, arguments: argparse.Namespace) -> float:
    """Tasks per hour of all tasks in so many sweeps at the same time, each on so many ranks."""
    seeds = list(range(1, TASKS_PER_RANK * arguments.ranks + 1))
    common = {"ranks_per_task": 1, "preset": preset, "steps": arguments.task_steps}

    def run_share(index: int) -> None:
        own = common | {"seeds": seeds[index::sweeps]}
        with tempfile.TemporaryDirectory() as folder:
            run_sweep(Path(folder), ranks, vars(arguments) | own)

    begin = time.perf_counter()
    at_once(sweeps, run_share)
    return 3600 * len(seeds) / (time.perf_counter() - begin)


def compare(preset: str, arguments: argparse.Namespace) -> None:
    """Prints all rates of one preset, and the medians of their ratios."""
    ranks = arguments.ranks
    print(f"preset {preset}: training samples/s, leapfrog steps/s of all chains")
    ratios: list[tuple[float, ...]] = []
    for _ in range(arguments.repeats):
        alone, team = rates(1, preset, arguments), rates(ranks, preset, arguments)
        both = zip(alone, team, unrelated(preset, arguments), strict=True)
        parts = [(one, many, many / one, limit / one) for one, many, limit in both]
        ratios.append(tuple(ratio for part in parts for ratio in part[2:]))
        texts = [
            f"{one:8.0f} → {many:8.0f} ({ratio:.2f} x of {limit:.2f} x)"
            for one, many, ratio, limit in parts
        ]
        print(f"  1 → {ranks} ranks: " + "   ".join(texts), flush=True)
    train, train_limit, hmc, hmc_limit = map(statistics.median, zip(*ratios, strict=True))
    print(
        f"  medians: training {train:.2f} x, HMC {hmc:.2f} x; unrelated tasks {train_limit:.2f} x, "
        f"{hmc_limit:.2f} x",
        flush=True,
    )
    gains = []
    for _ in range(arguments.task_repeats):
        kinds = (1, 1), (ranks, 1), (1, ranks)
        one, many, limit = (throughput(*kind, preset, arguments) for kind in kinds)
        gains.append((many / one, limit / one))
        print(
            f"  a task for each rank: {one:.0f} → {many:.0f} tasks/hour ({many / one:.2f} x of "
            f"{limit / one:.2f} x)",
            flush=True,
        )
    gain, limit = map(statistics.median, zip(*gains, strict=True))
    print(f"  medians: {gain:.2f} x; unrelated sweeps {limit:.2f} x", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--ranks", type=int, default=2, help="ranks to compare with one")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each kind of team")
    parser.add_argument("--steps", type=int, default=300, help="training steps of a run")
    parser.add_argument(
        "--task-steps", type=int, default=300, help="training steps of each task of the sweep"
    )
    parser.add_argument("--task-repeats", type=int, default=3, help="runs of each kind of sweep")
    parser.add_argument(
        "--trajectories", type=int, default=40, help="HMC trajectories of a run, 8 or more"
    )
    parser.add_argument("--batch", type=int, default=512, help="samples of a training step")
    parser.add_argument("--chains", type=int, default=64, help="chains of HMC")
    parser.add_argument("--engine", default="native", choices=["native", "torch"])
    parser.add_argument("--presets", nargs="+", default=["paper", "best"], help="flows")
    parser.add_argument("--program", default="target/release/neuralrg", help="path of neuralrg")
    arguments = parser.parse_args()
    for preset in arguments.presets:
        compare(preset, arguments)


if __name__ == "__main__":
    main()
