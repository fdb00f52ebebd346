"""Pictures as data, what `neuralrg learn` makes of them, and the figure of generated ones."""

import gzip
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import kstest, norm, truncnorm

import fig_digits
from conftest import ROOT, Runner, ScriptRunner
from fig_canonical import MODES_FORMAT
from fig_canonical_digits import read_pictures as read_canonical_digits
from pictures import Pictures, PixelMap, crop, pad, read_all_idx, read_idx, write_pictures
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


def drawn_map(levels: int = 6) -> tuple[np.ndarray, PixelMap]:
    """Pictures of 3 x 4 pixels, of few levels above 0, and their map."""
    generator = np.random.default_rng(1)
    ink = np.minimum(generator.geometric(0.4, (200, 3, 4)), levels - 1)
    pixels = np.where(generator.random(ink.shape) < 0.4, ink, 0)
    return pixels, PixelMap.of(pixels, levels, 0.3)


def test_noise_is_a_density_between_the_edges_of_each_level() -> None:
    """Uniform in Phi for all levels but 0, and ln r as scipy has it."""
    pixels, pixel_map = drawn_map()
    generator = np.random.default_rng(2)
    edges = pixel_map.edges
    assert edges.shape == (5,)
    assert edges[0] == pytest.approx(ndtri(0.3))
    ends = np.array([*edges, np.inf])
    for level in range(1, 6):
        share = (pixels == level).sum() / (pixels > 0).sum()
        low, high = ndtr(ends[level - 1 : level + 1])
        assert high - low == pytest.approx(0.7 * share, abs=0.01)
        field, _ = pixel_map.to_field(np.full((2000, 3, 4), level), generator)
        ranks = (ndtr(field) - low) / (high - low)
        # Passed by chance for all but one of 10^5 seeds.
        assert kstest(ranks.ravel(), "uniform").pvalue > 1e-5
    field, ln_noise = pixel_map.to_field(pixels, generator)
    assert (np.searchsorted(edges, field) == pixels).all()
    mean, deviation, kept = pixel_map.noise_of_black()
    ln_black = norm.logpdf(field, mean, deviation) - np.log(kept)
    index = np.maximum(pixels, 1)
    ln_ink = norm.logpdf(field) - np.log(norm.cdf(ends[index]) - norm.cdf(ends[index - 1]))
    expected = np.where(pixels == 0, ln_black, ln_ink).sum(axis=(1, 2))
    np.testing.assert_allclose(ln_noise, expected, rtol=1e-9)


def test_noise_of_black_has_the_moments_of_a_cut_normal_distribution() -> None:
    _, pixel_map = drawn_map()
    mean, deviation, kept = pixel_map.noise_of_black()
    cut = truncnorm(-np.inf, ndtri(0.3))
    assert (mean, deviation) == pytest.approx((cut.mean(), cut.std()), rel=1e-9)
    assert kept == pytest.approx(norm.cdf((ndtri(0.3) - mean) / deviation))
    field, _ = pixel_map.to_field(np.zeros((2000, 3, 4), dtype=int), np.random.default_rng(3))
    drawn = truncnorm(-np.inf, (ndtri(0.3) - mean) / deviation, mean, deviation)
    assert kstest(field.ravel(), drawn.cdf).pvalue > 1e-5


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
    done = run_figure("pictures.py", "idx", plain, zipped, "-o", output, "--held-out", 2)
    assert done.returncode == 0, done.stderr
    with h5py.File(output) as file:
        fields = file["fields"][...]
        assert fields.shape == (5, 8, 8)
        assert file["ln_noise"].shape == (5,)
        edges = file["edges"][...]
        attributes = dict(file.attrs)
    assert (attributes["rows"], attributes["columns"], attributes["pixel_levels"]) == (6, 7, 256)
    np.testing.assert_array_equal(crop(np.searchsorted(edges, fields), 6, 7), pixels)
    # What is held out leaves no trace in the edges.
    np.testing.assert_array_equal(edges, PixelMap.of(pixels[:3], 256, 0.1).edges)


