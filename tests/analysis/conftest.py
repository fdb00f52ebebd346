"""Fixtures: made-up sweeps, one real sweep, and a way to run the figure scripts."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from synthetic import SyntheticSweep

ROOT = Path(__file__).parents[2]

#: Runs a script of analysis/ with arguments.
Runner = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """A finished synthetic sweep at L = 8."""
    return SyntheticSweep().write(tmp_path / "sweep.h5")


@pytest.fixture
def run_figure(tmp_path: Path) -> Runner:
    """Run `analysis/NAME` as a user would, from an unrelated directory."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "analysis" / name), *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )

    return run


def program() -> Path:
    """The program: target/release/neuralrg, or what the environment variable NEURALRG names."""
    binary = Path(os.environ.get("NEURALRG", ROOT / "target" / "release" / "neuralrg"))
    if not binary.is_file():
        pytest.fail(
            f"{binary} does not exist: build it with `cargo build --release`, "
            "or name another in the environment variable NEURALRG",
            pytrace=False,
        )
    return binary.resolve()


@pytest.fixture(scope="session")
def real_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `sweep.h5` made by the program itself from configs/smoke.toml."""
    binary = program()
    directory = tmp_path_factory.mktemp("real") / "smoke"
    for command in (
        [binary, "run", "configs/smoke.toml", "-o", directory],
        [binary, "collect", directory],
    ):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode != 0:
            line = " ".join(map(str, command))
            pytest.fail(f"`{line}` exits {done.returncode}:\n{done.stderr}", pytrace=False)
    return directory / "sweep.h5"
