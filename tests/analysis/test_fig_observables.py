"""analysis/fig_observables.py: what is drawn."""

import numpy as np
import pytest

import fig_observables
import sweep
from synthetic import SyntheticSweep

HOLLOW = "hollow: verdict not ok"


def drawn(path):
    with sweep.read_sweep(path) as dataset:
        figure = fig_observables.draw_figure(dataset)
        figure.draw_without_rendering()
        return figure, dataset.load()


def test_points_and_bars_are_those_of_the_sweep_at_their_own_temperatures(sweep_path):
    figure, dataset = drawn(sweep_path)
    assert len(figure.axes) == len(fig_observables.OBSERVABLES)
    for axes, observable in zip(figure.axes, fig_observables.OBSERVABLES, strict=True):
        averaged = sweep.average_over_seeds(dataset, observable.variable)
        assert len(axes.containers) == dataset.sizes["depth"]
        for index, container in enumerate(axes.containers):
            points, _, (bars,) = container.lines
            np.testing.assert_array_equal(points.get_xdata(), dataset["temperature"])
            np.testing.assert_array_equal(points.get_ydata(), averaged["value"][:, index])
            half = [np.ptp(segment[:, 1]) / 2.0 for segment in bars.get_segments()]
            np.testing.assert_allclose(half, averaged["error"][:, index])


def test_no_depth_hides_another_and_no_marker_is_cut(sweep_path):
    figure, _ = drawn(sweep_path)
    for axes in figure.axes:
        sizes = [container.lines[0].get_markersize() for container in axes.containers]
        assert sizes == sorted(set(sizes), reverse=True)
        frame = axes.get_window_extent()
        for container in axes.containers:
            points = container.lines[0]
            radius = 0.5 * points.get_markersize() * figure.dpi / 72.0
            at = axes.transData.transform(np.column_stack(points.get_data()))
            assert (at.min(axis=0) - radius > frame.min).all()
            assert (at.max(axis=0) + radius < frame.max).all()


def test_exact_curves_are_fine_and_go_through_the_values_of_the_program(real_sweep):
    figure, dataset = drawn(real_sweep)
    for axes, observable in zip(figure.axes, fig_observables.OBSERVABLES, strict=True):
        exact = [line for line in axes.lines if line.get_label() == "exact"]
        assert len(exact) == (observable.exact is not None)
        for line in exact:
            x, y = line.get_data()
            assert len(x) == fig_observables.CURVE_POINTS
            stored = dataset[f"{observable.exact}_exact"]
            np.testing.assert_allclose(np.interp(dataset["temperature"], x, y), stored, atol=1e-4)


def test_the_peak_of_the_exact_specific_heat_is_between_the_temperatures(tmp_path):
    """At L = 16 it is 1.5522 at T = 2.3175."""
    made_up = SyntheticSweep(temperatures=(2.2, 2.3, 2.4), linear_size=16)
    figure, _ = drawn(made_up.write(tmp_path / "sweep.h5"))
    (line,) = [line for line in figure.axes[1].lines if line.get_label() == "exact"]
    x, y = line.get_data()
    assert y.max() == pytest.approx(1.5522, abs=1e-4)
    assert x[y.argmax()] == pytest.approx(2.3175, abs=1e-3)


def test_tasks_whose_verdict_is_not_ok_are_hollow(tmp_path):
    made_up = SyntheticSweep()
    made_up.variables["problems"][...] = 0
    figure, _ = drawn(made_up.write(tmp_path / "healthy.h5"))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert HOLLOW not in texts
    made_up.variables["problems"][2, 1, 0] = 1
    figure, dataset = drawn(made_up.write(tmp_path / "sweep.h5"))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert HOLLOW in texts
    for axes, observable in zip(figure.axes, fig_observables.OBSERVABLES, strict=True):
        hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
        (points,) = [line.get_ydata() for line in hollow if line.get_ydata().size]
        averaged = sweep.average_over_seeds(dataset, observable.variable)
        np.testing.assert_array_equal(points, averaged["value"][2:3, 1])


def test_panels_say_what_they_show_with_units(sweep_path):
    figure, _ = drawn(sweep_path)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert ["($J$)" in label for label in labels].count(True) == 1
    assert labels[3].startswith("connected susceptibility per site")
    assert labels[5].startswith("second-moment")
    assert all(axes.get_xlabel().startswith("temperature") for axes in figure.axes[3:])


def test_a_reference_stands_beside_what_has_no_exact_curve(real_sweep, tmp_path, neuralrg):
    temperatures = "1,2,2.7"
    options = ("--temperatures", temperatures, "--measurements", 2000)
    path = tmp_path / "reference.csv"
    path.write_text(neuralrg("reference", "--linear-size", 4, *options))
    spins = fig_observables.read_spins(path, 4)
    with sweep.read_sweep(real_sweep) as dataset:
        figure = fig_observables.draw_figure(dataset, spins)
    for axes, observable in zip(figure.axes, fig_observables.OBSERVABLES, strict=True):
        found = [it for it in axes.containers if it.get_label() == "_reference"]
        assert len(found) == (observable.exact is None)
        for container in found:
            points, _, (bars,) = container.lines
            # The sweep has no T = 1.
            np.testing.assert_array_equal(points.get_xdata(), [2.0, 2.7])
            curve = spins[observable.variable]
            np.testing.assert_array_equal(points.get_ydata(), curve.value[1:])
            half = [np.ptp(segment[:, 1]) / 2.0 for segment in bars.get_segments()]
            np.testing.assert_allclose(half, curve.error[1:])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "spins by Wolff clusters" in texts


def test_a_reference_of_another_lattice_is_refused(tmp_path, neuralrg, run_figure, real_sweep):
    options = ("--temperatures", "2,2.7", "--measurements", 2000)
    path = tmp_path / "reference.csv"
    path.write_text(neuralrg("reference", "--linear-size", 8, *options))
    done = run_figure("fig_observables.py", real_sweep, "--reference", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"fig_observables.py: {path}: its energy at T = 2")
    assert done.stderr.endswith("make it with `neuralrg reference --linear-size 4`\n")


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
