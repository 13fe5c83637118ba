"""Learning curves of a comparison: validation score against optimizer steps, mean and range over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from avseg.config import Run
from avseg.data import build_dataset
from avseg.figures.files import styled, write_figure
from avseg.figures.trend import line_styles, read_curves
from avseg.metrics import headline

_DPI = 150
_FAINT = 0.3
"""Total opacity of all ranges; each is fainter for more models."""


def draw_curves(runs: Mapping[str, Sequence[Run]], path: Path) -> None:
    """Write the plot.

    Args:
        runs: Label of a model → its completed runs.
        path: PNG to write.
    """
    data = next(iter(runs.values()))[0].data
    main = headline(build_dataset(split="val", **data).classes)
    with styled():
        figure = Figure(figsize=(7.5, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for (label, of_model), (colour, line) in zip(runs.items(), line_styles(len(runs)), strict=True):
            steps, values = _seeds(of_model, f"val/{main.name}")
            axes.plot(steps, values.mean(0), line, color=colour, marker="o", markersize=3, label=label)
            band = axes.fill_between(steps, values.min(0), values.max(0), color=colour, linewidth=0)
            band.set_alpha(_FAINT / len(runs) ** 0.5)
        axes.set(xlabel="optimizer steps", ylabel=f"{main.label} on the validation split, percent")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        seeds = len(next(iter(runs.values())))
        title = f"mean and range of {seeds} seeds" if seeds > 1 else "one seed"
        figure.legend(frameon=False, title=title, loc="outside right upper", alignment="left")
    write_figure(figure, path, _DPI)


def _seeds(runs: Sequence[Run], score: str) -> tuple[list[int], NDArray[np.float64]]:
    """Return the steps at which every seed was validated, and (seeds, steps) scores in percent."""
    curves = [read_curves(Path(str(run.train.out))).get(score) for run in runs]
    points = [{} if c is None else dict(zip(c.steps.tolist(), c.values.tolist(), strict=True)) for c in curves]
    steps = sorted(set.intersection(*({*of_run} for of_run in points)))
    return steps, 100 * np.array([[of_run[step] for step in steps] for of_run in points])
