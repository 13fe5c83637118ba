"""Which of two look-alikes, and what at a change: ``python benchmarks/ambiguity.py RUNS OUT LABEL …``.

RUNS is the folder of an ``avseg bench`` on ``synthetic``, each LABEL a model of it. The last weights of every seed
answer test clips that were made to be ambiguous (``ambiguity`` of :class:`avseg.data.synthetic.Synthetic`), of the size
and variant that they were trained on. With several classes, marked is whatever is not marked as background.

*Spatial*, on the frames in which the first of the pair sounds and both are seen. a0 and a1: the share of the pixels of
the one that sounds, and of its silent look-alike, that is marked. ``chosen``: of the frames with either, those in which
a0 > a1; marking both alike is no choice. ``missed``: the frames with neither.

*Temporal*, on frames around a change (what is seen and sounds differs from that of the frame before or after) and on
the others: 1 - J; ``lingering``, the share of the pixels of what is silent, but sounds in the frame before or after,
that is marked, beside ``silent``, the same of what is silent in all three; expected calibration error; area under the
ROC curve of "this pixel is wrong" for 1 - confidence and for the model's own uncertainty (map ``uncertainty``), and the
mean of that, where it has one (:mod:`avseg.metrics.calibration`).

OUT.json has mean and deviation over seeds, OUT.md the tables, OUT_reliability.png the diagrams of all seeds together;
OUT_uncertainty.png is the same of the share that is wrong against uncertainty, of models that have it.
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
from avseg.metrics.calibration import Calibration, Reliability
from avseg.metrics.functional import class_areas, frame_iou
from avseg.prediction.uncertainty import MAP
from avseg.provenance import provenance, write_result
from avseg.synthesis.scene import Scene
from avseg.synthesis.script import Ambiguity

Numbers = dict[str, float | None]
"""Name → value of one run; None where it is not defined."""
Diagrams = Mapping[str, Mapping[str, Reliability]]
"""Label → group of frames → what was counted."""
AROUND, OTHERS = "around a change", "other frames"
SPATIAL = {
    "chosen": "chooses right",
    "a0": "marked of what sounds",
    "a1": "marked of its look-alike",
    "missed": "neither marked",
    "j": "J",
}
TEMPORAL = {
    "error": "1 - J",
    "lingering": "marked before or after it sounds",
    "silent": "marked, silent",
    "ece": "ECE",
    "auroc/doubt": "AUROC, 1 - confidence",
    "auroc/uncertainty": "AUROC, U",
    "uncertainty": "mean U",
}
"""Name of a number → heading of its column."""


class Answer(NamedTuple):
    """What a model answers to one clip, at the size of its masks.

    Attributes:
        probabilities: (T, K, H, W) float64.
        marked: (T, H, W) bool.
        uncertainty: (T, H, W) float64, of models that have it.
        j: (T,) J of what is marked.
    """

    probabilities: Tensor
    marked: Tensor
    uncertainty: Tensor | None
    j: list[float]


@torch.inference_mode()
def answer(model: AVSModel, sample: Sample) -> Answer:
    """Ask a model."""
    size = sample.target.masks.shape[-2:]
    with evaluating(model):
        prediction = model(sample.clip, maps=True).at(size)
    if prediction.logits.isnan().any():
        raise CheckpointError(f"the model answers NaN to clip {sample.names[0]!r}: its weights are broken")
    marked = decide(prediction)[0] != 0
    areas = class_areas(marked.long(), (sample.target.masks[0] != 0).long(), 2)
    own = prediction.maps.get(MAP)
    own = None if own is None else interpolate(own[0].double(), size, mode="bilinear")[:, 0]
    logits = prediction.logits[0].double()
    probabilities = logits.sigmoid() if model.classes == 1 else logits.softmax(1)
    return Answer(probabilities, marked, own, frame_iou(areas).tolist())


class Spatial:
    """What one run does where two things look alike."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.second: list[float] = []
        self.j: list[float] = []

    def add(self, sample: Sample, scene: Scene, given: Answer) -> None:
        """Count a clip."""
        for t, (who, marked) in enumerate(zip(scene.instances, given.marked.numpy(), strict=True)):
            ours, theirs = who == 1, who == 2
            if scene.sounds[0, t] and ours.any() and theirs.any():
                self.first.append(float(marked[ours].mean()))
                self.second.append(float(marked[theirs].mean()))
                self.j.append(given.j[t])

    def numbers(self) -> Numbers:
        """Of all clips."""
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
    """What one run does on some frames of temporal clips."""

    def __init__(self, classes: int) -> None:
        self.calibration = Calibration(classes)
        self.j: list[float] = []
        self.marked = {"lingering": 0, "silent": 0}
        self.pixels = {"lingering": 0, "silent": 0}

    def add(self, t: int, sample: Sample, scene: Scene, given: Answer) -> None:
        """Count frame ``t`` of a clip."""
        at = slice(t, t + 1)
        own = None if given.uncertainty is None else given.uncertainty[at]
        self.calibration.update(given.probabilities[at], sample.target.masks[0, at], own)
        self.j.append(given.j[t])
        near = scene.sounds[:, max(t - 1, 0) : t + 2].any(1)
        for name, things in (("lingering", near & ~scene.sounds[:, t]), ("silent", ~near)):
            where = np.isin(scene.instances[t], np.flatnonzero(things) + 1)
            self.marked[name] += int(given.marked[t].numpy()[where].sum())
            self.pixels[name] += int(where.sum())

    def numbers(self) -> Numbers:
        """Of all frames."""
        found = self.calibration
        values = {
            "ece": found.reliability.ece,
            "auroc/doubt": found.doubt.auroc,
            "auroc/uncertainty": found.uncertainty.auroc,
            "uncertainty": found.uncertain.average,
        }
        return {
            "frames": len(self.j),
            "error": _mean([1 - j for j in self.j]),
            **{name: self.marked[name] / of if of else None for name, of in self.pixels.items()},
            **{name: None if math.isnan(value) else value for name, value in values.items()},
        }


