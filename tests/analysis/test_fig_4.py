"""analysis/fig_4.py: what is drawn, and how the script behaves."""

import h5py
import numpy as np
import pytest

import fig_4
import study
import sweep

TASK = "L4_T2_d2_s1"


@pytest.fixture
def studies(studied_sweep):
    kinds = ("responses", "mutual_information")
    return [study.read_studies(studied_sweep, kind, [TASK])[0] for kind in kinds]


def test_every_latent_has_its_image_and_both_matrices_one_scale(studies, studied_sweep):
    figure = fig_4.draw_figure(*studies)
    figure.draw_without_rendering()
    drawn = [axes for axes in figure.axes if axes.images]
    # One of the top level, three of each of both others, two matrices.
    assert len(drawn) == 1 + 3 + 3 + 2
    with h5py.File(studied_sweep.parent / "responses" / f"{TASK}.h5") as file:
        response = np.asarray(file["response"])
    middle = np.roll(response[0], (2, 2), axis=(0, 1))
    np.testing.assert_array_equal(drawn[0].images[0].get_array(), middle)
    latent, field = (axes.images[0] for axes in drawn[-2:])
    assert latent.norm.vmin == field.norm.vmin == fig_4.noise_floor(studies[1])
    assert latent.norm.vmax == field.norm.vmax


def test_matrix_of_latents_begins_with_the_top_level(studies):
    figure = fig_4.draw_figure(*studies)
    latent = [axes for axes in figure.axes if axes.images][-2].images[0].get_array()
    information = studies[1].arrays["latent_information"]
    floor = 0.99 * fig_4.noise_floor(studies[1])
    # The coarse prior of L = 4 at depth 2 is at site 0, the next level at 2, 8 and 10.
    top = [0, 2, 8, 10]
    expected = np.maximum(information[np.ix_(top, top)], floor)
    np.testing.assert_allclose(latent[:4, :4].filled(np.nan), expected)
    # No variable is paired with itself.
    assert latent.mask.tolist() == np.eye(16, dtype=bool).tolist()


def test_white_lines_between_levels_are_explained_by_the_numbers_of_levels(studies):
    figure = fig_4.draw_figure(*studies)
    (axes,) = [axes for axes in figure.axes if axes.get_title("left").startswith("(b)")]
    white = [line.get_ydata()[0] for line in axes.lines if line.get_xdata()[0] == 0.0]
    # One variable of level 2, three of level 1, twelve of level 0.
    assert white == [0.5, 3.5]
    labels = {
        text.get_text(): float(at)
        for text, at in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
    }
    assert labels == {"2": 0.0, "1": 2.0, "0": 9.5}
    assert "level" in axes.get_ylabel()


def test_images_have_a_colour_scale_and_no_point_is_cut(studies):
    figure = fig_4.draw_figure(*studies)
    figure.draw_without_rendering()
    (responses,) = [it for it in figure.axes if it.get_xlabel().startswith("response")]
    (information,) = [it for it in figure.axes if "darkest" in it.get_ylabel()]
    assert responses.get_xlim() == (-1.0, 1.0)
    assert information.get_ylim()[0] == pytest.approx(fig_4.noise_floor(studies[1]))
    (axes,) = [axes for axes in figure.axes if axes.containers]
    frame = axes.get_window_extent()
    for container in axes.containers:
        at = axes.transData.transform(np.column_stack(container.lines[0].get_data()))
        assert (at.min(axis=0) - 3.0 > frame.min).all()
        assert (at.max(axis=0) + 3.0 < frame.max).all()


def test_a_task_whose_verdict_is_not_ok_is_named_so(studies):
    # So short a training is not ok.
    assert studies[0].problems > 0
    figure = fig_4.draw_figure(*studies)
    assert figure.get_suptitle().endswith("seed 1, verdict not ok")
    figure = fig_4.draw_figure(studies[0]._replace(problems=0), studies[1])
    assert figure.get_suptitle().endswith("seed 1")


def test_means_against_distance_have_error_bars(studies):
    figure = fig_4.draw_figure(*studies)
    (axes,) = [axes for axes in figure.axes if axes.containers]
    arrays = studies[1].arrays
    for container, kind in zip(axes.containers, ("field", "latent"), strict=True):
        line, _, (bars,) = container.lines
        mean = arrays[f"{kind}_information_mean"][1:]
        error = arrays[f"{kind}_information_mean_error"][1:]
        np.testing.assert_array_equal(line.get_ydata(), mean)
        spans = np.array([path.vertices[:, 1] for path in bars.get_paths()])
        np.testing.assert_allclose(np.diff(spans, axis=1)[:, 0], 2.0 * error)
    # Neighbours of the field know of each other.
    assert arrays["field_information_mean"][1] > 10 * arrays["field_information_mean_error"][1]


def test_the_deepest_flow_nearest_to_the_critical_temperature_is_chosen(studied_sweep):
    chosen = study.most_telling(study.read_studies(studied_sweep, "responses"))
    assert chosen.task == TASK


def test_script_draws_both_formats(studied_sweep, run_figure, tmp_path):
    done = run_figure("fig_4.py", studied_sweep, "--task", TASK, "-o", tmp_path / "fig_4")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "fig_4.png").stat().st_size > 10_000
    assert (tmp_path / "fig_4.pdf").stat().st_size > 5_000


def test_what_is_missing_is_named(real_sweep, studied_sweep, tmp_path):
    with pytest.raises(sweep.SweepError, match=r"no responses study; run `neuralrg respond DIR`"):
        study.read_studies(real_sweep, "responses")
    with pytest.raises(sweep.SweepError, match="no mutual_information study of L9; run"):
        study.read_studies(studied_sweep, "mutual_information", ["L9"])
    with pytest.raises(sweep.SweepError, match="has no lattice of L = 8; there are: 4"):
        study.read_studies(studied_sweep, "coarse", linear_size=8)
    moved = tmp_path / "sweep.h5"
    moved.write_bytes(studied_sweep.read_bytes())
    with pytest.raises(sweep.SweepError, match=r"keep sweep\.h5 in its folder"):
        study.read_studies(moved, "coarse", [TASK])
