"""Fig. 8: how a number changes while a model trains, by default the share of tokens that still ask.

``avseg figures trend`` draws it from the ``metrics.csv`` that ``avseg train`` writes.
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

KEEP_RATIOS = "keep_ratio/*"
"""Share of the pixels of O_i that ask in the next stage."""
SCORES = {"val/avsbench/j": "val J", "val/avsbench_semantic/miou": "val mIoU"}
"""The first of these that a run has stands below its curves, under this name."""
_ABREAST = 3
"""Panels beside each other."""
_ALONE = 0.65
"""Share of the page that one run alone takes."""
_TALL, _LOW, _MARGIN = 140.0, 70.0, 40.0
"""Points: a panel, the score below it, what stands beside the curves of a panel."""
_HANDLE, _ENTRY = 44.0, 13.0
"""Points: what a legend needs beside a name, and from one line of it to the next."""
_FEW = 30
"""A curve of fewer points is drawn as it is; a longer one is smoothed, over this share of its points to either side."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe & Ito's, but for yellow, which a white page swallows."""
_Line = Literal["-", "--", ":", "-."]
_LINES: tuple[_Line, ...] = get_args(_Line)


class Curve(NamedTuple):
    """One scalar of one run.

    Attributes:
        steps: (N,) optimizer steps, rising.
        values: (N,)
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


class Run(NamedTuple):
    """What a run has written.

    Attributes:
        name: Short.
        curves: Scalar → its curve.
    """

    name: str
    curves: dict[str, Curve]

    @property
    def last(self) -> int:
        """The last step of any curve."""
        return max(int(curve.steps[-1]) for curve in self.curves.values())


def trend(
    runs: Sequence[Path],
    out: Path,
    *,
    scalars: Sequence[str] = (KEEP_RATIOS,),
    chain: bool = False,
    dpi: int = 200,
) -> Path:
    """Draw how many tokens still ask, or any other scalars, over the steps of training (Fig. 8).

    Args:
        runs: Folders of avseg train; each gets a panel of its own, with the score in validation below it.
        out: Picture to write: .png, .pdf, .svg or .jpg.
        scalars: Names in metrics.csv, with or without train/ in front; * stands for anything.
        chain: The runs continue each other: draw them one after the other in one panel.
        dpi: Dots per inch.

    Raises:
        ConfigError: When no run has such a scalar, or the picture cannot be written.
        DataError: When a folder has no readable ``metrics.csv``.
    """
    check_figure(out, dpi)
    read = [Run(name, read_curves(run)) for name, run in zip(short_names([str(r) for r in runs]), runs, strict=True)]
    names = _chosen(read, scalars)
    with styled():
        figure = _draw([_one_after_the_other(read)] if chain else [[run] for run in read], names)
    return write_figure(figure, out, dpi)


def read_curves(run: Path) -> dict[str, Curve]:
    """All scalars of a run, without the values that are no numbers.

    Args:
        run: Folder of avseg train.

    Raises:
        DataError: When it has no readable ``metrics.csv``.
    """
    path = run / "metrics.csv"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise DataError(f"cannot read {path}: give a folder that avseg train has written") from error
    points: dict[str, list[tuple[int, float]]] = {}
    # A run that is writing, or was killed, may end in half a line.
    _, *rows = csv.reader(text[: text.rfind("\n") + 1].splitlines() or [""])
    try:
        for step, name, value in rows:
            points.setdefault(name, []).append((int(step), float(value)))
    except ValueError as error:
        raise DataError(f"{path} has lines that are not step, name and value ({error}): restore it") from None
    curves = {name: _curve(pairs) for name, pairs in points.items()}
    if not any(len(curve.steps) for curve in curves.values()):
        raise DataError(f"{path} holds no numbers yet: let the run train first")
    return {name: curve for name, curve in curves.items() if len(curve.steps)}


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over a window around each point, cut off at the ends; nothing is delayed."""
    half = len(values) // _FEW
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, behind = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    means: NDArray[np.float64] = (sums[behind] - sums[first]) / (behind - first)
    return means


def _curve(pairs: Sequence[tuple[int, float]]) -> Curve:
    finite = sorted(pair for pair in pairs if math.isfinite(pair[1]))
    return Curve(np.array([s for s, _ in finite], dtype=np.int64), np.array([v for _, v in finite]))


def _chosen(runs: Sequence[Run], patterns: Sequence[str]) -> list[str]:
    """Names of the scalars that fit, in the order in which they were written."""
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


def _one_after_the_other(runs: Sequence[Run]) -> list[Run]:
    """The runs with their steps counted from the start of the first."""
    start, moved = 0, []
    for run in runs:
        moved.append(Run(run.name, {n: Curve(start + c.steps, c.values) for n, c in run.curves.items()}))
        start = moved[-1].last
    return moved


def _draw(panels: Sequence[Sequence[Run]], names: Sequence[str]) -> Figure:
    """Panels beside each other and in bands, one legend above all."""
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


def _score(runs: Sequence[Run], names: Sequence[str]) -> str | None:
    """The score to draw below a panel, unless scores are asked for themselves."""
    asked = not set(names).isdisjoint(SCORES)
    return None if asked else next((s for s in SCORES if any(s in run.curves for run in runs)), None)


def _draw_curves(axes: Axes, runs: Sequence[Run], names: Sequence[str]) -> None:
    """Each scalar in its own way."""
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
    """All points, faint, and their trend; few points are the trend themselves."""
    if len(curve.steps) < _FEW:
        # The last one lies on the edge and would be cut in half.
        axes.plot(curve.steps, curve.values, line, color=colour, marker="o", markersize=3, clip_on=False)
    else:
        axes.plot(curve.steps, curve.values, color=colour, alpha=0.25, linewidth=0.6)
        axes.plot(curve.steps, smoothed(curve.values), line, color=colour)


def line_styles(count: int) -> list[tuple[str, _Line]]:
    """Colours and lines that tell so many curves apart: when the colours are used up, other lines."""
    return list(islice(cycle((colour, line) for line in _LINES for colour in _COLOURS), count))


def _name_runs(axes: Axes, runs: Sequence[Run], width: float) -> None:
    """The name of each run above its steps."""
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
    """What the values of these scalars are."""
    if _are_shares(names):
        return "tokens that still ask"
    if len(names) == 1:
        return SCORES.get(names[0], _bare(names[0]))
    return " and ".join(dict.fromkeys(_bare(name).rpartition("/")[0] for name in names))


def _label(name: str) -> str:
    return f"after stage {name.rpartition('/')[2]}" if _are_shares([name]) else _bare(name)
