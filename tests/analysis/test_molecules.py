"""Trajectories of molecules: npz files become data, and the figure of alanine dipeptide."""

import fcntl
from pathlib import Path

import h5py
import numpy as np
import pytest

import alanine
import fig_alanine
import trajectories
from conftest import ScriptRunner
from fig_canonical import MODES_FORMAT, read_canonical
from sweep import SweepError
from test_fig_canonical import write

FRAMES = 400
#: Modes of the made-up frames.
MODES = 3


def made_up_frames(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Heavy atoms whose dihedrals phi and psi walk to and fro, aligned, and the angles."""
    generator = np.random.default_rng(seed)
    phase = np.cumsum(generator.normal(scale=0.05, size=count))
    phi, psi = -1.5 + 0.8 * np.sin(phase), 1.0 + 1.5 * np.cos(np.arange(count) / 7.0)
    frames = np.empty((count, 10, 3))
    for frame, turn in zip(frames, zip(phi, psi, strict=True), strict=True):
        frame[...] = alanine.heavy_positions(*turn)
    frames += generator.normal(scale=0.002, size=frames.shape)
    return alanine.align(frames, frames[0], np.ones(10)).reshape(count, -1), np.stack(
        [phi, psi], axis=1
    )


@pytest.fixture
def npz_files(tmp_path: Path) -> tuple[Path, Path]:
    """Two trajectories in the layout of the published files: nm and rad, single precision."""
    positions, angles = zip(made_up_frames(1, FRAMES), made_up_frames(2, FRAMES + 1), strict=True)
    paths = tmp_path / "positions.npz", tmp_path / "dihedrals.npz"
    for path, arrays in zip(paths, (positions, angles), strict=True):
        np.savez(path, *(array.astype(np.float32) for array in arrays))
    return paths


def test_heavy_atoms_have_the_dihedrals_that_were_asked_for() -> None:
    frame = alanine.heavy_positions(-1.2, 2.5)[np.newaxis]
    assert alanine.dihedrals(frame, alanine.PHI) == pytest.approx([-1.2], abs=1e-12)
    assert alanine.dihedrals(frame, alanine.PSI) == pytest.approx([2.5], abs=1e-12)
    # A trans peptide bond before and behind the residue.
    for atoms in ((0, 1, 3, 4), (4, 6, 8, 9)):
        assert np.abs(alanine.dihedrals(frame, atoms)) == pytest.approx([np.pi], abs=1e-12)
    lengths = [np.linalg.norm(frame[0, one] - frame[0, other]) for one, other in alanine.BONDS]
    assert all(0.12 < length < 0.155 for length in lengths)
    # Left-handed amino acids: C, CB and N lie clockwise around CA, seen from its hydrogen.
    to_n, to_cb, to_c = frame[0, [3, 5, 6]] - frame[0, 4]
    assert np.dot(np.cross(to_n, to_c), to_cb) > 0.0


def test_alignment_undoes_turns_and_shifts_and_no_mirror() -> None:
    generator = np.random.default_rng(3)
    reference = generator.normal(size=(6, 3))
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    frames = np.stack([reference @ turn + 2.0, reference])
    masses = np.array([1.0, 2.0, 5.0, 1.0, 3.0, 4.0])
    aligned = alanine.align(frames, reference, masses)
    expected = reference - masses @ reference / masses.sum()
    assert aligned == pytest.approx(np.broadcast_to(expected, aligned.shape), abs=1e-12)
    mirrored = alanine.align((reference * [1.0, 1.0, -1.0])[np.newaxis], reference, masses)[0]
    assert np.linalg.norm(mirrored - expected) > 0.1
    # No small turn does better, weights included.
    noisy = reference + 0.3 * generator.normal(size=reference.shape)
    best = alanine.align(noisy[np.newaxis], reference, masses)[0]
    for small in 0.01 * generator.normal(size=(20, 3, 3)):
        turned = best @ np.linalg.qr(np.eye(3) + small - small.T)[0]
        turned *= np.sign(np.sum(turned * best))
        distances = [masses @ np.sum((x - expected) ** 2, axis=1) for x in (best, turned)]
        assert distances[0] < distances[1]


def test_npz_files_become_data(
    npz_files: tuple[Path, Path], tmp_path: Path, run_figure: ScriptRunner
) -> None:
    positions, angles = npz_files
    output = tmp_path / "new" / "frames.h5"
    arguments = ["--angles", angles, "--names", "phi", "psi", "--every", 3, "-o", output]
    result = run_figure("trajectories.py", positions, *arguments)
    assert result.stdout == f"{output}\n", result.stderr
    lengths = [-(-FRAMES // 3), -(-(FRAMES + 1) // 3)]
    with h5py.File(output) as file, np.load(positions) as expected:
        assert file["coordinates"].dtype == np.float32
        assert file["coordinates"].shape == (sum(lengths), 30)
        assert file["trajectory"][...].tolist() == [0] * lengths[0] + [1] * lengths[1]
        assert np.array_equal(file["coordinates"][lengths[0] :], expected["arr_1"][::3])
        assert file["angles"].shape == (sum(lengths), 2)
        assert list(file["angles"].attrs["angle_names"]) == ["phi", "psi"]


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"x": np.zeros((5, 3))}, "has no arrays arr_0"),
        ({"arr_0": np.zeros(5)}, "arr_0 must be numbers, a row each frame"),
        ({"arr_0": np.zeros((0, 3))}, "arr_0 must be numbers, a row each frame"),
        ({"arr_0": np.full((5, 3), np.nan)}, "arr_0 has values that are not finite"),
        ({"arr_0": np.zeros((5, 3)), "arr_1": np.zeros((5, 4))}, "arr_1 has 4 values a frame, not"),
    ],
)
def test_bad_npz_files_are_refused(tmp_path: Path, arrays: dict, problem: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(SweepError, match=problem):
        trajectories.read_npz(tmp_path / "bad.npz")


def test_other_files_and_angles_of_other_frames_are_refused(
    npz_files: tuple[Path, Path], tmp_path: Path, run_figure: ScriptRunner
) -> None:
    text = tmp_path / "text.npz"
    text.write_text("no archive", encoding="utf-8")
    output = tmp_path / "frames.h5"
    np.savez(tmp_path / "short.npz", np.zeros((FRAMES, 2)))
    np.save(tmp_path / "one.npy", np.zeros((FRAMES, 3)))
    for arguments, problem in [
        ([text], "text.npz: cannot be read as npz file"),
        ([tmp_path / "one.npy"], "one.npy: cannot be read as npz file"),
        ([tmp_path / "none.npz"], "none.npz"),
        ([npz_files[0], "--angles", tmp_path / "short.npz", "--names", "a", "b"], "trajectories"),
        ([npz_files[0], "--angles", npz_files[1], "--names", "phi"], "give as many --names"),
        ([npz_files[0], "--names", "phi"], "--angles and --names go together"),
        ([npz_files[0], "--every", "0"], "--every must be 1 or more"),
    ]:
        result = run_figure("trajectories.py", *arguments, "-o", output)
        assert result.returncode != 0
        assert problem in result.stderr
        assert "Traceback" not in result.stderr
        assert not output.exists()


@pytest.fixture
def learned(npz_files: tuple[Path, Path], tmp_path: Path) -> list[Path]:
    """Files of a transformation whose first two modes are psi and phi, of frames, and of modes."""
    frames = tmp_path / "frames.h5"
    parts = [trajectories.read_npz(path) for path in npz_files]
    trajectories.write_frames(frames, *parts, ["phi", "psi"], 1)
    count = sum(len(part) for part in parts[0])
    noise = np.random.default_rng(4).normal(size=(count, MODES))
    angles = np.concatenate(parts[1])
    values = 0.1 * noise + np.stack([angles[:, 1], angles[:, 0], np.zeros(count)], axis=1)
    modes = tmp_path / "modes.h5"
    with h5py.File(modes, "w") as file:
        file.attrs["format"] = MODES_FORMAT
        file["frequency"] = np.array([0.2, 0.3, 1.2])
        file["modes"] = values
    path = np.broadcast_to(parts[0][0][:1], (MODES, 25, 30))
    transformation = write(
        tmp_path / "alanine.h5",
        "data",
        parts[0][0][:20],
        ["phi", "psi"],
        frequency=np.array([0.2, 0.3, 1.2]),
        response=np.eye(MODES, 30),
        path=path,
        information=np.full((MODES, 2), 0.5),
        information_error=np.full((MODES, 2), 0.1),
    )
    return [transformation, frames, modes]


def test_figure_and_table_of_alanine(
    learned: list[Path], tmp_path: Path, run_figure: ScriptRunner
) -> None:
    result = run_figure("fig_alanine.py", *learned, "--count", 3, "-o", tmp_path / "fig")
    assert result.returncode == 0, result.stderr
    rows = [line.split("|")[1:-1] for line in result.stdout.splitlines() if line.startswith("|")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[2:]}
    assert list(cells) == ["mode 1", "mode 2", "mode 3", "TICA 1", "TICA 2", "TICA 3"]
    phi, psi = np.array([row[1:3] for row in cells.values()], dtype=float).T
    assert psi[0] > 1.0 and phi[1] > 1.0
    assert max(phi[2], psi[2]) < 0.1
    assert "ω₃/ω₂ = 4.00" in result.stdout
    assert (tmp_path / "fig.png").stat().st_size > 10_000


def test_decay_time_of_an_exponential_correlation() -> None:
    generator = np.random.default_rng(5)
    keep = np.exp(-1 / 8.0)
    values = generator.normal(size=40_000)
    for index in range(1, len(values)):
        values[index] = keep * values[index - 1] + np.sqrt(1.0 - keep**2) * values[index]
    # 5000 decay times: three sigma are 6 %.
    trajectory = np.zeros(len(values))
    assert fig_alanine.decay_time(values, trajectory, 4) == pytest.approx(8.0, rel=0.06)
    # Frames of different trajectories are no pairs: here all pairs within one are alike.
    values = np.repeat(np.tile([1.0, -1.0], 50), 5) + 0.1 * np.tile([1, -1, 0, 1, -1], 100)
    assert fig_alanine.decay_time(values, np.repeat(np.arange(100), 5), 4) > 100.0
    assert np.isnan(fig_alanine.decay_time(values, np.zeros(500), 4))
    assert np.isnan(fig_alanine.decay_time(np.tile([1.0, -1.0], 50), np.zeros(100), 1))


def test_foreign_files_are_refused(
    learned: list[Path], tmp_path: Path, run_figure: ScriptRunner
) -> None:
    transformation, frames, modes = learned
    canonical = read_canonical(transformation)
    with pytest.raises(SweepError, match="cannot be read as frames of alanine dipeptide"):
        fig_alanine.read_frames(canonical, transformation, modes)
    with pytest.raises(SweepError, match="not a file of `neuralrg modes`"):
        fig_alanine.read_frames(canonical, frames, frames)
    result = run_figure("fig_alanine.py", *learned, "--lag", FRAMES, "-o", tmp_path / "figure")
    assert f"--lag must be below {FRAMES}" in result.stderr
    with h5py.File(modes, "r+") as file:
        file["frequency"][0] = 0.1
    with pytest.raises(SweepError, match="has not the two slowest modes of this transformation"):
        fig_alanine.read_frames(canonical, frames, modes)
    with h5py.File(modes, "r+") as file:
        values = file["modes"][:-1]
        del file["modes"]
        file["modes"] = values
    with pytest.raises(SweepError, match=r"samples, .*frames.h5 has"):
        fig_alanine.read_frames(canonical, frames, modes)


def test_a_trajectory_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real dynamics of a few frames, cut after the first block."""
    pytest.importorskip("openmm")
    monkeypatch.setattr(alanine, "FRAMES_PER_BLOCK", 4)
    plan = alanine.Plan(tmp_path, 0, 1, 1)
    alanine.run_trajectory(plan)
    first = plan.block(0).read_bytes()
    alanine.run_trajectory(plan._replace(blocks=2))
    assert plan.block(0).read_bytes() == first
    unbroken = alanine.Molecule(1)
    for index in range(2):
        with np.load(plan.block(index)) as block:
            positions, angles = unbroken.run_block()
            assert np.array_equal(block["positions"], positions)
            assert np.array_equal(block["dihedrals"], angles)
    joined = alanine.join([plan._replace(blocks=2)], "positions")["arr_0"]
    assert joined.shape == (8, 30)
    # Bonds of heavy atoms keep their lengths to a tenth.
    atoms = joined.reshape(8, 10, 3)
    for one, other in alanine.BONDS:
        lengths = np.linalg.norm(atoms[:, one] - atoms[:, other], axis=1)
        assert np.all((lengths > 0.11) & (lengths < 0.17))


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    alanine.check_settings(tmp_path, {"seed": 1})
    alanine.check_settings(tmp_path, {"seed": 1})
    with pytest.raises(SweepError, match="was begun with"):
        alanine.check_settings(tmp_path, {"seed": 2})
    (tmp_path / "settings.json").write_text("", encoding="utf-8")
    with pytest.raises(SweepError, match=r"settings.json: is damaged"):
        alanine.check_settings(tmp_path, {"seed": 1})


def test_one_process_works_on_a_trajectory(tmp_path: Path) -> None:
    plan = alanine.Plan(tmp_path, 0, 1, 1)
    plan.block(0).parent.mkdir()
    with (plan.block(0).parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SweepError, match=r"another alanine.py is at work"):
            alanine.run_trajectory(plan)
    # What is done needs no OpenMM, and what is damaged is told of.
    plan.block(0).write_text("no archive", encoding="utf-8")
    alanine.run_trajectory(plan)
    with pytest.raises(SweepError, match=r"block-0000.npz: is damaged"):
        alanine.join([plan], "positions")
