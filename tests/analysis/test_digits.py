"""Pictures as data, what `neuralrg learn` makes of them, and the figure of generated ones."""

import gzip
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import fig_digits
from conftest import ROOT, Runner, ScriptRunner
from pictures import ALPHA, PixelMap, crop, pad, read_all_idx, read_idx, write_fields
from sweep import SweepError

FLOW = "[flow]\ncouplings = 4\nhidden_layers = 1\nhidden_width = 16\n"


def learn(neuralrg: Runner, folder: Path, text: str) -> Path:
    """Run `neuralrg learn` on a configuration; the file that it has written."""
    config, output = folder / "learn.toml", folder / "learned.h5"
    config.write_text(text)
    neuralrg("learn", config, "-o", output)
    return output


def idx_bytes(pixels: np.ndarray) -> bytes:
    """Pictures in the IDX format."""
    return b"\x00\x00\x08\x03" + np.array(pixels.shape, ">u4").tobytes() + pixels.tobytes()


def test_log_jacobian_is_the_numerical_derivative_and_pixels_come_back() -> None:
    generator = np.random.default_rng(1)
    pixels = generator.uniform(0.0, 256.0, (3, 4, 5))
    pixel_map = PixelMap(256, ALPHA)
    field, log_jacobian = pixel_map.to_field(pixels)
    step = 1e-4
    slopes = (pixel_map.to_field(pixels + step)[0] - pixel_map.to_field(pixels - step)[0]) / (
        2 * step
    )
    np.testing.assert_allclose(log_jacobian, np.log(slopes).sum(axis=(1, 2)), rtol=1e-8)
    np.testing.assert_allclose(pixel_map.to_pixels(field), pixels, rtol=1e-10)


def test_padding_keeps_the_picture_in_the_middle() -> None:
    pixels = np.random.default_rng(2).integers(1, 256, (2, 28, 27), dtype=np.uint8)
    padded = pad(pixels)
    assert padded.shape == (2, 32, 32)
    np.testing.assert_array_equal(padded[:, 2:30, 2:29], pixels)
    assert (padded > 0).sum() == pixels.size
    np.testing.assert_array_equal(crop(padded, 28, 27), pixels)


def test_idx_files_are_read_plain_and_gzipped_in_the_order_given(
    tmp_path: Path, run_figure: ScriptRunner
) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (5, 6, 7), dtype=np.uint8)
    plain, zipped, output = tmp_path / "a", tmp_path / "b.gz", tmp_path / "new" / "data.h5"
    plain.write_bytes(idx_bytes(pixels[:3]))
    zipped.write_bytes(gzip.compress(idx_bytes(pixels[3:])))
    np.testing.assert_array_equal(read_all_idx([plain, zipped]), pixels)
    done = run_figure("pictures.py", "idx", plain, zipped, "-o", output, "--seed", 4)
    assert done.returncode == 0, done.stderr
    with h5py.File(output) as file:
        fields = file["fields"][...]
        assert fields.shape == (5, 8, 8)
        assert file["log_jacobian"].shape == (5,)
        attributes = dict(file.attrs)
    assert (attributes["rows"], attributes["columns"], attributes["pixel_levels"]) == (6, 7, 256)
    values = crop(PixelMap(256, attributes["alpha"]).to_pixels(fields.astype(float)), 6, 7)
    # Uniform noise in [0, 1) above each whole pixel value, fields being rounded to f32.
    noise = values - pixels
    assert noise.min() > -1e-3
    assert noise.max() < 1.0 + 1e-3
    assert abs(noise.mean() - 0.5) < 4.0 / np.sqrt(12 * noise.size)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text", "no IDX file of pictures"),
        (b"\x00\x00\x08\x01" + bytes(20), "no IDX file of pictures"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8))[:-1], "17 pixels instead of"),
        (gzip.compress(b"pixels", mtime=0)[:-3], "is damaged"),
    ],
)
def test_bad_idx_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(SweepError, match=message):
        read_idx(path)


