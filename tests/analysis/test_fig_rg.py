"""analysis/fig_rg.py: what is drawn, and how the script behaves."""

import numpy as np
import pytest

import fig_rg
import study


@pytest.fixture
def studies(studied_sweep):
    return study.read_studies(studied_sweep, "coarse")


def test_fields_of_every_level_and_of_the_walk_are_drawn(studies):
    chosen = study.most_telling(studies)
    figure = fig_rg.draw_figure(chosen, fig_rg.same_but_temperature(studies, chosen))
    figure.draw_without_rendering()
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 2 * 3 + fig_rg.WALK_IMAGES
    np.testing.assert_array_equal(images[0].get_array(), chosen.arrays["kept"][0, 0])
    np.testing.assert_array_equal(images[5].get_array(), chosen.arrays["blurred"][2, 0])
    np.testing.assert_array_equal(images[-1].get_array(), chosen.arrays["walk"][-1])
    # The top level of L = 4 at depth 2 keeps one variable.
    assert np.ptp(images[0].get_array()) == 0.0


def test_couplings_are_drawn_for_every_temperature_with_error_bars(studies):
    chosen = study.most_telling(studies)
    others = fig_rg.same_but_temperature(studies, chosen)
    assert [other.temperature for other in others] == [2.0, 2.7]
    larger = [found._replace(linear_size=8) for found in studies]
    assert fig_rg.same_but_temperature([*studies, *larger], chosen) == others
    figure = fig_rg.draw_figure(chosen, others)
    panels = [axes for axes in figure.axes if axes.containers]
    assert len(panels) == len(fig_rg.COUPLINGS)
    for axes, name in zip(panels, fig_rg.COUPLINGS, strict=True):
        for container, other in zip(axes.containers, others, strict=True):
            line, _, (bars,) = container.lines
            np.testing.assert_array_equal(line.get_ydata(), other.arrays[name])
            assert len(bars.get_paths()) == len(other.arrays["level"])


def test_tasks_whose_verdict_is_not_ok_are_hollow(studies):
    chosen = study.most_telling(studies)
    others = [
        found._replace(problems=problems)
        for found, problems in zip(
            fig_rg.same_but_temperature(studies, chosen), (0, 2), strict=True
        )
    ]
    figure = fig_rg.draw_figure(chosen, others)
    panels = [axes for axes in figure.axes if axes.containers]
    for axes, name in zip(panels, fig_rg.COUPLINGS, strict=True):
        (hollow,) = [line for line in axes.lines if line.get_label() == "_doubtful"]
        assert hollow.get_markerfacecolor() == "white"
        np.testing.assert_array_equal(hollow.get_ydata(), others[1].arrays[name])


def test_every_row_of_images_has_its_colour_scale(studies):
    chosen = study.most_telling(studies)
    figure = fig_rg.draw_figure(chosen, [chosen])
    figure.draw_without_rendering()
    bars = [axes for axes in figure.axes if not axes.images and not axes.lines]
    labels = [axes.get_ylabel() for axes in bars]
    assert sorted(labels) == [r"$y\,/\,\max|y|$", "field $x$", "field $x$"]
    images = [axes.images[0] for axes in figure.axes if axes.images]
    # One scale for the fields of the levels, and one for those of the walk.
    assert len({image.get_clim() for image in images[3:6]}) == 1
    assert len({image.get_clim() for image in images[6:]}) == 1
    # Each kept field has its own, which stands above it.
    titles = [axes.get_title() for axes in figure.axes if axes.get_title().startswith("level")]
    for title, image in zip(titles, images[:3], strict=True):
        assert title.endswith(rf"\leq {np.abs(image.get_array()).max():.2g}$")


def test_the_ends_of_the_walk_lie_on_both_lines(studies):
    for found in studies:
        for end in (0, -1):
            along, straight = (
                found.arrays[name][end] for name in ("walk_energy", "straight_energy")
            )
            assert along == pytest.approx(straight, abs=1e-2)


def test_script_draws_both_formats(studied_sweep, run_figure, tmp_path):
    task = "L4_T2.7_d1_s1"
    done = run_figure("fig_rg.py", studied_sweep, "--task", task, "-o", tmp_path / "fig_rg")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "fig_rg.png").stat().st_size > 10_000
    assert (tmp_path / "fig_rg.pdf").stat().st_size > 5_000


def test_a_sweep_without_studies_is_refused(real_sweep, run_figure):
    done = run_figure("fig_rg.py", real_sweep)
    assert done.returncode == 1
    assert "has no coarse study; run `neuralrg coarse DIR`" in done.stderr
