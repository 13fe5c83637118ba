"""What the figures of a model show: some clips of a data set, and what models answer to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avseg.checkpoints.store import load
from avseg.colours import colour
from avseg.data import AVSDataset, Sample, build_dataset
from avseg.errors import CheckpointError, ConfigError, DataError
from avseg.evaluation.evaluate import check_classes, data_settings, evaluating
from avseg.figures.cells import Colour, Pixels
from avseg.interface import IGNORE, AVSModel, Prediction
from avseg.media.images import denormalise
from avseg.metrics import AVSBench, AVSBenchSemantic, Protocol, decide

"""Grey, which no class has."""


class Answer(NamedTuple):
    """What one model makes of a clip.

    Attributes:
        labels: (T, H, W) int64.
        score: J, or the mIoU of the classes that are there, of this clip; None when none of its frames is labelled.
        maps: Name → (T, G, h, w), from ``Prediction.maps``.
    """

    labels: NDArray[np.int64]
    score: float | None
    maps: dict[str, Tensor]


@dataclass(frozen=True)
class Scene:
    """A clip, without the frames that are padding.

    Attributes:
        name: Of the clip.
        frames: (T, H, W, 3) RGB.
        sound: (T, 96, 64) log-mel of the first channel; None when the data set gives embeddings.
        times: Of the frames, such as ``"0.5 s"``.
        truth: (T, H, W) int64 labels.
        labelled: (T,) bool.
        answers: One per model.
    """

    name: str
    frames: Pixels
    sound: NDArray[np.float32] | None
    times: list[str]
    truth: NDArray[np.int64]
    labelled: NDArray[np.bool_]
    answers: list[Answer]

    @property
    def tallness(self) -> float:
        """Height over width of the frames."""
        height, width = self.frames.shape[1:3]
        return float(height / width)

    def only(self, k: int) -> "Scene":
        """The clip as if frame ``k`` were all of it; scores stay those of the whole."""
        at = slice(k, k + 1)
        return Scene(
            self.name,
            self.frames[at],
            None if self.sound is None else self.sound[at],
            self.times[at],
            self.truth[at],
            self.labelled[at],
            [Answer(a.labels[at], a.score, {name: m[at] for name, m in a.maps.items()}) for a in self.answers],
        )

    def present(self) -> list[int]:
        """The labels that the truth or an answer has, without background."""
        parts = [self.truth[self.labelled], *(answer.labels for answer in self.answers)]
        return sorted({int(label) for part in parts for label in np.unique(part)} - {0})


@dataclass(frozen=True)
class Scenes:
    """Clips and how to speak of them.

    Attributes:
        clips: At least one.
        models: Short names of the models, in the order of ``Scene.answers``.
        names: Label → name.
    """

    clips: list[Scene]
    models: list[str]
    names: tuple[str, ...]

    @property
    def score(self) -> str:
        """What ``Answer.score`` is."""
        return "J" if len(self.names) == 2 else "mIoU"

    def colour(self, label: int) -> Colour:
        """Return the colour of a label."""
        return colour(label)

    def legend(self, clip: Scene) -> list[tuple[str, Colour]]:
        """Name and colour of what sounds in a clip; nothing when there is but one class."""
        if len(self.names) == 2:
            return []
        return [("not scored" if k == IGNORE else self.names[k], self.colour(k)) for k in clip.present()]


def load_examples(
    checkpoints: Sequence[str],
    data: Mapping[str, Any] | None,
    *,
    split: str,
    clips: int,
    pick: Sequence[int] | None,
) -> Scenes:
    """Load models and have them answer clips.

    Args:
        checkpoints: What :func:`avseg.load` takes.
        data: ``name`` and fields of the data set, laid over those the first model was trained on, as in ``avseg eval``.
        split: train, val or test.
        clips: How many, spread evenly over the split.
        pick: These instead, by number.

    Raises:
        ConfigError: When a setting is wrong or the classes do not match.
        CheckpointError: When a model cannot be loaded or answers NaN.
        DataError: When there is no data.
    """
    models = [load(checkpoint) for checkpoint in checkpoints]
    settings = data_settings(models[0].card, dict(data or {}), checkpoints[0])
    dataset = build_dataset(settings.pop("name"), split, **settings)
    for model in models:
        check_classes(model, dataset)
    chosen = choose(len(dataset), clips, pick)
    return Scenes(
        [_scene(dataset, index, models, checkpoints) for index in chosen], short_names(checkpoints), dataset.class_names
    )


def choose(count: int, clips: int, pick: Sequence[int] | None = None) -> list[int]:
    """Numbers of the clips to show.

    Args:
        count: Clips there are.
        clips: How many to show, spread evenly.
        pick: These instead.

    Raises:
        ConfigError: When there is no such number, or ``clips`` is none.
        DataError: When there is no clip.
    """
    if count < 1:
        raise DataError("there is no clip to show: choose another split")
    if pick is not None:
        for index in pick:
            if not 0 <= index < count:
                raise ConfigError(f"clip {index} does not exist, pick from 0 … {count - 1}")
        return list(pick)
    if clips < 1:
        raise ConfigError(f"clips must be 1 or more, got {clips}")
    chosen: list[int] = np.linspace(0, count - 1, min(clips, count)).round().astype(int).tolist()
    return chosen


def short_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path that differs, or as many as tell them apart; ``best`` and ``last`` tell nothing."""
    whole = [PurePath(path).parts or (path,) for path in paths]
    telling = [[part for part in parts if part not in ("best", "last")] or list(parts) for parts in whole]
    while len(set(paths)) > 1 and len({p[-1] for p in telling}) == 1 and all(len(p) > 1 for p in telling):
        telling = [parts[:-1] for parts in telling]
    for parts, fewest in ((telling, 1), (whole, 2)):
        for count in range(fewest, max(map(len, parts)) + 1):
            short = ["/".join(part[-count:]) for part in parts]
            if len(set(short)) == len(set(paths)):
                return short
    return list(paths)


