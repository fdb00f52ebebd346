"""analysis/report.py: what the page says, and that a browser shows it."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib import image

import report
import sweep
from conftest import PATIENCE, need
from figure import with_error
from synthetic import SyntheticSweep

#: As root, in a container, without network.
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)

#: Leaves what the browser made of each image in the page.
PROBE = """<script>addEventListener("load", () => {
  document.body.dataset.widths =
    JSON.stringify([...document.images].map((image) => image.naturalWidth));
});</script></body>"""


class Table(HTMLParser):
    """The text of each cell of the page's table body, row by row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._in_cell &= tag != "td"

    def handle_data(self, data):
        if self._in_cell:
            self.rows[-1][-1] += data.strip()

    def body(self) -> list[list[str]]:
        return [row for row in self.rows if row]


@pytest.fixture
def browse(tmp_path):
    """Runs Chromium on a page; its standard output and what the page's console said."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    need(browser is not None, "there is no Chromium")

    def run(path: Path, *arguments: str) -> tuple[str, list[str]]:
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [browser, *CHROMIUM_FLAGS, profile, *arguments, path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return run


@pytest.fixture(scope="module")
def page(studied_sweep, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    return report.write_page(report.render(sweep.read_sizes(studied_sweep)), path)


def probed(page: Path, folder: Path) -> Path:
    """A copy of the page that tells what became of its images."""
    text = page.read_text(encoding="utf-8")
    assert text.count("</body>") == 1
    copy = folder / "probed.html"
    copy.write_text(text.replace("</body>", PROBE), encoding="utf-8")
    return copy


def widths(dom: str) -> list[int]:
    return json.loads(re.search(r'data-widths="([^"]*)"', dom)[1].replace("&quot;", '"'))


def test_browser_shows_every_figure_and_row_without_complaint(page, browse, real_sweep, tmp_path):
    dom, console = browse(probed(page, tmp_path), "--dump-dom")
    assert console == []
    figures = re.findall(r'<figure id="(\w+)"', dom)
    # The smoke sweep measures during its training, and has all studies here.
    assert figures == [f"{entry.name}_L4" for entry in report.FIGURES]
    assert len(widths(dom)) == len(figures)
    assert min(widths(dom)) > 300
    with sweep.read_sweep(real_sweep) as dataset:
        tasks = int(dataset["complete"].size)
    assert len(Table(dom).body()) == tasks


def test_the_browser_check_notices_broken_images_and_scripts(browse, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text('<body><img src="data:image/png;base64,AAAA"><script>none();</script></body>')
    dom, console = browse(probed(broken, tmp_path), "--dump-dom")
    assert widths(dom) == [0]
    assert any("none is not defined" in line for line in console)


def test_screenshot_is_not_blank(page, browse, tmp_path):
    shot = tmp_path / "shot.png"
    browse(page, f"--screenshot={shot}", "--window-size=1240,3000")
    pixels = image.imread(shot)[..., :3]
    assert pixels.shape[:2] == (3000, 1240)
    is_ink = (pixels < 0.8).any(axis=-1)
    assert 0.01 < is_ink.mean() < 0.5
    # Text or figures in each fifth of the page's first 3000 pixels.
    assert all(part.any() for part in np.array_split(is_ink, 5))


def test_page_needs_no_other_file(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "http" not in text
    assert "@import" not in text


def test_rows_hold_the_numbers_of_the_sweep(page, real_sweep):
    rows = Table(page.read_text(encoding="utf-8")).body()
    with sweep.read_sweep(real_sweep) as dataset, h5py.File(real_sweep) as file:
        first = dataset.isel(temperature=0, depth=0, seed=0)
        gap = with_error(float(first["gap"]), float(first["gap_error"]))
        problems = int(first["problems"])
        verdict = f"{problems} problem{'s' * (problems != 1)}"
        assert rows[0][:6] == ["4", "2", "1", "1", verdict, gap]
        bridge = float(first["bridge_free_energy"] - first["free_energy_exact"])
        cell = with_error(bridge, float(first["bridge_free_energy_error"]))
        headings = [heading for heading, _, _ in report.COLUMNS]
        assert rows[0][5 + headings.index("bridge - exact")] == cell
        verdict = file["tasks/L4_T2_d1_s1"].attrs["verdict"]
    text = html.unescape(page.read_text(encoding="utf-8"))
    for problem in verdict.split("; "):
        assert problem in text


def test_page_tells_configuration_and_provenance(page):
    text = page.read_text(encoding="utf-8")
    for words in ("measure_every = 100", "cpu, 1 thread (4 tasks)", "collected by", "UTC"):
        assert words in text


def test_unfinished_tasks_and_absent_files_are_told(tmp_path):
    made_up = SyntheticSweep()
    made_up.unfinish(1, 0, 0)
    made_up.attributes["name"] = "<b>not markup</b>"
    text = report.render(sweep.read_sizes(made_up.write(tmp_path / "sweep.h5")))
    rows = Table(text).body()
    assert len(rows) == 24
    assert [row for row in rows if "not finished" in row] == [
        ["8", "2.2", "1", "0", "not finished", *[""] * 11]
    ]
    assert "1 task file is not beside the sweep file" in text
    assert "During the training, L = 8: not drawn." in text
    assert "<b>not markup" not in text


def test_every_lattice_has_its_rows_and_figures_or_the_chosen_one(
    two_lattices, run_figure, tmp_path
):
    for arguments, sizes in (((), ["8", "16"]), (("--linear-size", 16), ["16"])):
        done = run_figure("report.py", two_lattices, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert f"<title>synthetic: L = {', '.join(sizes)}</title>" in text
        assert [row[0] for row in Table(text).body()] == [size for size in sizes for _ in range(24)]
        figures = re.findall(r'<figure id="(\w+)"', text)
        drawn = ("fig_s1", "fig_observables", "fig_s2")
        assert figures == [f"{name}_L{size}" for name in drawn for size in sizes]
        assert text.count("cannot read tasks/L16_T2_d1_s0.h5") == 1


def test_errors_have_the_digits_asked_for():
    assert with_error(1.23456, 0.0123) == "1.235 ± 0.012"
    assert with_error(0.12345, 0.0021, digits=1) == "0.123 ± 0.002"
    assert with_error(-12.3, 2.2, digits=1) == "-12 ± 2"
    assert with_error(118.928, 0.573) == "118.93 ± 0.57"
    assert with_error(-123.4, 17.0) == "-123 ± 17"
    assert with_error(0.5, np.nan) == "0.5"
    assert with_error(0.5, 0.0) == "0.5"


def test_script_writes_the_page(real_sweep, run_figure, tmp_path):
    done = run_figure("report.py", real_sweep, "-o", "a/page.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a/page.html\n"
    assert (tmp_path / "a" / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_what_cannot_be_done_is_one_line(sweep_path, run_figure, tmp_path):
    done = run_figure("report.py", "none.h5")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    (tmp_path / "taken").write_text("a file")
    done = run_figure("report.py", sweep_path, "-o", "taken/page.html")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "cannot be written" in done.stderr
