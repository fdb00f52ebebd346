#!/usr/bin/env python3
"""One self-contained HTML page of a sweep: tasks, figures, verdicts, configuration, provenance.

Of a sweep with several lattices it shows all that have finished tasks, or one by --linear-size.

Figures whose data the sweep lacks are listed with what would make them. Verdicts, hosts and
devices are in the task files, which `sweep.h5` links to; without them the page says so.
"""

import argparse
import base64
import io
import tomllib
from collections.abc import Callable, Collection, Mapping
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
from figure import STYLE, run_script, sweep_arguments, with_error
from sweep import (
    SweepError,
    finished_only,
    is_finished,
    linked_names,
    read_sizes,
    require_variables,
    source,
)

TEMPLATE = "report.html.j2"

#: Pixels that an inch of a figure takes on the page, so that all have letters of one size; the
#: images have twice as many for fine screens.
PIXELS_PER_INCH = 112


class Entry(NamedTuple):
    """A figure of the page, drawn for each lattice."""

    name: str
    title: str
    caption: str
    #: Draws it from one lattice of the sweep, or raises SweepError that tells what is missing.
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
        lambda dataset: fig_3.draw_figure(
            fig_3.read_course(Path(source(dataset)), linear_size=linear_size(dataset))
        ),
    ),
    Entry(
        "fig_4",
        "Responses and mutual information",
        "Of the deepest flow nearest to the critical temperature.",
        lambda dataset: fig_4.draw_sweep(Path(source(dataset)), linear_size=linear_size(dataset)),
    ),
    Entry(
        "fig_rg",
        "The flow as a renormalization group",
        "Of the deepest flow nearest to the critical temperature.",
        lambda dataset: fig_rg.draw_sweep(Path(source(dataset)), linear_size=linear_size(dataset)),
    ),
)


class DrawnFigure(NamedTuple):
    """An entry with its image as a data URL, or with the reason why there is none."""

    entry: Entry
    linear_size: int
    image: str | None
    #: In pixels of the page.
    width: int
    reason: str | None


#: What tells tasks apart: linear size, temperature, depth, seed.
Key = tuple[int, float, int, int]


class Row(NamedTuple):
    """A task of the table; numbers as text, empty where the task is not finished."""

    linear_size: int
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


def linear_size(dataset: xr.Dataset) -> int:
    """Of the lattice that a dataset is about."""
    return int(dataset.attrs["linear_size"])


def pair(get: Callable[[str], float], name: str) -> tuple[float, float]:
    """A quantity and its error."""
    return get(name), get(f"{name}_error")


def rows(dataset: xr.Dataset, verdicts: Mapping[Key, str]) -> list[Row]:
    """All tasks of a lattice in the order temperature, depth, seed."""
    require_variables(dataset, NEEDED)
    size = linear_size(dataset)
    finished = is_finished(dataset)
    table = []
    for i, temperature in enumerate(dataset["temperature"].values):
        for j, depth in enumerate(dataset["depth"].values):
            for k, seed in enumerate(dataset["seed"].values):
                task = dataset[[*NEEDED]].isel(temperature=i, depth=j, seed=k)
                done = bool(finished.isel(temperature=i, depth=j, seed=k))
                words = verdicts.get((size, float(temperature), int(depth), int(seed)), "ok")
                table.append(
                    Row(
                        size,
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

    verdicts: dict[Key, str]
    hosts: dict[str, int]
    devices: dict[str, int]
    versions: dict[str, int]
    absent: int


def read_provenance(path: Path, sizes: Collection[int]) -> Provenance:
    """What only the task files of these lattices know, as far as the sweep's links lead to them."""
    provenance = Provenance({}, {}, {}, {}, 0)
    with h5py.File(path) as file:
        for name in linked_names(file.get("tasks", {}), sizes):
            try:
                task = file["tasks"][name].attrs
            except (KeyError, OSError):
                provenance = provenance._replace(absent=provenance.absent + 1)
                continue
            place = (float(task["temperature"]), int(task["depth"]), int(task["seed"]))
            key = (int(task["linear_size"]), *place)
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


def draw_entry(entry: Entry, dataset: xr.Dataset) -> DrawnFigure:
    """A figure of one lattice as PNG, or the reason why it cannot be drawn."""
    size = linear_size(dataset)
    try:
        figure = entry.draw(dataset)
    except SweepError as error:
        return DrawnFigure(entry, size, None, 0, str(error))
    width = round(PIXELS_PER_INCH * figure.get_figwidth())
    return DrawnFigure(entry, size, png_url(figure), width, None)


def png_url(figure: Figure) -> str:
    """A figure as a data URL."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=2 * PIXELS_PER_INCH)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def render(lattices: Mapping[int, xr.Dataset]) -> str:
    """The whole page, of the datasets of all linear sizes that it shows."""
    datasets = list(lattices.values())
    path = Path(source(datasets[0]))
    attributes = datasets[0].attrs
    provenance = read_provenance(path, lattices)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    table = [row for dataset in datasets for row in rows(dataset, provenance.verdicts)]
    return environment.get_template(TEMPLATE).render(
        name=attributes["name"],
        sizes=list(lattices),
        flow=_flow(attributes["configuration"]),
        table=table,
        columns=COLUMNS,
        done=sum(row.is_finished for row in table),
        sound=sum(row.verdict == "ok" for row in table),
        temperatures=[f"{value:.6g}" for value in _values(datasets, "temperature")],
        depths=_values(datasets, "depth"),
        seeds=_values(datasets, "seed"),
        pulls=[line for line in str(attributes["pulls"]).split("; ") if line],
        figures=[draw_entry(entry, dataset) for entry in FIGURES for dataset in datasets],
        configuration=attributes["configuration"],
        version=attributes["code_version"],
        provenance=provenance,
        path=path.resolve(),
        finished=finished_between(datasets),
    )


def _values(datasets: Collection[xr.Dataset], coordinate: str) -> list[float]:
    """Those that a coordinate takes on any lattice, in ascending order."""
    return sorted({value for dataset in datasets for value in dataset[coordinate].values.tolist()})


def _flow(configuration: str) -> dict[str, object]:
    """The `[flow]` section, whose values the page's head shows."""
    try:
        return tomllib.loads(configuration).get("flow", {})
    except tomllib.TOMLDecodeError as error:
        raise SweepError(f"the sweep's configuration is not TOML: {error}") from error


def finished_between(datasets: Collection[xr.Dataset]) -> tuple[str, str]:
    """When the first and the last of the finished tasks ended."""
    seconds = [finished_only(dataset, "finished_unix_seconds") for dataset in datasets]
    ends = (min(float(each.min()) for each in seconds), max(float(each.max()) for each in seconds))
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
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[sweep_arguments()],
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page to write (default: %(default)s)",
    )
    arguments = parser.parse_args()
    page = render(read_sizes(arguments.sweep, arguments.linear_size))
    return [write_page(page, arguments.output)]


if __name__ == "__main__":
    run_script(main)
