"""analysis/fig_s2.py: what is drawn, and how the script behaves."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import sweep
from fig_s2 import draw_figure, select_samples
from synthetic import SyntheticSweep


def draw(made: SyntheticSweep, path: Path, **options) -> Figure:
    """The figure of a made-up sweep, laid out as saving would do."""
    with sweep.read_sweep(made.write(path / "sweep.h5")) as dataset:
        figure = draw_figure(dataset, **options)
    figure.draw_without_rendering()
    return figure


def panels_of(figure: Figure, rows: int, columns: int) -> np.ndarray:
    """The panels as a grid, without the colour bar, which is the last of the axes."""
    return np.array(figure.axes[: rows * columns]).reshape(rows, columns)


def shown(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def test_panels_show_the_chosen_sample_by_depth_and_temperature(tmp_path):
    made = SyntheticSweep()
    panels = panels_of(draw(made, tmp_path, sample=2, seed=1), 3, 4)
    for row, column in np.ndindex(3, 4):
        expected = made.variables["samples"][column, row, 1, 2]
        np.testing.assert_array_equal(shown(panels[row, column]), expected)


def test_first_sample_and_first_usable_seed_are_the_default(tmp_path):
    made = SyntheticSweep()
    for temperature, depth in np.ndindex(4, 3):
        made.unfinish(temperature, depth, 0)
    panels = panels_of(draw(made, tmp_path), 3, 4)
    np.testing.assert_array_equal(shown(panels[1, 2]), made.variables["samples"][2, 1, 1, 0])


def test_colour_scale_is_symmetric_and_shared(tmp_path):
    figure = draw(SyntheticSweep(), tmp_path)
    scales = {axes.images[0].get_clim() for axes in figure.axes[:12]}
    ((low, high),) = scales
    assert low == -high
    assert figure.axes[12].get_ylabel() == "field $x$"


def test_rows_and_columns_are_labelled(tmp_path):
    made = SyntheticSweep(temperatures=[2.0, sweep.CRITICAL_TEMPERATURE, 2.7])
    panels = panels_of(draw(made, tmp_path), 3, 3)
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["depth 1", "depth 2", "depth 3"]
    titles = [axes.get_title() for axes in panels[0]]
    assert titles == ["$T = 2.0$", r"$T = T_\mathrm{c}$", "$T = 2.7$"]


def test_unfinished_task_is_an_empty_labelled_panel(tmp_path):
    made = SyntheticSweep()
    made.unfinish(0, 0, 0)
    panels = panels_of(draw(made, tmp_path), 3, 4)
    assert not panels[0, 0].images
    assert [text.get_text() for text in panels[0, 0].texts] == ["not\nfinished"]
    assert panels[0, 0].get_title() == "$T = 2.0$"
    assert all(axes.images for axes in panels.ravel()[1:])


def test_tasks_whose_verdict_is_not_ok_have_a_circle(tmp_path):
    made = SyntheticSweep()
    assert "verdict" not in draw(made, tmp_path).get_suptitle()
    made.variables["problems"][2, 1, 0] = 3
    # Of another seed than the one shown.
    made.variables["problems"][0, 0, 1] = 1
    figure = draw(made, tmp_path)
    assert figure.get_suptitle().endswith("verdict not ok")
    marked = [bool(axes.lines) for axes in panels_of(figure, 3, 4).flat]
    assert np.flatnonzero(marked).tolist() == [1 * 4 + 2]


def test_rows_and_columns_are_sorted(tmp_path):
    made = SyntheticSweep(temperatures=[2.7, 2.0], depths=[3, 1])
    with sweep.read_sweep(made.write(tmp_path / "sweep.h5")) as dataset:
        grid = select_samples(dataset)
    assert (grid.temperature.tolist(), grid.depth.tolist()) == ([2.0, 2.7], [1, 3])
    np.testing.assert_array_equal(grid.field[0, 0], made.variables["samples"][1, 1, 0, 0])


@pytest.mark.parametrize(
    ("temperatures", "depths"), [([2.5], [1]), ([2.0, 2.5], [3]), ([2.2], [1, 2, 3])]
)
def test_one_row_or_one_column_is_drawn(tmp_path, temperatures, depths):
    made = SyntheticSweep(temperatures=temperatures, depths=depths)
    figure = draw(made, tmp_path)
    assert len(figure.axes) == len(temperatures) * len(depths) + 1
    title = figure.get_suptitle()
    assert title == r"$8\times8$ lattice, seed 0, sample 0"
    (text,) = [found for found in figure.texts if found.get_text() == title]
    assert text.get_window_extent().x0 >= 0.0


def test_rare_large_values_do_not_wash_out_the_colours(tmp_path):
    made = SyntheticSweep()
    made.variables["samples"][0, 0, 0, 0, 0, 0] = 1e6
    figure = draw(made, tmp_path)
    assert figure.axes[0].images[0].get_clim()[1] < 10.0


def test_field_of_zeros_is_drawn(tmp_path):
    made = SyntheticSweep()
    made.variables["samples"][:] = 0.0
    assert draw(made, tmp_path).axes[0].images[0].get_clim() == (-1.0, 1.0)


def test_script_writes_png_and_pdf(run_figure, sweep_path, tmp_path):
    done = run_figure("fig_s2.py", sweep_path, "-o", "samples", "--sample", 3, "--seed", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "samples.pdf").read_bytes().startswith(b"%PDF")


def test_script_has_help(run_figure):
    done = run_figure("fig_s2.py", "--help")
    assert done.returncode == 0
    for option in ("sweep", "--output", "--sample", "--seed", "--formats"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", 4], "no sample 4; there are: 0 to 3"),
        (["--sample", -1], "no sample -1; there are: 0 to 3"),
        (["--seed", 7], "no seed 7; there are: 0, 1"),
        (["--seed", 0], "seed 0 has no finished task; these have: 1"),
    ],
)
def test_script_names_a_sample_or_seed_that_is_not_there(run_figure, tmp_path, arguments, message):
    made = SyntheticSweep()
    for temperature, depth in np.ndindex(4, 3):
        made.unfinish(temperature, depth, 0)
    done = run_figure("fig_s2.py", made.write(tmp_path / "sweep.h5"), *arguments)
    assert done.returncode == 1
    assert done.stderr == f"fig_s2.py: {tmp_path / 'sweep.h5'}: {message}\n"
