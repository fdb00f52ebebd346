"""analysis/fig_canonical.py: what is drawn and printed, and which files are refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import fig_canonical
from conftest import ScriptRunner
from sweep import SweepError

BEADS = 6
#: Points along a path.
POSITION = np.linspace(-3.0, 3.0, 25)


def write(
    path: Path, kind: str, samples: np.ndarray, angles: list[str], /, **modes: np.ndarray
) -> Path:
    """A file as `neuralrg canonical` writes it, of the given arrays."""
    with h5py.File(path, "w") as file:
        file.attrs["format"] = fig_canonical.FORMAT
        file.attrs["complete"] = np.uint8(1)
        if angles:
            file.attrs["angle_names"] = np.array(angles, dtype=h5py.string_dtype())
        file["configuration"] = f'[source]\nkind = "{kind}"\n'
        file["evaluate/samples"] = samples
        file["modes/path_position"] = POSITION
        for name, values in modes.items():
            file[f"modes/{name}"] = values
    return path


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A chain with two seeds, its frequencies 1% too high, of its slowest five modes responses.

    Those are sine waves of any sign and norm; in the second a quarter of the third is mixed.
    """
    number = np.arange(1, BEADS + 1)
    waves = np.sin(np.pi * np.outer(number, number) / (BEADS + 1))
    response = waves[:5] * np.array([1.0, -2.0, 0.5, -1.0, 1.0])[:, np.newaxis]
    response[1] = -waves[1] + 0.25 * waves[2]
    return write(
        tmp_path / "chain.h5",
        "harmonic-chain",
        np.random.default_rng(1).normal(size=(20, BEADS)),
        [],
        frequency=2.02 * np.sin(number * np.pi / (2 * (BEADS + 1))),
        frequency_error=np.full(BEADS, 0.01),
        response=response,
        path=np.zeros((5, len(POSITION), BEADS)),
    )


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    """A ring with one seed: an arc, and a line across it."""
    turn, still = POSITION, np.zeros_like(POSITION)
    arc = 2.0 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    return write(
        tmp_path / "ring.h5",
        "ring",
        np.random.default_rng(2).normal(size=(20, 2)),
        ["radius", "angle"],
        frequency=np.array([0.4, 2.8]),
        response=np.eye(2),
        path=np.stack([arc, np.stack([2.0 + turn / 4, still], axis=-1)]),
        information=np.array([[0.08, 4.8], [2.8, 0.02]]),
        information_error=np.full((2, 2), 0.01),
    )


def table(path: Path) -> list[list[str]]:
    """Cells of the table, without the line below its header."""
    header, _, *rows = fig_canonical.table(fig_canonical.read_canonical(path))
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in (header, *rows)]


def test_table_of_a_chain_compares_with_its_exact_modes(chain: Path) -> None:
    header, *rows = table(chain)
    assert header == ["mode", "frequency", "from exact (%)", "overlap"]
    assert rows[0] == ["1", "0.449 ± 0.010", "+1.000", "1.0000"]
    assert {row[2] for row in rows} == {"+1.000"}
    assert rows[1][3] == f"{1 / np.hypot(1, 0.25):.4f}"
    # The file has no response of the fastest mode.
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert rows[5][3] == ""


def test_figure_of_a_chain_has_exact_modes_beside_those_of_the_flow(chain: Path) -> None:
    figure = fig_canonical.draw_figure(fig_canonical.read_canonical(chain))
    figure.draw_without_rendering()
    frequencies, responses, overlaps = figure.axes[:3]
    (measured,) = frequencies.containers
    np.testing.assert_allclose(
        measured.lines[0].get_ydata(), 1.01 * frequencies.lines[0].get_ydata()
    )
    assert measured.has_yerr
    # Exact waves first; measured ones take their signs.
    assert len(responses.lines) == 2 * fig_canonical.SLOWEST
    for exact, line in zip(responses.lines[:4], responses.lines[4:], strict=True):
        assert np.linalg.norm(exact.get_ydata()) == pytest.approx(1.0)
        assert exact.get_ydata() @ line.get_ydata() > 0.0
    matrix = overlaps.images[0].get_array()
    assert matrix.shape == (5, BEADS)
    expected = np.eye(5, BEADS)
    expected[1, 1:3] = np.array([1.0, 0.25]) / np.hypot(1.0, 0.25)
    np.testing.assert_allclose(matrix, expected, atol=1e-12)


def test_ring_has_paths_in_its_plane_and_bars_of_information(ring: Path) -> None:
    canonical = fig_canonical.read_canonical(ring)
    figure = fig_canonical.draw_figure(canonical)
    figure.draw_without_rendering()
    frequencies, plane, information = figure.axes
    assert frequencies.get_legend() is None
    np.testing.assert_array_equal(plane.collections[0].get_offsets(), canonical.samples)
    for line, path in zip(plane.lines, canonical.modes["path"], strict=True):
        np.testing.assert_array_equal(line.get_xydata(), path)
        # z = -3, -2, ..., 3
        assert line.get_markevery() == [0, 4, 8, 12, 16, 20, 24]
    heights = {bar.get_height() for bar in information.patches}
    assert heights == {0.08, 4.8, 2.8, 0.02}
    low, high = information.get_xlim()
    for bar in information.patches:
        assert low < bar.get_x() < bar.get_x() + bar.get_width() < high
    header, slow, fast = table(ring)
    assert header == ["mode", "frequency", "radius (nat)", "angle (nat)"]
    assert slow == ["1", "0.4", "0.080 ± 0.010", "4.800 ± 0.010"]
    assert fast == ["2", "2.8", "2.800 ± 0.010", "0.020 ± 0.010"]


def test_data_without_angles_have_two_panels(chain: Path) -> None:
    canonical = fig_canonical.read_canonical(chain)._replace(is_chain=False)
    figure = fig_canonical.draw_figure(canonical)
    figure.draw_without_rendering()
    assert len(figure.axes) == 2
    assert len(figure.axes[1].lines) == fig_canonical.SLOWEST
    assert fig_canonical.table(canonical)[0] == "| mode | frequency |"


def test_script_prints_the_table_and_writes_both_files(
    ring: Path, run_figure: ScriptRunner, tmp_path: Path
) -> None:
    done = run_figure("fig_canonical.py", ring, "-o", tmp_path / "figure")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| mode | frequency | radius (nat) | angle (nat) |")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert (tmp_path / "figure.pdf").exists()


def test_another_or_an_unfinished_file_is_refused(
    ring: Path, run_figure: ScriptRunner, tmp_path: Path
) -> None:
    with h5py.File(ring, "a") as file:
        del file.attrs["complete"]
    done = run_figure("fig_canonical.py", ring, "-o", tmp_path / "figure")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"fig_canonical.py: {ring}: not a finished file of `neuralrg canonical`")
    assert not (tmp_path / "figure.png").exists()


@pytest.mark.parametrize("name", ["configuration", "modes", "evaluate/samples"])
def test_a_damaged_file_is_named(ring: Path, name: str) -> None:
    with h5py.File(ring, "a") as file:
        del file[name]
    with pytest.raises(SweepError, match=r"ring\.h5: cannot be read as canonical transformation"):
        fig_canonical.read_canonical(ring)