def test_coordinates_have_labels_and_no_padding(tmp_path: Path, run_figure: ScriptRunner) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (5, 6, 7), dtype=np.uint8)
    images, labels, output = tmp_path / "a", tmp_path / "b", tmp_path / "data.h5"
    images.write_bytes(idx_bytes(pixels))
    labels.write_bytes(b"\x00\x00\x08\x01\x00\x00\x00\x05" + bytes([3, 1, 4, 1, 5]))
    arguments = ["--held-out", 1, "--coordinates", "-o", output, "--labels"]
    done = run_figure("pictures.py", "idx", images, *arguments, labels)
    assert done.returncode == 0, done.stderr
    with h5py.File(output) as file:
        found = np.searchsorted(file["edges"][...], file["coordinates"][...])
        np.testing.assert_array_equal(found, pixels.reshape(5, 42))
        assert file["labels"][...].tolist() == [3, 1, 4, 1, 5]
    output.unlink()
    for files, message in [
        ((labels, labels), "there are 10 labels of 5 pictures"),
        ((images,), "is no IDX file of labels"),
    ]:
        done = run_figure("pictures.py", "idx", images, *arguments, *files)
        assert done.returncode == 1
        assert message in done.stderr
        assert not output.exists()
    done = run_figure("pictures.py", "idx", images, "--held-out", 5, "-o", output)
    assert "there are 5 pictures; --held-out must leave some" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text", "no IDX file of pictures"),
        (b"\x00\x00\x08\x01" + bytes(20), "no IDX file of pictures"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8))[:-1], "17 values instead of"),
        (gzip.compress(b"pixels", mtime=0)[:-3], "is damaged"),
    ],
)
def test_bad_idx_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(SweepError, match=message):
        read_idx(path, 3)


def test_pictures_of_different_sizes_are_refused(tmp_path: Path, run_figure: ScriptRunner) -> None:
    for name, size in (("a", 4), ("b", 5)):
        (tmp_path / name).write_bytes(idx_bytes(np.zeros((2, size, size), np.uint8)))
    done = run_figure(
        "pictures.py",
        "idx",
        tmp_path / "a",
        tmp_path / "b",
        "--held-out",
        1,
        "-o",
        tmp_path / "c.h5",
    )
    assert done.returncode == 1
    assert "b: pictures of (5, 5), not (4, 4)" in done.stderr
    assert not (tmp_path / "c.h5").exists()


def test_independent_pixels_cost_their_entropy_and_what_noise_adds(
    neuralrg: Runner, tmp_path: Path
) -> None:
    """Pixels that are black with probability 1/2, else of one of 15 levels, all alike.

    An affine flow can give each site a Gaussian at best, 1/2 ln(2 pi e Var x), less ln r.
    """
    generator = np.random.default_rng(5)
    ink = generator.integers(1, 16, (8000, 4, 4))
    pixels = np.where(generator.random(ink.shape) < 0.5, 0, ink)
    write_pictures(tmp_path / "data.h5", Pictures(pixels, 16, 4000, black=0.5), False, generator)
    learned = learn(
        neuralrg,
        tmp_path,
        f"[learn]\ndepth = 1\n[data]\nfile = '{tmp_path}/data.h5'\nheld_out = 4000\n{FLOW}"
        "[train]\nsteps = 400\nbatch = 256\nlearning_rate = 0.01\naveraging = 0.95\n",
    )
    with h5py.File(tmp_path / "data.h5") as file:
        x, ln_noise = file["fields"][-4000:], file["ln_noise"][-4000:]
    nats = 0.5 * np.log(2 * np.pi * np.e * x.var()) + ln_noise.mean() / 16
    with h5py.File(learned) as file:
        bits = file["held_out/bits_per_dimension"][()]
        error = file["held_out/bits_per_dimension_error"][()]
    entropy = 1.0 + 0.5 * np.log2(15)
    assert entropy < nats / np.log(2) < entropy + 0.1
    # The flow's networks cost a little, as they can only fit noise here.
    assert -4 * error < bits - nats / np.log(2) < 4 * error + 0.01
    assert error < 0.01


