"""analysis/fig_observables.py: what is drawn."""

import numpy as np
import pytest

import fig_observables
import sweep
from synthetic import SyntheticSweep


def drawn(path):
    with sweep.read_sweep(path) as dataset:
        figure = fig_observables.draw_figure(dataset)
        figure.draw_without_rendering()
        return figure, dataset.load()


def test_points_and_bars_are_those_of_the_sweep(sweep_path):
    figure, dataset = drawn(sweep_path)
    assert len(figure.axes) == len(fig_observables.OBSERVABLES)
    for axes, observable in zip(figure.axes, fig_observables.OBSERVABLES, strict=True):
        averaged = sweep.average_over_seeds(dataset, observable.variable)
        assert len(axes.containers) == dataset.sizes["depth"]
        for index, container in enumerate(axes.containers):
            points, _, (bars,) = container.lines
            np.testing.assert_array_equal(points.get_ydata(), averaged["value"][:, index])
            # Beside each other, but nearer to their own temperature than to any other.
            assert np.abs(points.get_xdata() - dataset["temperature"]).max() < 0.05
            half = [np.ptp(segment[:, 1]) / 2.0 for segment in bars.get_segments()]
            np.testing.assert_allclose(half, averaged["error"][:, index])


def test_exact_values_are_drawn_where_there_are_any(sweep_path):
    figure, dataset = drawn(sweep_path)
    for axes, observable in zip(figure.axes, fig_observables.OBSERVABLES, strict=True):
        exact = [line for line in axes.lines if line.get_label() == "exact"]
        assert len(exact) == (observable.exact is not None)
        for line in exact:
            np.testing.assert_array_equal(line.get_ydata(), dataset[observable.exact])
            np.testing.assert_array_equal(line.get_xdata(), dataset["temperature"])


def test_tasks_whose_verdict_is_not_ok_are_hollow(tmp_path):
    made_up = SyntheticSweep()
    made_up.variables["problems"][...] = 0
    figure, _ = drawn(made_up.write(tmp_path / "healthy.h5"))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "verdict not ok" not in texts
    made_up.variables["problems"][2, 1, 0] = 1
    figure, dataset = drawn(made_up.write(tmp_path / "sweep.h5"))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "verdict not ok" in texts
    for axes, observable in zip(figure.axes, fig_observables.OBSERVABLES, strict=True):
        hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
        (points,) = [line.get_ydata() for line in hollow if line.get_ydata().size]
        averaged = sweep.average_over_seeds(dataset, observable.variable)
        np.testing.assert_array_equal(points, averaged["value"][2:3, 1])


def test_panels_have_units(sweep_path):
    figure, _ = drawn(sweep_path)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert ["($J$)" in label for label in labels].count(True) == 1
    assert all(axes.get_xlabel().startswith("temperature") for axes in figure.axes[3:])


@pytest.mark.parametrize(("temperatures", "depths"), [((2.3,), (1,)), ((2.7, 2.0), (3, 1))])
def test_small_and_unsorted_sweeps_are_drawn(tmp_path, temperatures, depths):
    made_up = SyntheticSweep(temperatures=temperatures, depths=depths, seeds=(1,))
    figure, _ = drawn(made_up.write(tmp_path / "sweep.h5"))
    points = figure.axes[0].containers[0].lines[0]
    assert list(points.get_xdata()) == sorted(points.get_xdata())


def test_a_depth_without_finished_tasks_is_named_so(tmp_path):
    made_up = SyntheticSweep(seeds=(1,))
    for temperature in range(4):
        made_up.unfinish(temperature, 1, 0)
    figure, _ = drawn(made_up.write(tmp_path / "sweep.h5"))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "depth 2 (none finished)" in texts


def test_script_draws_the_real_sweep(real_sweep, run_figure, tmp_path):
    done = run_figure("fig_observables.py", real_sweep, "-o", tmp_path / "observables")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "observables.png").stat().st_size > 10_000
    assert (tmp_path / "observables.pdf").stat().st_size > 5_000
