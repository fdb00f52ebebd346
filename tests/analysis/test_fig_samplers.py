"""analysis/fig_samplers.py: what is drawn, and how the script behaves."""

import h5py
import numpy as np
import pytest

import contract
import fig_samplers
import sweep


@pytest.fixture
def task(real_sweep):
    return real_sweep.parent / "tasks" / "L4_T2_d2_s1.h5"


def test_points_are_those_of_the_task_file(task):
    points, temperature = fig_samplers.read_points(task)
    assert temperature == 2.0
    assert sorted(point.sampler for point in points) == sorted(contract.SAMPLERS)
    larger = [point._replace(linear_size=8, verdict="bad", tau_int=3.0) for point in points]
    figure = fig_samplers.draw_figure(points + larger, temperature)
    figure.draw_without_rendering()
    tau, rate = figure.axes
    with h5py.File(task) as file:
        for index, point in enumerate(points):
            group = file["chains"][point.sampler]
            line = tau.containers[index].lines[0]
            stored = group["estimates/magnetization_squared_tau_int"][()]
            np.testing.assert_array_equal(line.get_xdata(), [4, 8])
            np.testing.assert_array_equal(line.get_ydata(), [stored, 3.0])
            ess = group["estimates/magnetization_squared_ess_bulk"][()]
            expected = ess / file[f"timing/{point.sampler}_seconds"][()]
            drawn = np.array(rate.containers[index].lines[0].get_ydata(), dtype=float)
            np.testing.assert_allclose(drawn, expected)
    hollow = [line for line in tau.lines if line.get_label() == "_doubtful"]
    assert {tuple(line.get_xdata()[-1:]) for line in hollow} == {(8,)}


def test_script_prints_a_row_for_each_sampler_and_draws_both_formats(
    task, run_figure, neuralrg, tmp_path
):
    program = neuralrg.program
    done = run_figure(
        "fig_samplers.py", task, "--program", program, "--measurements", 1000, "-o", tmp_path / "f"
    )
    assert done.returncode == 0, done.stderr
    header, ruler, *body = done.stdout.splitlines()
    rows, files = body[:-2], body[-2:]
    cells = {line.replace(r"\|", "").count("|") for line in (header, ruler, *rows)}
    assert cells == {7}
    names = [line.split(" | ")[1] for line in rows]
    assert names == list(fig_samplers.LABELS.values())
    assert files == [str(tmp_path / "f.png"), str(tmp_path / "f.pdf")]
    assert (tmp_path / "f.png").stat().st_size > 10_000


def test_what_cannot_be_drawn_is_named(real_sweep, task, run_figure, tmp_path):
    done = run_figure("fig_samplers.py", real_sweep)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not a neuralrg task file" in done.stderr
    done = run_figure("fig_samplers.py", task, task.with_name("L4_T2.7_d2_s1.h5"))
    assert "several temperatures (2.0, 2.7)" in done.stderr
    done = run_figure("fig_samplers.py", task, task)
    assert "several tasks are of one linear size; give one of each" in done.stderr
    with pytest.raises(sweep.SweepError, match=r"nowhere: cannot be run: No such file"):
        fig_samplers.run_wolff(tmp_path / "nowhere", 4, 2.0, 1000)