@pytest.fixture(scope="module")
def learned_digits(neuralrg: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits of scikit-learn, learned for some seconds."""
    folder = tmp_path_factory.mktemp("digits")
    script = ROOT / "analysis" / "pictures.py"
    subprocess.run(
        [sys.executable, script, "scikit-learn", "--held-out=297", "-o", folder / "digits.h5"],
        check=True,
    )
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


@pytest.fixture
def canonical_digits(tmp_path: Path) -> list[Path]:
    """Made-up pictures whose first two modes are their label, and what was made of them."""
    generator = np.random.default_rng(7)
    labels = generator.integers(0, 4, 600)
    pixels = generator.integers(0, 16, (600, 3, 4))
    data = tmp_path / "data.h5"
    write_pictures(data, Pictures(pixels, 16, 100, labels), True, generator)
    modes = tmp_path / "modes.h5"
    values = generator.normal(size=(600, 12))
    values[:, 0] = labels % 2 + 0.05 * values[:, 0]
    values[:, 1] = labels // 2 + 0.05 * values[:, 1]
    with h5py.File(modes, "w") as file:
        file.attrs["format"] = MODES_FORMAT
        file["modes"], file["frequency"] = values, np.arange(12.0)
    transformation = tmp_path / "canonical.h5"
    with h5py.File(transformation, "w") as file:
        file["configuration"] = "[source]\nheld_out = 100\nscale = 2.0\n"
        file["modes/frequency"] = np.arange(12.0)
        file["evaluate/kept_modes"] = np.array([2, 6])
        # In the units of the flow.
        with h5py.File(data) as pictures:
            file["evaluate/original"] = 2.0 * pictures["coordinates"][-16:]
        file["evaluate/redrawn"] = np.zeros((2, 16, 12))
    return [transformation, data, modes]


def test_slow_modes_classify_what_they_know(
    canonical_digits: list[Path], run_figure: ScriptRunner, tmp_path: Path
) -> None:
    done = run_figure(
        "fig_canonical_digits.py", *canonical_digits, "--count", 2, "-o", tmp_path / "figure"
    )
    assert done.returncode == 0, done.stderr
    cells = [line.split("|")[1:3] for line in done.stdout.splitlines() if line.startswith("|")]
    right = {name.strip(): value.split()[0] for name, value in cells[2:]}
    assert float(right["2 slowest modes"]) == 1.0
    # Labels of chance are right in a quarter of 100 pictures, here with five sigma of it.
    assert float(right["2 principal components"]) < 0.47
    assert float(right["2 random modes"]) < 1.0
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_originals_have_the_levels_of_their_pixels(canonical_digits: list[Path]) -> None:
    pictures = read_canonical_digits(*canonical_digits)
    levels = np.searchsorted(pictures.edges, pictures.original)
    with h5py.File(canonical_digits[1]) as file:
        expected = np.searchsorted(pictures.edges, file["coordinates"][-16:])
    assert np.array_equal(levels, expected)
    assert levels.max() > 10


def test_files_that_are_not_of_pictures_are_refused(
    canonical_digits: list[Path], run_figure: ScriptRunner, tmp_path: Path
) -> None:
    transformation, data, modes = canonical_digits
    some, few, few_modes = (tmp_path / name for name in ("some.h5", "few.h5", "few_modes.h5"))
    for path, samples, slowest in [(some, 600, 6), (few_modes, 90, 12)]:
        with h5py.File(modes) as file, h5py.File(path, "w") as part:
            part.attrs["format"] = MODES_FORMAT
            part["modes"] = file["modes"][:samples, :slowest]
            part["frequency"] = file["frequency"][:slowest]
    with h5py.File(data) as file, h5py.File(few, "w") as part:
        part.attrs.update(file.attrs)
        for name in ("coordinates", "labels"):
            part[name] = file[name][:90]
        part["edges"] = file["edges"][...]
    for files, message in [
        ((data, data, modes), "cannot be read as canonical transformation of pictures"),
        ((transformation, modes, modes), "cannot be read as coordinates of pictures with labels"),
        ((transformation, data, data), "not a file of `neuralrg modes`"),
        ((transformation, data, modes, "--count", 13), "--count must be from 1 to 12"),
        ((transformation, data, some), "has 6 of 12 modes; make it without --slowest"),
        ((transformation, few, few_modes), "100 of 90 are held out"),
    ]:
        done = run_figure("fig_canonical_digits.py", *files, "-o", tmp_path / "figure")
        assert done.returncode == 1
        assert message in done.stderr
        assert not (tmp_path / "figure.png").exists()