class Temporal:
    """What one run does on the frames around a change, and on the others."""

    def __init__(self, classes: int) -> None:
        self.groups = {AROUND: Group(classes), OTHERS: Group(classes)}

    def add(self, sample: Sample, scene: Scene, given: Answer) -> None:
        """Count a clip."""
        for t, near in enumerate(around(scene)):
            self.groups[AROUND if near else OTHERS].add(t, sample, scene, given)


def around(scene: Scene) -> NDArray[np.bool_]:
    """(T,): what is seen and sounds differs from the frame before or after."""
    heard = scene.sounds[np.array(scene.seen)]
    near = np.zeros(heard.shape[1], dtype=np.bool_)
    changes = (heard[:, 1:] != heard[:, :-1]).any(0)
    near[1:] |= changes
    near[:-1] |= changes
    return near


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def common_data(models: Mapping[Path, AVSModel]) -> Synthetic.Config:
    """Settings of the data that all models were trained on; those that a card does not know are at their defaults."""
    settings = {path: _made(data_settings(model.card, {}, str(path)), path) for path, model in models.items()}
    first, ours = next(iter(settings.items()))
    other = next((path for path, theirs in settings.items() if theirs != ours), None)
    if other is not None:
        raise ConfigError(f"{first} and {other} were trained on different data: give models of one comparison")
    return ours


def _made(settings: dict[str, Any], path: Path) -> Synthetic.Config:
    name = settings.pop("name")
    if name != "synthetic":
        raise ConfigError(f"ambiguous clips can be made of 'synthetic' alone, {path} was trained on {name!r}")
    config: Synthetic.Config = make_config(Synthetic, settings)
    return config


