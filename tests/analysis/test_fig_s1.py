"""analysis/fig_s1.py: what is drawn, and how the script behaves."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

import fig_s1
import sweep
from fig_s1 import QUANTITIES, draw_figure
from figure import depth_look, save_figure
from synthetic import SyntheticSweep

RELATIVE = QUANTITIES["relative"]


def draw(made: SyntheticSweep, path: Path, *arguments, **options) -> Figure:
    """The figure of a made-up sweep, laid out as saving would do."""
    with sweep.read_sweep(made.write(path / "sweep.h5")) as dataset:
        figure = draw_figure(dataset, *(arguments or (RELATIVE,)), **options)
    figure.draw_without_rendering()
    return figure


def curve(axes: Axes, label: str) -> tuple[np.ndarray, np.ndarray, ErrorbarContainer]:
    """Abscissas and ordinates of the error-bar curve with this label."""
    (container,) = [found for found in axes.containers if found.get_label() == label]
    line = container.lines[0]
    return line.get_xdata(), line.get_ydata(), container


def bar_lengths(container: ErrorbarContainer) -> np.ndarray:
    """Half lengths of the vertical error bars."""
    segments = container.lines[2][0].get_segments()
    return np.array([(high - low) / 2.0 for (_, low), (_, high) in segments])


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_and_error_bars_are_the_seed_averages(tmp_path):
    made = SyntheticSweep()
    figure = draw(made, tmp_path)
    values = made.variables["relative_error"]
    errors = made.variables["relative_error_error"]
    within = np.sqrt((errors**2).sum(-1)) / 2.0
    between = values.std(-1, ddof=1) / np.sqrt(2.0)
    for index, depth in enumerate((1, 2, 3)):
        x, y, container = curve(figure.axes[0], f"depth {depth}")
        np.testing.assert_array_equal(x, [2.0, 2.2, 2.4, 2.7])
        np.testing.assert_allclose(y, values.mean(-1)[:, index])
        expected = np.maximum(within, between)[:, index]
        np.testing.assert_allclose(bar_lengths(container), expected)


def test_axes_are_labelled_with_units_and_log_by_default(tmp_path):
    axes = draw(SyntheticSweep(), tmp_path).axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == r"temperature $T$ ($J/k_\mathrm{B}$)"
    assert "relative free-energy error" in axes.get_ylabel()


def test_legend_names_depths_in_order_then_the_yardstick(tmp_path):
    figure = draw(SyntheticSweep(), tmp_path)
    depths, references = legend_texts(figure)[:3], legend_texts(figure)[3:]
    assert depths == ["depth 1", "depth 2", "depth 3"]
    assert references == ["Gaussians, no network", r"critical temperature $T_\mathrm{c}$"]


def test_critical_temperature_is_marked_where_the_axis_reaches_it(tmp_path):
    def verticals(axes: Axes) -> list[float]:
        return [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "-."]

    axes = draw(SyntheticSweep(), tmp_path).axes[0]
    assert verticals(axes) == [sweep.CRITICAL_TEMPERATURE]
    axes = draw(SyntheticSweep(temperatures=[3.0, 3.5]), tmp_path).axes[0]
    assert verticals(axes) == []


@pytest.mark.parametrize(
    ("name", "factor"), [("relative", 1.0), ("nats", 165.76), ("per-site", 2.59)]
)
def test_gap_is_stated_three_ways_with_the_yardstick_alike(tmp_path, name, factor):
    """At T = 2.0 the made-up |F_exact| is 2.59 per site, and the yardstick 2 % of it."""
    made = SyntheticSweep(temperatures=[2.0], depths=[1], seeds=[0])
    axes = draw(made, tmp_path, QUANTITIES[name]).axes[0]
    _, y, _ = curve(axes, "depth 1")
    assert y[0] == pytest.approx(made.variables["relative_error"].item() * factor)
    (yardstick,) = [line for line in axes.lines if line.get_label() == "Gaussians, no network"]
    assert yardstick.get_ydata()[0] == pytest.approx(0.02 * factor)
    assert ("nats" in axes.get_ylabel()) == (name != "relative")


def test_linear_scale_shows_zero_and_negative_gaps(tmp_path):
    made = SyntheticSweep(seeds=[0])
    made.variables["relative_error"][1, 2, 0] = -0.001
    axes = draw(made, tmp_path, RELATIVE, "linear").axes[0]
    assert axes.get_yscale() == "linear"
    _, y, _ = curve(axes, "depth 3")
    assert y[1] == -0.001
    assert axes.get_ylim()[0] < -0.001


def test_negative_gap_is_an_upper_bound_on_the_log_axis(tmp_path):
    made = SyntheticSweep(seeds=[0])
    made.variables["relative_error"][1, 2, 0] = -0.001
    made.variables["relative_error_error"][1, 2, 0] = 0.002
    figure = draw(made, tmp_path)
    axes = figure.axes[0]
    _, y, _ = curve(axes, "depth 3")
    assert np.isnan(y[1])
    assert np.isfinite(y[[0, 2, 3]]).all()
    x, bound, container = curve(axes, "_bound")
    look = depth_look(3)
    assert (x.tolist(), bound.tolist()) == ([2.2], [pytest.approx(0.003)])
    assert container.lines[0].get_color() == look.color
    low, high = axes.get_ylim()
    assert low < 0.003 < high
    assert r"upper bound, $2\sigma$" in legend_texts(figure)


def test_tasks_whose_verdict_is_not_ok_are_hollow_also_where_only_bounded(tmp_path):
    made = SyntheticSweep(seeds=[0, 1])
    assert "hollow: verdict not ok" not in legend_texts(draw(made, tmp_path))
    made.variables["relative_error"][1, 2] = -0.001
    made.variables["relative_error_error"][1, 2] = 0.002
    # One seed is enough.
    made.variables["problems"][1, 2, 0] = 1
    made.variables["problems"][3, 2, 1] = 4
    figure = draw(made, tmp_path)
    assert "hollow: verdict not ok" in legend_texts(figure)
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    (points,) = [line.get_xydata() for line in hollow if line.get_xdata().size]
    error = np.sqrt(2.0) * 0.002 / 2.0
    mean = made.variables["relative_error"][3, 2].mean()
    np.testing.assert_allclose(points, [(2.2, -0.001 + 2.0 * error), (2.7, mean)])


def test_gap_negative_beyond_its_errors_is_left_out_with_a_warning(tmp_path, capsys):
    made = SyntheticSweep(seeds=[0])
    made.variables["relative_error"][1, 2, 0] = -0.01
    made.variables["relative_error_error"][1, 2, 0] = 0.001
    figure = draw(made, tmp_path)
    assert "depth 3, T = 2.2: the gap is negative by more than 2" in capsys.readouterr().err
    assert not any("bound" in text for text in legend_texts(figure))


def test_every_gap_negative_does_not_crash(tmp_path):
    made = SyntheticSweep(temperatures=[2.0], depths=[1], seeds=[0])
    made.variables["relative_error"][:] = -0.001
    made.variables["relative_error_gaussian"][:] = np.nan
    draw(made, tmp_path)


def test_error_bar_beyond_zero_does_not_stretch_the_log_axis(tmp_path):
    made = SyntheticSweep(seeds=[0])
    made.variables["relative_error_error"][0, 0, 0] = (
        1.0001 * made.variables["relative_error"][0, 0, 0]
    )
    low, _ = draw(made, tmp_path).axes[0].get_ylim()
    assert low > 1e-4


def test_unfinished_tasks_are_gaps_and_counted(tmp_path):
    made = SyntheticSweep(seeds=[0])
    made.unfinish(1, 0, 0)
    for temperature in range(4):
        made.unfinish(temperature, 2, 0)
    figure = draw(made, tmp_path)
    _, y, _ = curve(figure.axes[0], "depth 1")
    assert np.isnan(y).tolist() == [False, True, False, False]
    assert "depth 3 (none finished)" in legend_texts(figure)
    assert "7 of 12 tasks finished" in figure.axes[0].get_title(loc="left")


def test_one_temperature_and_one_depth_are_drawn(tmp_path):
    made = SyntheticSweep(temperatures=[2.5], depths=[2], seeds=[0])
    axes = draw(made, tmp_path).axes[0]
    x, y, _ = curve(axes, "depth 2")
    low, high = axes.get_xlim()
    assert low < 2.5 < high
    assert (len(x), len(y)) == (1, 1)


def test_temperatures_out_of_order_are_joined_in_order(tmp_path):
    made = SyntheticSweep(temperatures=[2.7, 2.0, 2.4], seeds=[0])
    x, y, _ = curve(draw(made, tmp_path).axes[0], "depth 1")
    assert x.tolist() == [2.0, 2.4, 2.7]
    np.testing.assert_allclose(y, made.variables["relative_error"][[1, 2, 0], 0, 0])


def test_published_values_are_read_with_the_error_of_their_batch_mean():
    curves = fig_s1.published_curves(RELATIVE)
    assert sorted(curves) == [1, 2, 3, 4, 5]
    deepest = curves[5]
    np.testing.assert_allclose(deepest.temperature, np.arange(20, 28) / 10.0)
    assert deepest.value[0] == 0.004498
    assert deepest.error[0] == pytest.approx(4.3482 / np.sqrt(512) / 2648.787958)
    assert fig_s1.published_curves(QUANTITIES["nats"])[1].value[0] == 118.9347
    assert fig_s1.published_curves(QUANTITIES["per-site"])[1].value[0] == 0.116147


def test_published_table_is_consistent_with_itself():
    relative, per_site, nats = (fig_s1.published_curves(QUANTITIES[name]) for name in QUANTITIES)
    for depth in range(1, 6):
        np.testing.assert_allclose(nats[depth].value / 1024, per_site[depth].value, atol=1e-6)
        exact = nats[depth].error / relative[depth].error
        np.testing.assert_allclose(nats[depth].value / exact, relative[depth].value, atol=1e-6)


def test_published_curves_overlay_the_same_depths_at_l_32(tmp_path):
    figure = draw(SyntheticSweep(depths=[2, 5], linear_size=32), tmp_path)
    axes = figure.axes[0]
    labels = {container.get_label() for container in axes.containers}
    assert labels == {"depth 2", "depth 5", "_published depth 2", "_published depth 5"}
    _, y, container = curve(axes, "_published depth 5")
    assert y[3] == 0.009228
    line, own = container.lines[0], curve(axes, "depth 5")[2].lines[0]
    assert (line.get_color(), line.get_marker()) == (own.get_color(), own.get_marker())
    # Neither filled as ours nor hollow as ours where the verdict is not ok, and seen around ours.
    assert line.get_linestyle() == "--"
    assert min(to_rgb(own.get_color())) < min(line.get_markerfacecolor()) < 1.0
    assert line.get_markersize() > own.get_markersize()
    assert line.get_zorder() < own.get_zorder()
    half = fig_s1.published_curves(RELATIVE)[5].error
    np.testing.assert_allclose(bar_lengths(container), half)
    assert any(text.startswith("published") for text in legend_texts(figure))


@pytest.mark.parametrize(("size", "with_published"), [(32, False), (8, True)])
def test_no_published_curves_when_unwanted_or_at_another_size(tmp_path, size, with_published):
    made = SyntheticSweep(linear_size=size)
    figure = draw(made, tmp_path, RELATIVE, "log", with_published)
    assert not any("published" in str(found.get_label()) for found in figure.axes[0].containers)
    assert not any("published" in text for text in legend_texts(figure))


def test_depths_differ_in_colour_and_marker(tmp_path):
    axes = draw(SyntheticSweep(depths=[1, 2, 3, 4, 5], linear_size=32), tmp_path).axes[0]
    lines = [curve(axes, f"depth {depth}")[2].lines[0] for depth in range(1, 6)]
    assert len({line.get_color() for line in lines}) == 5
    assert len({line.get_marker() for line in lines}) == 5


def test_legend_and_axes_do_not_overlap(tmp_path):
    figure = draw(SyntheticSweep(depths=[1, 2, 3, 4, 5], linear_size=32), tmp_path)
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 > figure.axes[0].get_window_extent().x1
    assert legend.x1 <= figure.bbox.x1


def test_script_writes_png_and_pdf(run_figure, sweep_path, tmp_path):
    done = run_figure("fig_s1.py", sweep_path, "-o", "figures/error_T2.7")
    assert (done.returncode, done.stderr) == (0, "")
    png, pdf = tmp_path / "figures/error_T2.7.png", tmp_path / "figures/error_T2.7.pdf"
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert sorted(png.parent.iterdir()) == [pdf, png]
    assert done.stdout.split() == ["figures/error_T2.7.png", "figures/error_T2.7.pdf"]


@pytest.mark.parametrize("script", ["fig_s1.py", "fig_s2.py", "fig_observables.py"])
def test_scripts_draw_the_chosen_lattice(run_figure, two_lattices, tmp_path, script):
    done = run_figure(script, two_lattices, "--linear-size", 16, "-o", "figure")
    assert (done.returncode, done.stderr) == (0, "")
    made = SyntheticSweep(linear_size=16).write(tmp_path / "alone.h5")
    done = run_figure(script, made, "-o", "alone")
    assert (tmp_path / "figure.pdf").read_bytes() == (tmp_path / "alone.pdf").read_bytes()
    done = run_figure(script, two_lattices)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(
        "sweep.h5: has lattices of L = 8, 16; choose one by `--linear-size N`\n"
    )


def test_script_takes_one_format_and_a_stem_with_extension(run_figure, sweep_path, tmp_path):
    done = run_figure("fig_s1.py", sweep_path, "-o", "a.png", "--formats", "pdf")
    assert done.returncode == 0
    assert (tmp_path / "a.pdf").exists()
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(("scale", "quantity"), [("linear", "nats"), ("log", "per-site")])
def test_script_draws_other_scales_and_quantities(run_figure, sweep_path, scale, quantity):
    done = run_figure(
        "fig_s1.py", sweep_path, "--scale", scale, "--quantity", quantity, "--no-published"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_script_has_help(run_figure):
    done = run_figure("fig_s1.py", "--help")
    assert done.returncode == 0
    for option in ("sweep", "--output", "--scale", "--quantity", "--no-published", "--formats"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("fig_s1.py", "absent.h5", "no such file"),
        ("fig_s2.py", "absent.h5", "no such file"),
        ("fig_s1.py", "text.h5", "not a readable HDF5 file"),
        ("fig_s2.py", "newer.h5", "format version 9 is newer"),
        ("fig_s1.py", "unfinished.h5", "no finished task"),
    ],
)
def test_scripts_end_on_a_bad_file_with_one_line_and_status_1(
    run_figure, tmp_path, name, file, message
):
    made = SyntheticSweep()
    made.variables["complete"][:] = 0
    made.write(tmp_path / "unfinished.h5")
    made.attributes["format_version"] = 9
    made.write(tmp_path / "newer.h5")
    (tmp_path / "text.h5").write_text("no")
    done = run_figure(name, file)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"{name}: {file}: ")
    assert message in done.stderr


def test_script_names_a_figure_it_cannot_write(run_figure, sweep_path, tmp_path):
    (tmp_path / "taken").write_text("a file, not a directory")
    done = run_figure("fig_s1.py", sweep_path, "-o", "taken/figure")
    assert done.returncode == 1
    assert done.stderr.startswith("fig_s1.py: taken/figure.png: cannot be written: ")
    assert done.stderr.count("\n") == 1


def test_same_sweep_gives_the_same_pdf(tmp_path):
    for stem in ("a", "b"):
        save_figure(draw(SyntheticSweep(), tmp_path), tmp_path / stem, ["pdf"])
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
