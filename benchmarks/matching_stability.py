"""Measure the stability of matching in training: ``python benchmarks/matching_stability.py RUNS OUT LABEL …``.

RUNS is the folder of an ``avseg bench`` with ``train.keep_every`` in its recipe, each LABEL a model of it that matches
queries with objects. Every kept set of weights is run on the same validation clips, and Hungarian matching assigns a
query to each object (a class in a frame, without the background). Among the queries that are matched with one of two
successive sets of weights: the share that is matched with another object, or none, with the other set. OUT.json has the
numbers, OUT.png the curve.
"""

import itertools
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

import avseg
from _common import arguments, mistakes_in_a_line, seeds
from avseg.data import AVSDataset, build_dataset, collate
from avseg.errors import ConfigError
from avseg.figures.files import styled, write_figure
from avseg.figures.trend import line_styles
from avseg.models.cpm import CPM
from avseg.nn.matching import match
from avseg.provenance import provenance, write_result

Owners = list[dict[int, int]]
"""Frame → query → the class of its object."""


@torch.inference_mode()
def owners(model: CPM, data: AVSDataset) -> Owners:
    """Return the object matched with each query, for every frame of a data set."""
    found: Owners = []
    for index in range(len(data)):
        sample = collate([data[index]])
        state = model(sample.clip).state
        labels = sample.target.masks.flatten(0, 1)
        matches = match(state.classes[-1], state.outputs.masks[-1], labels, model.config.set_loss, random=False)
        frames: Owners = [{} for _ in labels]
        for frame, query, kind in zip(*(m.tolist() for m in matches), strict=True):
            if kind > 0:
                frames[frame][query] = kind
        found += frames
    return found


def changed(before: Owners, after: Owners) -> float:
    """Return the share of queries with another object, among those with an object before or after."""
    pairs = [(b.get(q), a.get(q)) for b, a in zip(before, after, strict=True) for q in {*b, *a}]
    return sum(b != a for b, a in pairs) / len(pairs)


def curve(run: Path) -> dict[int, float]:
    """Return optimizer step → share of changes since the previous set of weights."""
    steps = sorted(int(p.name.removeprefix("step")) for p in run.glob("step*"))
    if len(steps) < 2:
        raise ConfigError(f"{run} has fewer than two sets of weights: train it with train.keep_every")
    models = (avseg.load(run / f"step{step}") for step in track(steps, str(run)))
    matched = []
    for model in models:
        if not isinstance(model, CPM):
            raise ConfigError(f"{run} holds no CPM: choose another label")
        matched.append(owners(model, build_dataset(split="val", **model.card["data"])))
    return {step: changed(*pair) for step, pair in zip(steps[1:], itertools.pairwise(matched), strict=True)}


def plot(curves: dict[str, list[dict[int, float]]], path: Path) -> None:
    """Plot mean and range over seeds."""
    with styled():
        figure = Figure(figsize=(7.5, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for (label, seeds), (colour, line) in zip(curves.items(), line_styles(len(curves)), strict=True):
            steps = sorted(seeds[0])
            values = [[100 * seed[step] for seed in seeds] for step in steps]
            axes.plot(steps, [statistics.mean(v) for v in values], line, color=colour, marker="o", ms=3, label=label)
            axes.fill_between(steps, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.15, lw=0)
        axes.set(xlabel="optimizer steps", ylabel="queries with another object, percent", ylim=(0, None))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        title = f"mean and range of {len(seeds)} seeds"
        figure.legend(frameon=False, title=title, loc="outside right upper", alignment="left")
    write_figure(figure, path, 150)


def main(argv: Sequence[str]) -> None:
    """Measure, write and plot."""
    args = arguments(__doc__).parse_args(argv)
    with mistakes_in_a_line():
        found = seeds(args.runs, args.labels)
        curves = {label: [curve(run) for run in folders] for label, folders in found.items()}
        command = shlex.join(["python", "benchmarks/matching_stability.py", *argv])
        write_result(args.out.with_suffix(".json"), {**provenance(command, "cpu"), "numbers": curves})
        plot(curves, args.out.with_suffix(".png"))
    for label, of_seeds in curves.items():
        last = [statistics.mean(list(seed.values())[-4:]) for seed in of_seeds]
        Console().print(f"{label}: {100 * statistics.mean(last):.1f} % over the last four intervals")


if __name__ == "__main__":
    main(sys.argv[1:])
