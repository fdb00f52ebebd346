"""analysis/fig_3.py: what is drawn, and how the script behaves."""

import h5py
import numpy as np
import pytest

import fig_3
import sweep

HEADER = "temperature,magnetization_squared,magnetization_squared_error"
REFERENCE = f"{HEADER}\n2,0.87,0.001\n2.7,0.57,0.001\n"


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference.csv"
    path.write_text(REFERENCE)
    return path


def test_points_are_those_of_the_task_file(real_sweep, reference):
    course = fig_3.read_course(real_sweep, "L4_T2_d2_s1")
    value = fig_3.reference_at(reference, course.temperature)
    assert value == (0.87, 0.001)
    figure = fig_3.draw_figure(course, value)
    figure.draw_without_rendering()
    _, steps, time = figure.axes
    with h5py.File(real_sweep.parent / "tasks" / "L4_T2_d2_s1.h5") as file:
        stored = {name: np.asarray(item) for name, item in file["course"].items()}
    assert stored["step"].tolist() == [100.0, 200.0]
    for index, sampler in enumerate(("latent", "physical")):
        line = steps.containers[index].lines[0]
        np.testing.assert_array_equal(line.get_xdata(), stored["step"])
        np.testing.assert_array_equal(line.get_ydata(), stored[f"{sampler}_magnetization_squared"])
    # The training is part of the price of the latent space.
    total = stored["latent_seconds"] + stored["train_seconds"]
    np.testing.assert_allclose(time.containers[0].lines[0].get_xdata(), total)
    assert (stored["physical_seconds"] > 0.0).all()


def test_script_draws_both_formats(real_sweep, reference, run_figure, tmp_path):
    done = run_figure("fig_3.py", real_sweep, "--reference", reference, "-o", tmp_path / "fig_3")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fig_3.png").stat().st_size > 10_000
    assert (tmp_path / "fig_3.pdf").stat().st_size > 5_000


def test_what_is_missing_is_named(real_sweep, sweep_path, reference, tmp_path):
    with pytest.raises(sweep.SweepError, match=r"has no task L9; it has L4_T2\.7_d1_s1, "):
        fig_3.read_course(real_sweep, "L9")
    with pytest.raises(sweep.SweepError, match="has no temperature 3"):
        fig_3.reference_at(reference, 3.0)
    with pytest.raises(sweep.SweepError, match=r"none\.csv: cannot be read: No such file"):
        fig_3.reference_at(tmp_path / "none.csv", 2.0)
    (tmp_path / "other.csv").write_text("temperature,energy\n2,-1.7\n")
    with pytest.raises(sweep.SweepError, match="not an output of `neuralrg reference`"):
        fig_3.reference_at(tmp_path / "other.csv", 2.0)
    with pytest.raises(
        sweep.SweepError, match=r"cannot read tasks/L8_T2_d1_s0\.h5, .* keep sweep\.h5 in its"
    ):
        fig_3.read_course(sweep_path)
