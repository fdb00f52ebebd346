"""analysis/results_table.py: one row per finished task, with the file's numbers."""

import os
import subprocess
import sys

import sweep
from conftest import ROOT
from figure import with_error
from results_table import rows


def test_rows_hold_the_numbers_of_the_real_sweep(real_sweep):
    with sweep.read_sweep(real_sweep) as dataset:
        lines = rows(dataset)
        assert len(lines) == int(dataset["complete"].sum())
        first = dataset.isel(temperature=0, depth=0, seed=0)
        gap = with_error(float(first["gap"]), float(first["gap_error"]))
        assert gap in lines[0]
        assert lines[0].startswith(f"| {dataset.attrs['linear_size']} | ")


def test_script_prints_a_markdown_table(real_sweep, run_figure):
    done = run_figure("results_table.py", real_sweep)
    assert done.returncode == 0, done.stderr
    header, ruler, *body = done.stdout.splitlines()
    assert header.startswith("| L | T |")
    assert body
    assert {line.count("|") for line in (header, ruler, *body)} == {12}


def test_every_lattice_has_rows_or_the_chosen_one(two_lattices, run_figure):
    def sizes(*arguments: object) -> list[str]:
        lines = run_figure("results_table.py", two_lattices, *arguments).stdout.splitlines()
        return [line.split(" | ")[0] for line in lines[2:]]

    assert sizes() == ["| 8"] * 24 + ["| 16"] * 24
    assert sizes("--linear-size", 16) == ["| 16"] * 24


def test_missing_file_is_one_line_on_stderr(tmp_path, run_figure):
    done = run_figure("results_table.py", tmp_path / "none.h5")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_enough_is_no_error(real_sweep):
    """As in `results_table.py sweep.h5 | head -1`, where head is gone before the table ends."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, ROOT / "analysis" / "results_table.py", real_sweep]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
