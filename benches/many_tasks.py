"""Times `status`, `collect` and `run` for a sweep of very many small tasks.

One task (L = 4) is really done; the files of the others are copies of its file that say they are
theirs. Also prints what a task takes on the disk.

    .venv/bin/python benches/many_tasks.py --program target/release/neuralrg
"""

import argparse
import hashlib
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path

CONFIGURATION = """
[sweep]
name = "many"
linear_size = 4
temperatures = {temperatures}
depths = [1]
seeds = {seeds}

[flow]
splits = "cycle" # random ones would be others for each seed, and copies refused
couplings = 2
hidden_layers = 1
hidden_width = 4

[train]
steps = 6
batch = 8
log_every = 3

[evaluate]
samples = 64
batch = 64
keep_samples = 2

[hmc]
chains = 4
warmup = 4
trajectories = 10
leapfrog_steps = 2

[run]
device = "cpu"
"""
#: Most seeds at a temperature.
SEEDS = 10
#: A time is the shortest of so many.
REPETITIONS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--program", default="target/release/neuralrg", help="the program")
    parser.add_argument("--tasks", type=int, default=10_010, help="a multiple of 10")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(arguments.program).resolve(), arguments.tasks, Path(folder))


def measure(program: Path, tasks: int, folder: Path) -> None:
    config, sweep = folder / "many.toml", folder / "many"
    temperatures = [round(2 + step / 1000, 3) for step in range(tasks // SEEDS)]
    seeds = list(range(1, SEEDS + 1))
    config.write_text(CONFIGURATION.format(temperatures=temperatures, seeds=seeds))
    run = [program, "run", config, "-o", sweep]
    subprocess.run([*run, "--task-index", "0"], check=True, capture_output=True)
    made = next((sweep / "tasks").glob("*.h5"))
    print(f"{tasks} tasks, {made.stat().st_size / 1e3:.0f} kB each")
    names = [
        task["task"] for task in json.loads(output(program, "status", sweep, "--json"))["tasks"]
    ]
    original = made.read_bytes()
    for name in names:
        (made.parent / f"{name}.h5").write_bytes(renamed(original, name))

    for label, command, expected in [
        ("status", [program, "status", sweep], f"{tasks} tasks: {tasks} done"),
        ("status --json", [program, "status", sweep, "--json"], '"done":' + str(tasks)),
        ("collect", [program, "collect", sweep], f"{tasks} of {tasks} tasks"),
        ("run, with nothing to do", run, ""),
    ]:
        wall, processor = shortest(*command, expected=expected)
        print(f"{label}: {wall:.2f} s, {processor:.2f} s of a core", flush=True)


def renamed(file: bytes, name: str) -> bytes:
    """The task file with another task in its user block, sealed again."""
    length = json.loads(file.split(b"\n", 2)[1])["content_bytes"]
    block, content = file[:-length], file[-length:]
    first, head, _ = block.rstrip(b"\0").decode().splitlines()
    head = json.dumps(json.loads(head) | {"task": name}, separators=(",", ":"))
    seal = hashlib.sha256(head.encode()).hexdigest()
    text = f"{first}\n{head}\n# sha256 {seal}\n".encode()
    return text.ljust(len(block), b"\0") + content


def output(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return done.stdout


def shortest(*command: object, expected: str) -> tuple[float, float]:
    """Seconds that a command takes, by the clock and of a core; it must print what is expected."""
    times = []
    for _ in range(REPETITIONS):
        start, before = time.perf_counter(), processor_seconds()
        printed = output(*command)
        times.append((time.perf_counter() - start, processor_seconds() - before))
        assert expected in printed, printed[-1000:]
    return min(times)


def processor_seconds() -> float:
    """Of all processes that this one has started and seen ending."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
