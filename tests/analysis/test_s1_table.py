"""analysis/s1_table.py: our gaps beside the published ones, at the same temperature and depth."""

import csv

import sweep
from fig_s1 import PUBLISHED
from figure import with_error
from s1_table import rows
from synthetic import SyntheticSweep


def test_rows_hold_both_sweeps(tmp_path):
    made = SyntheticSweep(linear_size=32, temperatures=(2.0, 2.05, 2.4), depths=(1, 5))
    with sweep.read_sweep(made.write(tmp_path / "sweep.h5")) as dataset:
        header, ruler, *body = rows(dataset)
        ours = sweep.depth_curves(dataset, "gap")[5]
    assert [line.split("|")[1].strip() for line in body] == ["2.0", "2.4"]
    assert {line.count("|") for line in (header, ruler, *body)} == {6}
    columns = [column.strip() for column in header.split("|")[1:-1]]
    cells = [cell.strip() for cell in body[1].split("|")[1:-1]]
    with PUBLISHED.open(newline="") as file:
        (published,) = (
            float(row["gap_nats"])
            for row in csv.DictReader(file)
            if (row["T"], row["depth"]) == ("2.4", "5")
        )
    assert cells[columns.index("depth 5, published")].startswith(f"{published:.2f} ± ")
    assert cells[columns.index("depth 5, ours")] == with_error(ours.value[2], ours.error[2])


def test_unfinished_tasks_are_dashes(tmp_path):
    made = SyntheticSweep(linear_size=32, temperatures=(2.0, 2.4), depths=(1, 5), seeds=(0,))
    made.unfinish(0, 1, 0)
    with sweep.read_sweep(made.write(tmp_path / "sweep.h5")) as dataset:
        assert rows(dataset)[2].endswith("| - |")


def test_the_published_lattice_is_chosen(run_figure, tmp_path):
    made = [SyntheticSweep(linear_size=size, temperatures=(2.0,), depths=(1,)) for size in (16, 32)]
    done = run_figure("s1_table.py", made[0].write(tmp_path / "both.h5", made[1]))
    assert done.returncode == 0, done.stderr
    with sweep.read_sweep(tmp_path / "both.h5", 32) as dataset:
        assert done.stdout.splitlines() == rows(dataset)
    done = run_figure("s1_table.py", made[0].write(tmp_path / "other.h5"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("other.h5: has no lattice of L = 32; there are: 16\n")