def test_pictures_of_different_sizes_are_refused(tmp_path: Path, run_figure: ScriptRunner) -> None:
    for name, size in (("a", 4), ("b", 5)):
        (tmp_path / name).write_bytes(idx_bytes(np.zeros((2, size, size), np.uint8)))
    done = run_figure("pictures.py", "idx", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "c.h5")
    assert done.returncode == 1
    assert "b: pictures of (5, 5), not (4, 4)" in done.stderr
    assert not (tmp_path / "c.h5").exists()


def test_uniform_pixels_cost_the_bits_of_their_levels_and_of_the_flows_shape(
    neuralrg: Runner, tmp_path: Path
) -> None:
    """Independent uniform pixels x = logit(share) have no structure but that of one site.

    An affine flow can give each site a Gaussian at best, so that a pixel costs
    log2(levels) + [1/2 ln(2 pi e Var x) - E ln(dx/dv)] / ln 2 bits, v uniform in [0, 1).
    """
    generator = np.random.default_rng(5)
    write_fields(
        tmp_path / "data.h5", generator.integers(0, 16, (6000, 4, 4)), 16, ALPHA, generator
    )
    learned = learn(
        neuralrg,
        tmp_path,
        f"[learn]\ndepth = 1\n[data]\nfile = '{tmp_path}/data.h5'\nheld_out = 2000\n{FLOW}"
        "[train]\nsteps = 400\nbatch = 256\nlearning_rate = 0.01\naveraging = 0.95\n",
    )
    share = ALPHA + (1 - 2 * ALPHA) * (np.arange(100_000) + 0.5) / 100_000
    x, slope = np.log(share / (1 - share)), (1 - 2 * ALPHA) / (share * (1 - share))
    expected = 4 + (0.5 * np.log(2 * np.pi * np.e * x.var()) - np.log(slope).mean()) / np.log(2)
    with h5py.File(learned) as file:
        bits = file["held_out/bits_per_dimension"][()]
        error = file["held_out/bits_per_dimension_error"][()]
    assert 4.0 < expected < 4.1
    # The flow's networks cost a little, as they can only fit noise here.
    assert -4 * error < bits - expected < 4 * error + 0.01
    assert error < 0.01


@pytest.fixture(scope="module")
def learned_digits(neuralrg: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits of scikit-learn, learned for some seconds."""
    folder = tmp_path_factory.mktemp("digits")
    script = ROOT / "analysis" / "pictures.py"
    subprocess.run([sys.executable, script, "scikit-learn", "-o", folder / "digits.h5"], check=True)
    return learn(
        neuralrg,
        folder,
        f"[learn]\ndepth = 3\nsamples = 12\n[data]\nfile = '{folder}/digits.h5'\nheld_out = 297\n"
        f"{FLOW}[train]\nsteps = 300\nbatch = 64\nlearning_rate = 0.005\naveraging = 0.97\n",
    )


def test_a_short_training_beats_independent_uniform_pixels(learned_digits: Path) -> None:
    pictures = fig_digits.read_pictures(learned_digits)
    assert pictures.pixels.shape == (4, 12, 8, 8)
    assert pictures.bits_per_dimension + 10 * pictures.error < np.log2(17)
    with h5py.File(learned_digits) as file:
        loss = file["train/loss"][...]
    assert loss[-20:].mean() < loss[:20].mean() - 10


def test_levels_add_detail(learned_digits: Path) -> None:
    """Without the latents of finer levels pictures differ less from one another."""
    pictures = fig_digits.read_pictures(learned_digits)
    spread = pictures.pixels.std(axis=1).mean(axis=(1, 2))
    assert (np.diff(spread) < 0).all(), spread


def test_figure_of_digits(learned_digits: Path, run_figure: ScriptRunner, tmp_path: Path) -> None:
    done = run_figure("fig_digits.py", learned_digits, "-o", tmp_path / "figure", "--count", 6)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert (tmp_path / "figure.pdf").exists()
    figure = fig_digits.draw_figure(fig_digits.read_pictures(learned_digits), 6)
    assert len(figure.axes) == 4 * 6
    assert figure.axes[0].get_ylabel() == "levels ≥ 3"
    assert figure.axes[-6].get_ylabel() == "all latents"


def test_figure_of_another_file_is_refused(run_figure: ScriptRunner, tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "something"
    done = run_figure("fig_digits.py", path)
    assert done.returncode == 1
    assert "is no finished file of `neuralrg learn`" in done.stderr