def need_maps(scenes: Scenes, kind: str, advice: str) -> list[str]:
    """Names of the first model's maps of a kind, in the order in which the model makes them.

    Args:
        scenes: Clips with answers.
        kind: What the names begin with, such as ``"mask/"``.
        advice: Which models have such maps.

    Raises:
        ConfigError: When the model has none.
    """
    maps = scenes.clips[0].answers[0].maps
    found = [name for name in maps if name.startswith(kind)]
    if not found:
        has = f"maps {', '.join(maps)}" if maps else "no maps at all"
        raise ConfigError(f"{scenes.models[0]} has no {kind!r} maps, it has {has}: {advice}")
    return found


def _scene(dataset: AVSDataset, index: int, models: Sequence[AVSModel], checkpoints: Sequence[str]) -> Scene:
    sample = dataset[index]
    clip, target, (name,) = sample
    seen = clip.valid[0]
    masks = target.masks[0, seen]
    if dataset.classes == 1:
        masks = torch.where(masks == IGNORE, masks, (masks != 0).long())
    return Scene(
        name,
        denormalise(clip.frames[0, seen]).numpy(),
        clip.audio[0, seen, 0].numpy() if clip.audio.ndim == 5 else None,
        [f"{round(k + dataset.phase, 2):g} s" for k in seen.nonzero().flatten().tolist()],
        masks.numpy(),
        target.labelled[0, seen].numpy(),
        [_answer(model, sample, named) for model, named in zip(models, checkpoints, strict=True)],
    )


def _answer(model: AVSModel, sample: Sample, named: str) -> Answer:
    with evaluating(model), torch.inference_mode():
        prediction = model(sample.clip, maps=True).at(sample.target.masks.shape[-2:])
    if any(not tensor.isfinite().all() for tensor in (prediction.logits, *prediction.maps.values())):
        raise CheckpointError(f"{named} does not answer clip {sample.names[0]!r} with numbers: its weights are broken")
    seen = sample.clip.valid[0]
    maps = {name: tensor[0, seen].float() for name, tensor in prediction.maps.items()}
    return Answer(decide(prediction)[0, seen].numpy(), _score(model.classes, prediction, sample), maps)


def _score(classes: int, prediction: Prediction, sample: Sample) -> float | None:
    metric, score = _protocol(classes)
    metric.update(prediction, sample.target, sample.clip.valid)
    return metric.compute()[score].item() if sample.target.labelled.any() else None


def _protocol(classes: int) -> tuple[Protocol, str]:
    return (AVSBench(), "j") if classes == 1 else (AVSBenchSemantic(classes), "miou_present")
