"""Fixtures: made-up sweeps, one real sweep, and a way to run the figure scripts."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from synthetic import SyntheticSweep

ROOT = Path(__file__).parents[2]
#: Seconds after which a program hangs.
PATIENCE = 1200.0 * float(os.environ.get("NEURALRG_TEST_TIME", "1"))

#: Runs a script of analysis/ with arguments.
ScriptRunner = Callable[..., subprocess.CompletedProcess]
#: Runs the program with arguments.
Runner = Callable[..., str]


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """A finished synthetic sweep at L = 8."""
    return SyntheticSweep().write(tmp_path / "sweep.h5")


@pytest.fixture
def two_lattices(tmp_path: Path) -> Path:
    """A finished synthetic sweep at L = 8 and 16, the larger one first in the file."""
    return SyntheticSweep(linear_size=16).write(tmp_path / "sweep.h5", SyntheticSweep())


@pytest.fixture
def run_figure(tmp_path: Path) -> ScriptRunner:
    """Run `analysis/NAME` as a user would, from an unrelated directory."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "analysis" / name), *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    return run


@pytest.fixture(scope="session")
def neuralrg() -> Runner:
    """Run the program with arguments, in the repository; what it prints.

    The program is target/release/neuralrg, or what the environment variable NEURALRG names.
    """
    binary = Path(os.environ.get("NEURALRG", ROOT / "target" / "release" / "neuralrg"))
    if not binary.is_file():
        pytest.fail(
            f"{binary} does not exist: build it with `cargo build --release`, "
            "or name another in the environment variable NEURALRG",
            pytrace=False,
        )

    def run(*arguments: object) -> str:
        command = [str(binary.resolve()), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode != 0:
            line = " ".join(command)
            pytest.fail(f"`{line}` exits {done.returncode}:\n{done.stderr}", pytrace=False)
        return done.stdout

    run.program = binary.resolve()
    return run


@pytest.fixture(scope="session")
def real_sweep(neuralrg: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `sweep.h5` made by the program itself from configs/smoke.toml."""
    directory = tmp_path_factory.mktemp("real") / "smoke"
    neuralrg("run", "configs/smoke.toml", "-o", directory)
    neuralrg("collect", directory)
    return directory / "sweep.h5"


@pytest.fixture(scope="session")
def studied_sweep(
    real_sweep: Path, neuralrg: Runner, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A copy of it with all studies of its tasks."""
    directory = tmp_path_factory.mktemp("studied") / "smoke"
    shutil.copytree(real_sweep.parent, directory)
    for command in ("respond", "mutual-information", "coarse"):
        neuralrg(command, directory, "--samples", 512)
    neuralrg("collect", directory)
    return directory / "sweep.h5"


def need(available: bool, what: str) -> None:
    """Skip a test that this machine cannot run; in continuous integration it must."""
    if available:
        return
    message = f"{what}; `scripts/setup --test` installs it"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
