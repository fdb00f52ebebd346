"""jobs/*.sbatch: what they do with the program's exit status, with stand-ins for Slurm's commands.

tests/slurm_sweep.sh submits them to a real Slurm, whose requeueing does not fail.
"""

import os
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "jobs").glob("*.sbatch"))


def write_program(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/bash", *lines, ""]))
    path.chmod(0o755)
    return path


@pytest.fixture
def submit(tmp_path):
    """Run a job script whose `neuralrg run` and `scontrol` end with these statuses."""

    def run(script: str, run_status: int, requeue_status: int) -> subprocess.CompletedProcess:
        programs = tmp_path / "bin"
        programs.mkdir()
        # srun: its options begin with --, what follows is the command.
        write_program(programs / "srun", 'while [[ $1 == --* ]]; do shift; done; exec "$@"')
        write_program(
            programs / "scontrol", f'echo "scontrol $*" >>{tmp_path}/log', f"exit {requeue_status}"
        )
        program = write_program(
            tmp_path / "neuralrg",
            f'echo "neuralrg $*" >>{tmp_path}/log',
            f"[[ $1 != run ]] || exit {run_status}",
        )
        (tmp_path / "c.toml").touch()
        environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "NEURALRG": str(program),
            "SLURM_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": "3",
            "SLURM_CPUS_PER_TASK": "1",
        }
        command = ["bash", str(ROOT / "jobs" / script), "c.toml", "d"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_job_that_cannot_be_requeued_says_so_and_keeps_its_status(submit, script, tmp_path):
    done = submit(script, run_status=75, requeue_status=1)
    assert done.returncode == 75
    assert "job 7 was not requeued" in done.stderr
    assert "submit the same line again" in done.stderr
    assert (tmp_path / "log").read_text().splitlines()[1:] == ["scontrol requeue 7"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_job_that_is_requeued_has_no_error(submit, script):
    done = submit(script, run_status=75, requeue_status=0)
    assert (done.returncode, done.stderr) == (75, "")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("status", [0, 1])
def test_a_job_that_ended_keeps_its_status_and_is_collected(submit, script, status, tmp_path):
    done = submit(script, run_status=status, requeue_status=1)
    assert (done.returncode, done.stderr) == (status, "")
    run, *rest = (tmp_path / "log").read_text().splitlines()
    assert run.startswith("neuralrg run c.toml -o d")
    # Elements of an array leave that to a job of its own.
    assert rest == ([] if script == "array.sbatch" else ["neuralrg collect d"])
