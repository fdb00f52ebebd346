"""analysis/samplers_table.py: one row per task and sampler."""

import contract


def test_every_sampler_of_every_task_has_a_row(real_sweep, run_figure):
    done = run_figure("samplers_table.py", real_sweep)
    assert done.returncode == 0, done.stderr
    header, ruler, *body = done.stdout.splitlines()
    assert len(body) == 4 * len(contract.SAMPLERS)
    assert {line.count("|") for line in (header, ruler, *body)} == {11}
    assert "nan" not in done.stdout


def test_tasks_of_a_lattice_are_chosen(two_lattices, run_figure):
    done = run_figure("samplers_table.py", two_lattices, "--linear-size", 16)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot read tasks/L16_T2_d1_s0.h5" in done.stderr


def test_a_sweep_file_without_its_task_files_is_refused_in_one_line(
    real_sweep, run_figure, tmp_path
):
    moved = tmp_path / "sweep.h5"
    moved.write_bytes(real_sweep.read_bytes())
    done = run_figure("samplers_table.py", moved)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"samplers_table.py: {moved}: cannot read tasks/L4_T2.7_d1_s1.h5, which it links to; "
        "keep sweep.h5 in its folder\n"
    )
