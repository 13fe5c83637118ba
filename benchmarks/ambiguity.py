"""Measure models on ambiguous clips: ``python benchmarks/ambiguity.py RUNS OUT LABEL …``.

RUNS is the folder of an ``avseg bench`` on ``synthetic``, each LABEL a model of it. The last weights of every seed
are evaluated on ambiguous test clips (``ambiguity`` of :class:`avseg.data.synthetic.Synthetic`), of the size and
variant that they were trained on. A pixel is marked if it is predicted as sounding; with several classes, if it is not
predicted as background.

*Spatial*: visually similar pairs, on the frames in which the first object sounds and both are visible. a0 and a1:
marked share of the pixels of the sounding object, and of the silent one. ``chosen``: share of frames with a0 > a1,
among frames in which either is marked. ``missed``: share of frames in which neither is marked.

*Temporal*, on frames around a change (the set of visible sounding objects differs from that of the frame before or
after) and on the others: 1 - J; ``lingering``, the marked share of the pixels of objects that are silent, but sound in
the frame before or after; ``silent``, the same for objects that are silent in all three; expected calibration error;
area under the ROC curve for the detection of wrong pixels by 1 - confidence and by the model's own uncertainty (map
``uncertainty``), and the mean of the latter, for models that predict it (:mod:`avseg.metrics.calibration`).

OUT.json has mean and deviation over seeds, OUT.md the tables, OUT_reliability.png the reliability diagrams of all seeds
together; OUT_uncertainty.png plots the share of wrong pixels against the uncertainty, for models that predict it.
"""

import dataclasses
import math
import operator
import shlex
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.functional import interpolate

import avseg
from _common import arguments, cell, mistakes_in_a_line, over_seeds, seeds
from avseg.data import Sample
from avseg.data.synthetic import Synthetic
from avseg.errors import CheckpointError, ConfigError
from avseg.evaluation.evaluate import check_classes, data_settings, evaluating
from avseg.figures.reliability import reliability
from avseg.files import write_text
from avseg.interface import AVSModel, make_config
from avseg.metrics import decide
from avseg.metrics.calibration import BinnedCalibration, Calibration
from avseg.metrics.functional import class_areas, frame_iou
from avseg.prediction.uncertainty import MAP
from avseg.provenance import provenance, write_result
from avseg.synthesis.scene import Scene
from avseg.synthesis.script import Ambiguity

Numbers = dict[str, float | None]
"""Name → value of one run; None where it is not defined."""
Diagrams = Mapping[str, Mapping[str, BinnedCalibration]]
"""Label → group of frames → counts."""
AROUND, OTHERS = "around a change", "other frames"
SPATIAL = {
    "chosen": "sounding object preferred",
    "a0": "marked, sounding object",
    "a1": "marked, silent object",
    "missed": "neither marked",
    "j": "J",
}
TEMPORAL = {
    "error": "1 - J",
    "lingering": "marked, silent, sounds before or after",
    "silent": "marked, silent",
    "ece": "ECE",
    "auroc/doubt": "AUROC, 1 - confidence",
    "auroc/uncertainty": "AUROC, U",
    "uncertainty": "mean U",
}
"""Name of a number → heading of its column."""


class ClipPrediction(NamedTuple):
    """Prediction of a model for one clip, at the size of its masks.

    Attributes:
        probabilities: (T, K, H, W) float64.
        marked: (T, H, W) bool, pixels that are not predicted as background.
        uncertainty: (T, H, W) float64; None for models without it.
        j: (T,) J of the marked pixels.
    """

    probabilities: Tensor
    marked: Tensor
    uncertainty: Tensor | None
    j: list[float]


@torch.inference_mode()
def predict(model: AVSModel, sample: Sample) -> ClipPrediction:
    """Run a model on a clip."""
    size = sample.target.masks.shape[-2:]
    with evaluating(model):
        prediction = model(sample.clip, maps=True).at(size)
    if prediction.logits.isnan().any():
        raise CheckpointError(f"the model predicts NaN for clip {sample.names[0]!r}: its weights are broken")
    marked = decide(prediction)[0] != 0
    areas = class_areas(marked.long(), (sample.target.masks[0] != 0).long(), 2)
    own = prediction.maps.get(MAP)
    own = None if own is None else interpolate(own[0].double(), size, mode="bilinear")[:, 0]
    logits = prediction.logits[0].double()
    probabilities = logits.sigmoid() if model.classes == 1 else logits.softmax(1)
    return ClipPrediction(probabilities, marked, own, frame_iou(areas).tolist())


