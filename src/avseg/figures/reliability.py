"""Reliability diagrams: accuracy against confidence, for several models and groups of frames.

``benchmarks/ambiguity.py`` plots them from the counts of :mod:`avseg.metrics.calibration`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from avseg.errors import ConfigError
from avseg.figures.files import check_figure, styled, write_figure
from avseg.figures.page import LETTER, LINE, SPACE, WIDTH, shortened
from avseg.figures.trend import line_styles
from avseg.metrics.calibration import BinnedCalibration

_ABREAST = 4
"""Diagrams per row."""
_WIDEST = 168.0
"""Largest width of a diagram in points."""
_LEFT = 44.0
"""Points for the labels of an axis."""
_LOW, _FOOT = 30.0, 40.0
"""Points: height of a histogram, and of its axis labels."""
_RAREST = 1e-5
"""Lower end of a histogram: one pixel in a hundred thousand."""


def reliability(
    diagrams: Mapping[str, Mapping[str, BinnedCalibration]],
    out: Path,
    *,
    number: str = "probability",
    share: str = "share of sounding pixels",
    dpi: int = 150,
) -> Path:
    """Plot reliability diagrams: one column per label, one row per group, all on one scale.

    A bar is the observed share in a bin, a dot is at the bin's mean prediction: on the diagonal, both agree. A
    histogram below shows the share of pixels in each bin on a logarithmic scale. The heading has the expected
    calibration error.

    Args:
        diagrams: Label, such as a model → group, such as a subset of frames → counts. All labels have the same groups.
            A diagram without counts is empty.
        out: Image file to write: .png, .pdf, .svg or .jpg.
        number: Name of the predicted quantity.
        share: Name of the observed share.
        dpi: Dots per inch.

    Raises:
        ConfigError: When there are no diagrams, labels differ in their groups, or the file cannot be written.
    """
    check_figure(out, dpi)
    groups = list(next(iter(diagrams.values()), ()))
    if not groups or any(list(row) != groups for row in diagrams.values()):
        found = {label: [*row] for label, row in diagrams.items()}
        raise ConfigError(f"reliability diagrams need labels with the same groups each, got {found}")
    with styled():
        figure = _draw(diagrams, groups, number, share)
    return write_figure(figure, out, dpi)


def _draw(
    diagrams: Mapping[str, Mapping[str, BinnedCalibration]], groups: Sequence[str], number: str, share: str
) -> Figure:
    """Plot labels as columns, in bands, groups as rows of a band, and one legend at the top."""
    columns = min(len(diagrams), _ABREAST)
    side = min(_WIDEST, (WIDTH - _LEFT) / columns)
    rows, heights = math.ceil(len(diagrams) / columns) * len(groups), [side + 2 * LINE, _LOW + _FOOT]
    size = (_LEFT + columns * side) / 72, (rows * sum(heights) + LINE + SPACE) / 72
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=heights * rows)
    colours = [colour for colour, _ in line_styles(len(groups))]
    for k, (label, of_label) in enumerate(diagrams.items()):
        for g, (group, colour) in enumerate(zip(groups, colours, strict=True)):
            row, column = 2 * (k // columns * len(groups) + g), k % columns
            above, below = (figure.add_subplot(grid[row + i, column]) for i in (0, 1))
            _draw_bins(above, of_label[group], colour)
            _draw_counts(below, of_label[group], colour)
            title = f"{shortened(label, side - SPACE)}\n{_error(of_label[group])}"
            above.set_title(title, fontsize=LETTER, parse_math=False)
            below.set_xlabel(number)
            above.set_ylabel(share if column == 0 else "")
            below.set_ylabel("pixels" if column == 0 else "")
            for axes in (above, below):
                axes.tick_params(labelleft=column == 0)
    handles = [Patch(color=colour) for colour in colours]
    figure.legend(handles, groups, loc="outside upper center", ncols=len(groups), frameon=False)
    return figure


def _error(counted: BinnedCalibration) -> str:
    return "nothing counted" if math.isnan(counted.ece) else f"ECE {100 * counted.ece:.1f} %"


def _draw_bins(axes: Axes, counted: BinnedCalibration, colour: str) -> None:
    axes.plot((0, 1), (0, 1), "--", color="0.4", linewidth=0.6)
    _draw_bars(axes, counted, counted.share, colour, 0.3)
    axes.plot(counted.mean.numpy(), counted.share.numpy(), "o", color=colour, markersize=3, clip_on=False)
    axes.set_ylim(0, 1)
    axes.tick_params(labelbottom=False)
    axes.yaxis.set_ticks([0, 0.5, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_counts(axes: Axes, counted: BinnedCalibration, colour: str) -> None:
    axes.set(yscale="log", ylim=(_RAREST, 1))
    axes.set_yticks([1e-4, 1e-2, 1], ["0.01%", "1%", "100%"])
    axes.set_yticks([], minor=True)
    _draw_bars(axes, counted, counted.counts / counted.counts.sum(), colour, 1.0)


def _draw_bars(axes: Axes, counted: BinnedCalibration, heights: Tensor, colour: str, alpha: float) -> None:
    """Plot one bar for each bin that is not empty."""
    width = 1 / len(heights)
    (filled,) = counted.counts.nonzero(as_tuple=True)
    axes.bar(
        ((filled + 0.5) * width).numpy(), heights[filled].numpy(), width, color=colour, alpha=alpha, edgecolor="white"
    )
    axes.set_xlim(0, 1)
    axes.xaxis.set_ticks([0, 0.5, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3, linewidth=0.4)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
