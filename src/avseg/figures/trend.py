"""Fig. 8: training curves, by default the keep ratios, the share of tokens that still query the audio.

``avseg figures trend`` plots them from the ``metrics.csv`` that ``avseg train`` writes.
"""

import csv
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import cycle, islice
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from avseg.errors import ConfigError, DataError, did_you_mean
from avseg.figures.files import check_figure, styled, write_figure
from avseg.figures.page import GAP, WIDTH, clamped, shortened, width_of
from avseg.figures.scenes import short_names
from avseg.metrics import headline

KEEP_RATIOS = "keep_ratio/*"
"""Share of the pixels of O_i that are queries in the next stage."""
SCORES = {f"val/{main.name}": f"val {main.label}" for main in map(headline, (1, 2))}
"""Score → name; the first of these that a run has is plotted below its curves."""
_ABREAST = 3
"""Panels per row."""
_ALONE = 0.65
"""Share of the page width for a single run."""
_TALL, _LOW, _MARGIN = 140.0, 70.0, 40.0
"""Points: height of a panel, height of the score below it, width of the axis labels."""
_HANDLE, _ENTRY = 44.0, 13.0
"""Points: width of a legend entry without its name, and height of a line of the legend."""
_FEW = 30
"""A curve of fewer points is not smoothed; a longer one is, over 1 / 30 of its points to either side."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Palette of Okabe & Ito without yellow, which is hard to see on white."""
_Line = Literal["-", "--", ":", "-."]
_LINES: tuple[_Line, ...] = get_args(_Line)


class Curve(NamedTuple):
    """One scalar of one run.

    Attributes:
        steps: (N,) optimizer steps, increasing.
        values: (N,)
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


class RunCurves(NamedTuple):
    """Curves of one run.

    Attributes:
        name: Short name.
        curves: Scalar → its curve.
    """

    name: str
    curves: dict[str, Curve]

    @property
    def last(self) -> int:
        """Return the last step of any curve."""
        return max(int(curve.steps[-1]) for curve in self.curves.values())


def trend(
    runs: Sequence[Path],
    out: Path,
    *,
    scalars: Sequence[str] = (KEEP_RATIOS,),
    chain: bool = False,
    dpi: int = 200,
) -> Path:
    """Plot the keep ratios, or any other scalars, against the optimizer steps (Fig. 8).

    Args:
        runs: Folders of avseg train; one panel each, with the validation score below.
        out: Image file to write: .png, .pdf, .svg or .jpg.
        scalars: Names in metrics.csv, with or without train/ in front; * matches any characters.
        chain: Plot the runs one after the other in one panel, for runs that continue each other.
        dpi: Dots per inch.

    Raises:
        ConfigError: When no run has such a scalar, or the file cannot be written.
        DataError: When a folder has no readable ``metrics.csv``.
    """
    check_figure(out, dpi)
    labels = short_names([str(run) for run in runs])
    read = [RunCurves(label, read_curves(run)) for label, run in zip(labels, runs, strict=True)]
    names = _chosen(read, scalars)
    with styled():
        figure = _draw([_chained(read)] if chain else [[run] for run in read], names)
    return write_figure(figure, out, dpi)


def read_curves(run: Path) -> dict[str, Curve]:
    """Read all scalars of a run, without values that are not finite.

    Args:
        run: Folder of avseg train.

    Raises:
        DataError: When it has no readable ``metrics.csv``.
    """
    path = run / "metrics.csv"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise DataError(f"cannot read {path}: give a folder written by avseg train") from error
    points: dict[str, list[tuple[int, float]]] = {}
    # The file of a running or killed run may end in half a line.
    _, *rows = csv.reader(text[: text.rfind("\n") + 1].splitlines() or [""])
    number = 1
    try:
        for number, row in enumerate(rows, 2):  # noqa: B007 - for the error
            step, name, value = row
            points.setdefault(name, []).append((int(step), float(value)))
    except ValueError:
        raise DataError(f"line {number} of {path} is not step,name,value: repair or remove it") from None
    curves = {name: _curve(pairs) for name, pairs in points.items()}
    if not any(len(curve.steps) for curve in curves.values()):
        raise DataError(f"{path} holds no finite number yet: wait until the run has logged one, or name another run")
    return {name: curve for name, curve in curves.items() if len(curve.steps)}


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over a centred window around each point, truncated at the ends."""
    half = len(values) // _FEW
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, behind = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    means: NDArray[np.float64] = (sums[behind] - sums[first]) / (behind - first)
    return means


def _curve(pairs: Sequence[tuple[int, float]]) -> Curve:
    finite = sorted(pair for pair in pairs if math.isfinite(pair[1]))
    return Curve(np.array([s for s, _ in finite], dtype=np.int64), np.array([v for _, v in finite]))


def _chosen(runs: Sequence[RunCurves], patterns: Sequence[str]) -> list[str]:
    """Return the names of the scalars that match, in the order of the file."""
    known = list(dict.fromkeys(name for run in runs for name in run.curves))
    found = []
    for pattern in patterns:
        fitting = [name for name in known if fnmatchcase(name, pattern) or fnmatchcase(_bare(name), pattern)]
        if not fitting:
            raise ConfigError(f"no run has a scalar {pattern!r}. {did_you_mean(pattern, map(_bare, known))}")
        found += fitting
    return list(dict.fromkeys(found))