class Spatial:
    """Counts of one run on clips with visually similar pairs."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.second: list[float] = []
        self.j: list[float] = []

    def add(self, sample: Sample, scene: Scene, predicted: ClipPrediction) -> None:
        """Count a clip."""
        for t, (instances, marked) in enumerate(zip(scene.instances, predicted.marked.numpy(), strict=True)):
            first, second = instances == 1, instances == 2
            if scene.sounds[0, t] and first.any() and second.any():
                self.first.append(float(marked[first].mean()))
                self.second.append(float(marked[second].mean()))
                self.j.append(predicted.j[t])

    def numbers(self) -> Numbers:
        """Return the numbers over all clips."""
        pairs = list(zip(self.first, self.second, strict=True))
        return {
            "frames": len(pairs),
            "chosen": _mean([one > other for one, other in pairs if one or other]),
            "a0": _mean(self.first),
            "a1": _mean(self.second),
            "missed": _mean([not (one or other) for one, other in pairs]),
            "j": _mean(self.j),
        }


class Group:
    """Counts of one run on a group of frames of temporal clips."""

    def __init__(self, classes: int) -> None:
        self.calibration = Calibration(classes)
        self.j: list[float] = []
        self.marked = {"lingering": 0, "silent": 0}
        self.pixels = {"lingering": 0, "silent": 0}

    def add(self, t: int, sample: Sample, scene: Scene, predicted: ClipPrediction) -> None:
        """Count frame ``t`` of a clip."""
        at = slice(t, t + 1)
        own = None if predicted.uncertainty is None else predicted.uncertainty[at]
        self.calibration.update(predicted.probabilities[at], sample.target.masks[0, at], own)
        self.j.append(predicted.j[t])
        near = scene.sounds[:, max(t - 1, 0) : t + 2].any(1)
        for name, things in (("lingering", near & ~scene.sounds[:, t]), ("silent", ~near)):
            where = np.isin(scene.instances[t], np.flatnonzero(things) + 1)
            self.marked[name] += int(predicted.marked[t].numpy()[where].sum())
            self.pixels[name] += int(where.sum())

    def numbers(self) -> Numbers:
        """Return the numbers over all frames."""
        found = self.calibration
        values = {
            "ece": found.probability_bins.ece,
            "auroc/doubt": found.confidence_ranking.auroc,
            "auroc/uncertainty": found.uncertainty_ranking.auroc,
            "uncertainty": found.uncertainty_bins.average,
        }
        return {
            "frames": len(self.j),
            "error": _mean([1 - j for j in self.j]),
            **{name: self.marked[name] / of if of else None for name, of in self.pixels.items()},
            **{name: None if math.isnan(value) else value for name, value in values.items()},
        }


class Temporal:
    """Counts of one run on the frames around a change, and on the others."""

    def __init__(self, classes: int) -> None:
        self.groups = {AROUND: Group(classes), OTHERS: Group(classes)}

    def add(self, sample: Sample, scene: Scene, predicted: ClipPrediction) -> None:
        """Count a clip."""
        for t, near in enumerate(near_change(scene)):
            self.groups[AROUND if near else OTHERS].add(t, sample, scene, predicted)


def near_change(scene: Scene) -> NDArray[np.bool_]:
    """Return whether the visible sounding objects differ from the frame before or after, (T,)."""
    sounding = scene.sounds[np.array(scene.seen)]
    near = np.zeros(sounding.shape[1], dtype=np.bool_)
    changes = (sounding[:, 1:] != sounding[:, :-1]).any(0)
    near[1:] |= changes
    near[:-1] |= changes
    return near


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def common_data(models: Mapping[Path, AVSModel]) -> Synthetic.Config:
    """Return the data settings that all models were trained with; defaults for settings missing on a card."""
    settings = {path: _config(data_settings(model.card, {}, str(path)), path) for path, model in models.items()}
    first, ours = next(iter(settings.items()))
    other = next((path for path, theirs in settings.items() if theirs != ours), None)
    if other is not None:
        raise ConfigError(f"{first} and {other} were trained on different data: give models of one comparison")
    return ours


def _config(settings: dict[str, Any], path: Path) -> Synthetic.Config:
    name = settings.pop("name")
    if name != "synthetic":
        raise ConfigError(f"ambiguous clips exist only in 'synthetic', {path} was trained on {name!r}")
    config: Synthetic.Config = make_config(Synthetic, settings)
    return config


def measure(models: Mapping[Path, AVSModel], data: Synthetic, tallies: Mapping[Path, Spatial | Temporal]) -> None:
    """Run all models on all clips; each clip is rendered once."""
    for model in models.values():
        check_classes(model, data)
    console = Console(stderr=True)
    for index in track(range(len(data)), data.config.ambiguity, console=console, transient=True):
        sample, scene = data.sample_with_scene(index)
        for path, model in models.items():
            tallies[path].add(sample, scene, predict(model, sample))


def clips_of(settings: Synthetic.Config, ambiguity: Ambiguity, clips: int) -> Synthetic:
    """Return a test split of that many ambiguous clips."""
    return Synthetic(dataclasses.replace(settings, ambiguity=ambiguity, test=clips), "test")


def together(counted: Iterable[BinnedCalibration]) -> BinnedCalibration:
    """Add the counts of all seeds."""
    return reduce(operator.add, counted)


def of_all(runs: Sequence[Numbers]) -> dict[str, Any]:
    """Return mean and deviation of every number that is defined for all seeds; None for the others."""
    return {name: over_seeds([run[name] for run in runs]) for name in runs[0]}


def markdown(result: Mapping[str, Any]) -> str:
    """Return both tables; all numbers times 100, mean ± deviation over seeds."""
    numbers = result["numbers"]
    spatial = [[label, *_cells(found["spatial"], SPATIAL)] for label, found in numbers.items()]
    temporal = [
        [label, group, *_cells(of_group, TEMPORAL)]
        for label, found in numbers.items()
        for group, of_group in found["temporal"].items()
    ]
    tables = _table(["model", *SPATIAL.values()], spatial), _table(["model", "frames", *TEMPORAL.values()], temporal)
    return "\n".join([f"`{result['command']}`\n", *tables])


def _cells(found: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    return [cell(found[name]) for name in names]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    words = sum(heading in ("model", "frames") for heading in headings)
    rules = ["---"] * words + ["---:"] * (len(headings) - words)
    return "".join(f"| {' | '.join(line)} |\n" for line in (headings, rules, *rows))


def compare(runs: Path, labels: Sequence[str], clips: int) -> tuple[Synthetic, dict[str, Any], Diagrams, Diagrams]:
    """Return the temporal data, the numbers of each label, and the reliability of probability and of uncertainty."""
    weights = {label: [seed / "last" for seed in folders] for label, folders in seeds(runs, labels).items()}
    models = {path: avseg.load(path) for paths in weights.values() for path in paths}
    settings = common_data(models)
    spatial = {path: Spatial() for path in models}
    temporal = {path: Temporal(model.classes) for path, model in models.items()}
    switching = clips_of(settings, "temporal", clips)
    measure(models, clips_of(settings, "spatial", clips), spatial)
    measure(models, switching, temporal)
    numbers: dict[str, Any] = {}
    probable: dict[str, dict[str, BinnedCalibration]] = {}
    uncertain: dict[str, dict[str, BinnedCalibration]] = {}
    for label, paths in weights.items():
        counted = {group: [temporal[path].groups[group] for path in paths] for group in (AROUND, OTHERS)}
        probable[label] = {k: together(g.calibration.probability_bins for g in parts) for k, parts in counted.items()}
        uncertain[label] = {k: together(g.calibration.uncertainty_bins for g in parts) for k, parts in counted.items()}
        numbers[label] = {
            "spatial": of_all([spatial[path].numbers() for path in paths]),
            "temporal": {k: of_all([g.numbers() for g in parts]) for k, parts in counted.items()},
            "reliability": {k: found.as_dict() for k, found in probable[label].items()},
            "wrong_where_uncertain": {k: found.as_dict() for k, found in uncertain[label].items()},
            "trained_at": sorted({str(models[path].card.get("commit")) for path in paths}),
        }
    predicted = {label: of for label, of in uncertain.items() if any(counted.counts.any() for counted in of.values())}
    return switching, numbers, probable, predicted


def main(argv: Sequence[str]) -> None:
    """Measure, write and plot."""
    parser = arguments(__doc__)
    parser.add_argument("--clips", type=int, default=100, help="clips of each kind (default: 100)")
    args = parser.parse_args(argv)
    command = shlex.join(["python", "benchmarks/ambiguity.py", *argv])
    with mistakes_in_a_line():
        args.out.parent.mkdir(parents=True, exist_ok=True)
        data, numbers, probable, uncertain = compare(args.runs, args.labels, args.clips)
        settings = {"name": "synthetic", **dataclasses.asdict(data.config), "ambiguity": "spatial, then temporal"}
        result = {**provenance(command), "config": {"data": settings, "split": "test"}, "numbers": numbers}
        words = markdown(result)
        several = data.classes > 1
        number, share = (
            ("confidence", "share of right pixels") if several else ("probability", "share of sounding pixels")
        )
        write_result(args.out.with_suffix(".json"), result)
        write_text(args.out.with_suffix(".md"), words)
        reliability(probable, args.out.with_name(f"{args.out.stem}_reliability.png"), number=number, share=share)
        if uncertain:
            path = args.out.with_name(f"{args.out.stem}_uncertainty.png")
            reliability(uncertain, path, number="uncertainty", share="share of wrong pixels")
    Console().print(words, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1:])
