"""Learning curves of a comparison: validation score against optimizer steps, mean and range over seeds."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from avseg.config import Run
from avseg.data import build_dataset


def read_curve(folder: Path, name: str) -> dict[int, float]:
    """Step → value of one curve of a run's ``metrics.csv``."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return {int(row["step"]): float(row["value"]) for row in csv.DictReader(file) if row["name"] == name}


def draw_curves(runs: Mapping[str, Sequence[Run]], path: Path) -> None:
    """Write the picture, in one step.

    Args:
        runs: Label of a model → its runs, which are done.
        path: PNG to write.
    """
    data = next(iter(runs.values()))[0].data
    one = build_dataset(split="val", **data).classes == 1
    score, heading = ("val/avsbench/j", "J") if one else ("val/avsbench_semantic/miou", "mIoU")
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for k, (label, of_model) in enumerate(runs.items()):
        curves = [read_curve(Path(str(run.train.out)), score) for run in of_model]
        steps = sorted(set.intersection(*[{*curve} for curve in curves]))
        values = 100 * np.array([[curve[step] for step in steps] for curve in curves])
        axes.plot(steps, values.mean(0), color=f"C{k}", marker="o", markersize=3, label=label)
        axes.fill_between(steps, values.min(0), values.max(0), color=f"C{k}", alpha=0.15, linewidth=0)
    axes.set(xlabel="optimizer steps", ylabel=f"{heading} on the validation split, percent")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title=f"mean and range of {len(next(iter(runs.values())))} seeds")
    beside = path.with_name(f".{path.stem}.part.png")
    figure.savefig(beside, dpi=150)
    os.replace(beside, path)