def _bare(name: str) -> str:
    return name.removeprefix("train/")


def _chained(runs: Sequence[RunCurves]) -> list[RunCurves]:
    """Return the runs with steps counted from the start of the first."""
    start, moved = 0, []
    for run in runs:
        moved.append(RunCurves(run.name, {n: Curve(start + c.steps, c.values) for n, c in run.curves.items()}))
        start = moved[-1].last
    return moved


def _draw(panels: Sequence[Sequence[RunCurves]], names: Sequence[str]) -> Figure:
    """Plot the panels side by side, in bands, with one legend at the top."""
    columns = min(len(panels), _ABREAST)
    bands = math.ceil(len(panels) / columns)
    wide = WIDTH * (_ALONE if len(panels) == len(panels[0]) == 1 else 1.0)
    scores = [_score(runs, names) for runs in panels]
    heights = [_TALL, _LOW] if any(scores) else [_TALL]
    abreast = int(clamped(wide // (_HANDLE + max(width_of(_label(name)) for name in names)), 1, len(names)))
    lines = math.ceil(len(names) / abreast)
    tall = bands * sum(heights) + lines * _ENTRY
    figure = Figure(figsize=(wide / 72, tall / 72), layout="constrained")
    grid = figure.add_gridspec(bands * len(heights), columns, height_ratios=heights * bands)
    first: Axes | None = None
    for n, (runs, score) in enumerate(zip(panels, scores, strict=True)):
        row, column = n // columns * len(heights), n % columns
        first = axes = figure.add_subplot(grid[row, column], sharey=first)
        _draw_curves(axes, runs, names)
        _name_runs(axes, runs, wide / columns - _MARGIN)
        if score:
            axes.tick_params(labelbottom=False)
            axes = figure.add_subplot(grid[row + 1, column], sharex=axes)
            _draw_curves(axes, runs, [score])
        axes.set_xlabel("optimizer steps")
    if first is not None and _are_shares(names):
        first.yaxis.set_major_formatter(PercentFormatter(1.0))
        first.set_ylim(bottom=0.0)
    if len(names) > 1:
        handles = [Line2D([], [], linestyle=line, color=colour) for colour, line in line_styles(len(names))]
        even = math.ceil(len(names) / lines)
        figure.legend(handles, map(_label, names), loc="outside upper center", ncols=even, frameon=False)
    return figure


def _score(runs: Sequence[RunCurves], names: Sequence[str]) -> str | None:
    """Return the score to plot below a panel; None if a score is among the plotted scalars."""
    chosen = not set(names).isdisjoint(SCORES)
    return None if chosen else next((s for s in SCORES if any(s in run.curves for run in runs)), None)


def _draw_curves(axes: Axes, runs: Sequence[RunCurves], names: Sequence[str]) -> None:
    """Plot each scalar with its own colour and line style."""
    for name, (colour, line) in zip(names, line_styles(len(names)), strict=True):
        for run in runs:
            if name in run.curves:
                _draw_curve(axes, run.curves[name], colour, line)
    if not any(name in run.curves for run in runs for name in names):
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="0.4")
    for run in runs[:-1]:
        axes.axvline(run.last, color="0.4", linewidth=0.6)
    axes.set_ylabel(_axis(names))
    axes.margins(y=0.1)
    axes.grid(alpha=0.3, linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_curve(axes: Axes, curve: Curve, colour: str, line: _Line) -> None:
    """Plot all points, faint, and the smoothed curve; a curve of few points is not smoothed."""
    if len(curve.steps) < _FEW:
        # The last marker lies on the edge and would be clipped.
        axes.plot(curve.steps, curve.values, line, color=colour, marker="o", markersize=3, clip_on=False)
    else:
        axes.plot(curve.steps, curve.values, color=colour, alpha=0.25, linewidth=0.6)
        axes.plot(curve.steps, smoothed(curve.values), line, color=colour)


def line_styles(count: int) -> list[tuple[str, _Line]]:
    """Return distinct combinations of colour and line style: all colours first, then other line styles."""
    return list(islice(cycle((colour, line) for line in _LINES for colour in _COLOURS), count))


def _name_runs(axes: Axes, runs: Sequence[RunCurves], width: float) -> None:
    """Write the name of each run above its steps."""
    ends = [run.last for run in runs]
    starts = [0, *ends[:-1]]
    axes.set_xlim(0, max(ends[-1], 1))
    above = axes.secondary_xaxis("top")
    above.spines["top"].set_visible(False)
    middles = [(start + end) / 2 for start, end in zip(starts, ends, strict=True)]
    room = [width * (end - start) / max(ends[-1], 1) for start, end in zip(starts, ends, strict=True)]
    above.set_xticks(middles, [shortened(run.name, r - GAP) for run, r in zip(runs, room, strict=True)])
    above.tick_params(length=0)


def _are_shares(names: Sequence[str]) -> bool:
    return all(fnmatchcase(_bare(name), KEEP_RATIOS) for name in names)


def _axis(names: Sequence[str]) -> str:
    """Return the label of the value axis."""
    if _are_shares(names):
        return "keep ratio of tokens"
    if len(names) == 1:
        return SCORES.get(names[0], _bare(names[0]))
    return " and ".join(dict.fromkeys(_bare(name).rpartition("/")[0] for name in names))


def _label(name: str) -> str:
    return f"after stage {name.rpartition('/')[2]}" if _are_shares([name]) else _bare(name)
