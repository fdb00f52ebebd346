#!/usr/bin/env python3
"""One self-contained HTML page of a sweep: tasks, figures, verdicts, configuration, provenance.

Figures whose data the sweep lacks are listed with what would make them. Verdicts, hosts and
devices are in the task files, which `sweep.h5` links to; without them the page says so.
"""

import argparse
import base64
import io
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import h5py
import jinja2
import matplotlib as mpl
import xarray as xr
from matplotlib.figure import Figure

import fig_3
import fig_4
import fig_observables
import fig_rg
import fig_s1
import fig_s2
from figure import STYLE, run_script, with_error
from sweep import SweepError, is_finished, read_sweep, require_variables, source

TEMPLATE = "report.html.j2"

#: Pixels that an inch of a figure takes on the page, so that all have letters of one size; the
#: images have twice as many for fine screens.
PIXELS_PER_INCH = 112


class Entry(NamedTuple):
    """A figure of the page."""

    name: str
    title: str
    caption: str
    #: Draws it from the opened sweep, or raises SweepError that tells what is missing.
    draw: Callable[[xr.Dataset], Figure]


FIGURES = (
    Entry(
        "fig_s1",
        "Error of the free energy",
        "Variational free energy of the trained flows relative to the exact one, one standard "
        "error; the dotted line is what a mixed pair of Gaussians reaches with no network. Hollow "
        "points are tasks whose verdict is not ok.",
        lambda dataset: fig_s1.draw_figure(dataset, fig_s1.QUANTITIES["relative"]),
    ),
    Entry(
        "fig_observables",
        "Observables",
        "By latent HMC, which samples the target itself: the depths must agree with each other "
        "and with the exact values within their errors, where the verdict is ok.",
        fig_observables.draw_figure,
    ),
    Entry(
        "fig_s2",
        "Samples of the flows",
        "One field of each trained flow, on one colour scale.",
        fig_s2.draw_figure,
    ),
    Entry(
        "fig_3",
        "During the training",
        "The first task that measured: error of the free energy of each batch, and observables "
        "by HMC in the latent space and of the field.",
        lambda dataset: fig_3.draw_figure(fig_3.read_course(Path(source(dataset)))),
    ),
    Entry(
        "fig_4",
        "Responses and mutual information",
        "Of the deepest flow nearest to the critical temperature.",
        lambda dataset: fig_4.draw_sweep(Path(source(dataset))),
    ),
    Entry(
        "fig_rg",
        "The flow as a renormalization group",
        "Of the deepest flow nearest to the critical temperature.",
        lambda dataset: fig_rg.draw_sweep(Path(source(dataset))),
    ),
)


class DrawnFigure(NamedTuple):
    """An entry with its image as a data URL, or with the reason why there is none."""

    entry: Entry
    image: str | None
    #: In pixels of the page.
    width: int
    reason: str | None


class Row(NamedTuple):
    """A task of the table; numbers as text, empty where the task is not finished."""

    temperature: str
    depth: int
    seed: int
    is_finished: bool
    cells: list[str]
    verdict: str
    #: What is wrong in words, where the task's file is there to tell.
    problems: list[str]


#: Heading, unit and the text of a finished task's cell.
COLUMNS: tuple[tuple[str, str, Callable[[Callable[[str], float]], str]], ...] = (
    ("gap", "nat", lambda get: with_error(get("gap"), get("gap_error"))),
    (
        "relative error",
        "%",
        lambda get: with_error(100 * get("relative_error"), 100 * get("relative_error_error")),
    ),
    (
        "bridge - exact",
        "nat",
        lambda get: with_error(
            get("bridge_free_energy") - get("free_energy_exact"), get("bridge_free_energy_error")
        ),
    ),
    ("ESS", "of 1", lambda get: f"{get('effective_sample_size'):.3f}"),
    ("energy", "J", lambda get: with_error(get("energy"), get("energy_error"))),
    ("exact energy", "J", lambda get: f"{get('energy_exact'):.5f}"),
    ("⟨m²⟩", "", lambda get: with_error(*pair(get, "magnetization_squared"))),
    ("acceptance", "", lambda get: f"{get('acceptance'):.2f}"),
    ("least ESS", "samples", lambda get: f"{get('ess_least'):.0f}"),
    ("training", "s", lambda get: f"{get('train_seconds'):.0f}"),
    ("task", "s", lambda get: f"{get('wall_seconds'):.0f}"),
)

NEEDED = (
    "gap",
    "gap_error",
    "relative_error",
    "relative_error_error",
    "bridge_free_energy",
    "bridge_free_energy_error",
    "free_energy_exact",
    "effective_sample_size",
    "energy",
    "energy_error",
    "energy_exact",
    "magnetization_squared",
    "magnetization_squared_error",
    "acceptance",
    "ess_least",
    "problems",
    "train_seconds",
    "wall_seconds",
    "finished_unix_seconds",
)


def pair(get: Callable[[str], float], name: str) -> tuple[float, float]:
    """A quantity and its error."""
    return get(name), get(f"{name}_error")