def measure(models: Mapping[Path, AVSModel], data: Synthetic, tallies: Mapping[Path, Spatial | Temporal]) -> None:
    """Have all models answer all clips, each of which is made once."""
    for model in models.values():
        check_classes(model, data)
    console = Console(stderr=True)
    for index in track(range(len(data)), data.config.ambiguity, console=console, transient=True):
        sample, scene = data.sample_with_scene(index)
        for path, model in models.items():
            tallies[path].add(sample, scene, answer(model, sample))


def clips_of(settings: Synthetic.Config, ambiguity: Ambiguity, clips: int) -> Synthetic:
    """So many test clips of the kind that is asked for."""
    return Synthetic(dataclasses.replace(settings, ambiguity=ambiguity, test=clips), "test")


def together(counted: Iterable[Reliability]) -> Reliability:
    """All seeds in one."""
    return reduce(operator.add, counted)


def of_all(runs: Sequence[Numbers]) -> dict[str, Any]:
    """Mean and deviation of every number that all seeds have; None for the others."""
    return {name: over_seeds([run[name] for run in runs]) for name in runs[0]}


def markdown(result: Mapping[str, Any]) -> str:
    """Both tables; everything times 100, mean ± deviation between seeds."""
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
    """The data of the second kind; the numbers of each label; reliability of probability, and of uncertainty."""
    weights = {label: [seed / "last" for seed in folders] for label, folders in seeds(runs, labels).items()}
    models = {path: avseg.load(path) for paths in weights.values() for path in paths}
    settings = common_data(models)
    spatial = {path: Spatial() for path in models}
    temporal = {path: Temporal(model.classes) for path, model in models.items()}
    switching = clips_of(settings, "temporal", clips)
    measure(models, clips_of(settings, "spatial", clips), spatial)
    measure(models, switching, temporal)
    numbers: dict[str, Any] = {}
    probable: dict[str, dict[str, Reliability]] = {}
    uncertain: dict[str, dict[str, Reliability]] = {}
    for label, paths in weights.items():
        counted = {group: [temporal[path].groups[group] for path in paths] for group in (AROUND, OTHERS)}
        probable[label] = {k: together(g.calibration.reliability for g in parts) for k, parts in counted.items()}
        uncertain[label] = {k: together(g.calibration.uncertain for g in parts) for k, parts in counted.items()}
        numbers[label] = {
            "spatial": of_all([spatial[path].numbers() for path in paths]),
            "temporal": {k: of_all([g.numbers() for g in parts]) for k, parts in counted.items()},
            "reliability": {k: found.as_dict() for k, found in probable[label].items()},
            "wrong_where_uncertain": {k: found.as_dict() for k, found in uncertain[label].items()},
            "trained_at": sorted({str(models[path].card.get("commit")) for path in paths}),
        }
    known = {label: of for label, of in uncertain.items() if any(counted.counts.any() for counted in of.values())}
    return switching, numbers, probable, known


def main(argv: Sequence[str]) -> None:
    """Measure, write and draw."""
    parser = arguments(__doc__)
    parser.add_argument("--clips", type=int, default=100, help="of each kind (default: 100)")
    said = parser.parse_args(argv)
    command = shlex.join(["python", "benchmarks/ambiguity.py", *argv])
    with mistakes_in_a_line():
        said.out.parent.mkdir(parents=True, exist_ok=True)
        data, numbers, probable, uncertain = compare(said.runs, said.labels, said.clips)
        settings = {"name": "synthetic", **dataclasses.asdict(data.config), "ambiguity": "spatial, then temporal"}
        result = {**provenance(command), "config": {"data": settings, "split": "test"}, "numbers": numbers}
        words = markdown(result)
        several = data.classes > 1
        number, share = ("confidence", "share that is right") if several else ("probability", "share that sounds")
        write_result(said.out.with_suffix(".json"), result)
        write_text(said.out.with_suffix(".md"), words)
        reliability(probable, said.out.with_name(f"{said.out.stem}_reliability.png"), number=number, share=share)
        if uncertain:
            path = said.out.with_name(f"{said.out.stem}_uncertainty.png")
            reliability(uncertain, path, number="uncertainty", share="share that is wrong")
    Console().print(words, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1:])
