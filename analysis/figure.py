"""What all figure scripts share: arguments, style, saving, and how errors end a script."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sweep import CRITICAL_TEMPERATURE, Curve, SweepError

FORMATS = ("png", "pdf")

#: Okabe and Ito's colours, told apart with every common kind of colour vision (yellow and
#: black left out: one is faint on white, the other is for reference lines).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

STYLE = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "errorbar.capsize": 2.0,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "legend.frameon": False,
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,  # text stays text in the PDF
    "savefig.dpi": 300,
}


class Look(NamedTuple):
    """How the points of one depth are drawn, the same in every figure."""

    color: str
    marker: str


def depth_look(depth: int) -> Look:
    """Colour and marker of a depth. Both cycle, with different periods."""
    index = depth - 1
    return Look(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)])


def depth_label(depth: int, curve: Curve) -> str:
    """The legend's words for the curve of a depth."""
    return f"depth {depth}" + ("" if np.isfinite(curve.value).any() else " (none finished)")


def draw_doubtful(
    axes: Axes,
    look: Look,
    abscissa: np.ndarray,
    value: np.ndarray,
    size: float = STYLE["lines.markersize"],
) -> None:
    """Points whose task's verdict is not ok, hollow, over the markers of their curve."""
    axes.plot(
        abscissa,
        value,
        color=look.color,
        marker=look.marker,
        markersize=size,
        markerfacecolor="white",
        linestyle="none",
        label="_doubtful",
        zorder=3.5,
    )


def draw_legend(figure: Figure, axes: Axes, *others: tuple[Line2D, str]) -> Legend:
    """Legend beside the axes, where it cannot hide data: depths, references, then others."""
    handles, labels = axes.get_legend_handles_labels()
    # Matplotlib lists plain lines, here the references, before curves with error bars.
    order = sorted(range(len(labels)), key=lambda index: not labels[index].startswith("depth"))
    handles = [handles[index] for index in order] + [handle for handle, _ in others]
    labels = [labels[index] for index in order] + [label for _, label in others]
    return figure.legend(handles, labels, loc="outside right upper")


def doubtful_entry() -> tuple[Line2D, str]:
    """What the legend says of hollow markers."""
    handle = Line2D([], [], color="black", marker="o", markerfacecolor="white", linestyle="none")
    return handle, "hollow: verdict not ok"


def figure_arguments(default_stem: str) -> argparse.ArgumentParser:
    """Parent parser with the arguments of every figure script."""
    return argparse.ArgumentParser(
        add_help=False, parents=[sweep_arguments(), output_arguments(default_stem)]
    )


def sweep_arguments() -> argparse.ArgumentParser:
    """Parent parser with the arguments of every script that reads a sweep."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("sweep", type=Path, help="sweep.h5, as `neuralrg collect` writes it")
    parser.add_argument(
        "--linear-size", type=int, metavar="N", help="which lattice, where the sweep has several"
    )
    return parser


def output_arguments(default_stem: str) -> argparse.ArgumentParser:
    """Parent parser with the arguments that say where a figure goes."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(default_stem),
        metavar="STEM",
        help="path of the figure without its extension (default: %(default)s)",
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=FORMATS,
        default=list(FORMATS),
        metavar="FORMAT",
        help=f"files to write, any of {', '.join(FORMATS)} (default: all)",
    )
    return parser


def set_temperature_axis(axes: Axes, temperature: np.ndarray) -> None:
    """A temperature axis that spans the given values."""
    margin = 0.05 * np.ptp(temperature) or 0.1
    axes.set_xlim(temperature.min() - margin, temperature.max() + margin)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.set_xlabel(r"temperature $T$ ($J/k_\mathrm{B}$)")


def mark_critical_temperature(axes: Axes) -> None:
    """A vertical line at T_c, where the axis reaches it."""
    low, high = axes.get_xlim()
    if low <= CRITICAL_TEMPERATURE <= high:
        axes.axvline(
            CRITICAL_TEMPERATURE,
            color="0.5",
            linewidth=0.8,
            linestyle="-.",
            label=r"critical temperature $T_\mathrm{c}$",
            zorder=1,
        )


def save_figure(figure: Figure, stem: Path, formats: list[str]) -> list[Path]:
    """Write STEM.png and STEM.pdf, each beside its place and then renamed into it.

    A stem that already ends in .png or .pdf is taken without that ending; any other dot, as in
    `figure_T2.7`, belongs to the name.

    Raises:
        SweepError: a file cannot be written.
    """
    if stem.suffix.lstrip(".") in FORMATS:
        stem = stem.with_suffix("")
    written = []
    for form in dict.fromkeys(formats):
        path = stem.with_name(f"{stem.name}.{form}")
        # Without a date the same sweep gives the same bytes.
        metadata = {"CreationDate": None} if form == "pdf" else None
        try:
            with written_whole(path) as partial, mpl.rc_context(STYLE):
                figure.savefig(partial, format=form, metadata=metadata)
        except OSError as error:
            reason = error.strerror or error
            raise SweepError(f"{path}: cannot be written: {reason}") from error
        written.append(path)
    return written


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place beside a file, which it takes once all is written; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def with_error(value: float, error: float, digits: int = 2) -> str:
    """`value ± error` with so many digits of the error."""
    if not (np.isfinite(value) and np.isfinite(error) and error > 0.0):
        return f"{value:.5g}"
    decimals = max(0, digits - 1 - int(np.floor(np.log10(error))))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def run_script(main: Callable[[], Iterable[object]]) -> None:
    """Run a script and print what it returns, such as the files that it wrote, line by line.

    A user's error is one line on stderr and exit status 1.
    """
    try:
        for line in main():
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads, such as `head`, has enough; Python's last flush must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (SweepError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(1)


def warn(message: str) -> None:
    """One line on stderr about something the figure cannot show as it is."""
    print(f"{Path(sys.argv[0]).name}: warning: {message}", file=sys.stderr)