def rows(dataset: xr.Dataset, verdicts: dict[tuple[float, int, int], str]) -> list[Row]:
    """All tasks in the order temperature, depth, seed."""
    require_variables(dataset, NEEDED)
    finished = is_finished(dataset)
    table = []
    for i, temperature in enumerate(dataset["temperature"].values):
        for j, depth in enumerate(dataset["depth"].values):
            for k, seed in enumerate(dataset["seed"].values):
                task = dataset[[*NEEDED]].isel(temperature=i, depth=j, seed=k)
                done = bool(finished.isel(temperature=i, depth=j, seed=k))
                words = verdicts.get((float(temperature), int(depth), int(seed)), "ok")
                table.append(
                    Row(
                        f"{temperature:.6g}",
                        int(depth),
                        int(seed),
                        done,
                        _cells(task) if done else [""] * len(COLUMNS),
                        _verdict(int(task["problems"])) if done else "not finished",
                        [] if words == "ok" else words.split("; "),
                    )
                )
    return table


def _cells(task: xr.Dataset) -> list[str]:
    return [text(lambda name: float(task[name])) for _, _, text in COLUMNS]


def _verdict(problems: int) -> str:
    return f"{problems} problem{'s' if problems > 1 else ''}" if problems else "ok"


class Provenance(NamedTuple):
    """Where the tasks' files say that they were made: each value with its number of tasks."""

    verdicts: dict[tuple[float, int, int], str]
    hosts: dict[str, int]
    devices: dict[str, int]
    versions: dict[str, int]
    absent: int


def read_provenance(path: Path) -> Provenance:
    """What only the task files know, as far as the sweep's links lead to them."""
    provenance = Provenance({}, {}, {}, {}, 0)
    with h5py.File(path) as file:
        for name in file.get("tasks", {}):
            try:
                task = file["tasks"][name].attrs
            except (KeyError, OSError):
                provenance = provenance._replace(absent=provenance.absent + 1)
                continue
            key = (float(task["temperature"]), int(task["depth"]), int(task["seed"]))
            provenance.verdicts[key] = str(task["verdict"])
            threads = int(task["threads"])
            device = f"{task['device']}, {threads} thread{'s' if threads > 1 else ''}"
            for counts, value in (
                (provenance.hosts, str(task["host"])),
                (provenance.devices, device),
                (provenance.versions, str(task["code_version"])),
            ):
                counts[value] = counts.get(value, 0) + 1
    return provenance


def draw_figures(dataset: xr.Dataset) -> list[DrawnFigure]:
    """All figures as PNG, those that cannot be drawn with the reason."""
    drawn = []
    for entry in FIGURES:
        try:
            figure = entry.draw(dataset)
        except SweepError as error:
            drawn.append(DrawnFigure(entry, None, 0, str(error)))
            continue
        width = round(PIXELS_PER_INCH * figure.get_figwidth())
        drawn.append(DrawnFigure(entry, png_url(figure), width, None))
    return drawn


def png_url(figure: Figure) -> str:
    """A figure as a data URL."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=2 * PIXELS_PER_INCH)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def render(dataset: xr.Dataset) -> str:
    """The whole page."""
    path = Path(source(dataset))
    provenance = read_provenance(path)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    table = rows(dataset, provenance.verdicts)
    return environment.get_template(TEMPLATE).render(
        name=dataset.attrs["name"],
        size=int(dataset.attrs["linear_size"]),
        flow=_flow(dataset.attrs["configuration"]),
        table=table,
        columns=COLUMNS,
        done=sum(row.is_finished for row in table),
        sound=sum(row.verdict == "ok" for row in table),
        temperatures=[f"{value:.6g}" for value in dataset["temperature"].values],
        depths=[int(value) for value in dataset["depth"].values],
        seeds=[int(value) for value in dataset["seed"].values],
        pulls=[line for line in str(dataset.attrs["pulls"]).split("; ") if line],
        figures=draw_figures(dataset),
        configuration=dataset.attrs["configuration"],
        version=dataset.attrs["code_version"],
        provenance=provenance,
        path=path.resolve(),
        finished=finished_between(dataset),
    )


def _flow(configuration: str) -> dict[str, object]:
    """The `[flow]` section, whose values the page's head shows."""
    try:
        return tomllib.loads(configuration).get("flow", {})
    except tomllib.TOMLDecodeError as error:
        raise SweepError(f"the sweep's configuration is not TOML: {error}") from error


def finished_between(dataset: xr.Dataset) -> tuple[str, str]:
    """When the first and the last of the finished tasks ended."""
    seconds = dataset["finished_unix_seconds"].where(is_finished(dataset))
    ends = (float(seconds.min()), float(seconds.max()))
    first, last = (datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d %H:%M") for end in ends)
    return first, last


def write_page(page: str, path: Path) -> Path:
    """Write the page beside its place, then rename it.

    Raises:
        SweepError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise SweepError(f"{path}: cannot be written: {reason}") from error
    return path


def main() -> list[Path]:
    """Read, render, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, help="sweep.h5, as `neuralrg collect` writes it")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page to write (default: %(default)s)",
    )
    arguments = parser.parse_args()
    with read_sweep(arguments.sweep) as dataset:
        page = render(dataset)
    return [write_page(page, arguments.output)]


if __name__ == "__main__":
    run_script(main)
