"""Examples for figures: clips of a data set with the predictions of models."""

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
from avseg.metrics import AVSBench, AVSBenchSemantic, Protocol, decide, headline


class ExamplePrediction(NamedTuple):
    """Prediction of one model for a clip.

    Attributes:
        labels: (T, H, W) int64.
        score: J, or the mIoU of the present classes, of this clip; None if none of its frames is labelled.
        maps: Name → (T, G, h, w), from ``Prediction.maps``.
    """

    labels: NDArray[np.int64]
    score: float | None
    maps: dict[str, Tensor]


@dataclass(frozen=True)
class Example:
    """A clip without padding frames, and its predictions.

    Attributes:
        name: Name of the clip.
        frames: (T, H, W, 3) RGB.
        sound: (T, 96, 64) log-mel of the first channel; None if the data set gives embeddings.
        times: Times of the frames, such as ``"0.5 s"``.
        truth: (T, H, W) int64 labels, the ground truth.
        labelled: (T,) bool.
        predictions: One prediction per model.
    """

    name: str
    frames: Pixels
    sound: NDArray[np.float32] | None
    times: list[str]
    truth: NDArray[np.int64]
    labelled: NDArray[np.bool_]
    predictions: list[ExamplePrediction]

    @property
    def tallness(self) -> float:
        """Return height over width of the frames."""
        height, width = self.frames.shape[1:3]
        return float(height / width)

    def only(self, k: int) -> "Example":
        """Return the clip reduced to frame ``k``; scores are still those of the whole clip."""
        at = slice(k, k + 1)
        return Example(
            self.name,
            self.frames[at],
            None if self.sound is None else self.sound[at],
            self.times[at],
            self.truth[at],
            self.labelled[at],
            [
                ExamplePrediction(a.labels[at], a.score, {name: m[at] for name, m in a.maps.items()})
                for a in self.predictions
            ],
        )

    def present(self) -> list[int]:
        """Return the labels in the ground truth or a prediction, without background."""
        parts = [self.truth[self.labelled], *(prediction.labels for prediction in self.predictions)]
        return sorted({int(label) for part in parts for label in np.unique(part)} - {0})


@dataclass(frozen=True)
class Examples:
    """Clips of a figure, with names of models and classes.

    Attributes:
        clips: At least one clip.
        models: Short names of the models, in the order of ``Example.predictions``.
        names: Label → name.
    """

    clips: list[Example]
    models: list[str]
    names: tuple[str, ...]

    @property
    def score(self) -> str:
        """Return the name of the score."""
        return headline(1 if len(self.names) == 2 else len(self.names)).label

    def colour(self, label: int) -> Colour:
        """Return the colour of a label, safe for colour blindness; grey for the label that is not scored."""
        return colour(label)

    def legend(self, clip: Example) -> list[tuple[str, Colour]]:
        """Return name and colour of the labels in a clip; empty for one class."""
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
) -> Examples:
    """Load models and run them on clips.

    Args:
        checkpoints: Arguments of :func:`avseg.load`.
        data: ``name`` and fields of the data set; they override those the first model was trained on, as in
            ``avseg eval``.
        split: train, val or test.
        clips: Number of clips, spread evenly over the split.
        pick: Indices of the clips, instead of ``clips``.

    Raises:
        ConfigError: When a setting is wrong or the classes do not match.
        CheckpointError: When a model cannot be loaded or predicts NaN.
        DataError: When there is no data.
    """
    models = [load(checkpoint) for checkpoint in checkpoints]
    settings = data_settings(models[0].card, dict(data or {}), checkpoints[0])
    dataset = build_dataset(settings.pop("name"), split, **settings)
    for model in models:
        check_classes(model, dataset)
    chosen = choose(len(dataset), clips, pick)
    return Examples(
        [_example(dataset, index, models, checkpoints) for index in chosen],
        short_names(checkpoints),
        dataset.class_names,
    )


def choose(count: int, clips: int, pick: Sequence[int] | None = None) -> list[int]:
    """Return the indices of the clips to show.

    Args:
        count: Number of clips in the split.
        clips: Number of clips to show, spread evenly.
        pick: Indices of the clips, instead of ``clips``.

    Raises:
        ConfigError: When an index does not exist, or ``clips`` is less than 1.
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
    """Return the last distinct part of each path, or as many parts as needed; without ``best`` and ``last``."""
    whole = [PurePath(path).parts or (path,) for path in paths]
    distinct = [[part for part in parts if part not in ("best", "last")] or list(parts) for parts in whole]
    while len(set(paths)) > 1 and len({p[-1] for p in distinct}) == 1 and all(len(p) > 1 for p in distinct):
        distinct = [parts[:-1] for parts in distinct]
    for parts, fewest in ((distinct, 1), (whole, 2)):
        for count in range(fewest, max(map(len, parts)) + 1):
            short = ["/".join(part[-count:]) for part in parts]
            if len(set(short)) == len(set(paths)):
                return short
    return list(paths)


def need_maps(examples: Examples, kind: str, advice: str) -> list[str]:
    """Return the names of the first model's maps of a kind, in the model's order.

    Args:
        examples: Clips with predictions.
        kind: Prefix of the names, such as ``"mask/"``.
        advice: Hint at models with such maps, for the error.

    Raises:
        ConfigError: When the model has none.
    """
    maps = examples.clips[0].predictions[0].maps
    found = [name for name in maps if name.startswith(kind)]
    if not found:
        has = f"maps {', '.join(maps)}" if maps else "no maps at all"
        raise ConfigError(f"{examples.models[0]} has no {kind!r} maps, it has {has}: {advice}")
    return found


def _example(dataset: AVSDataset, index: int, models: Sequence[AVSModel], checkpoints: Sequence[str]) -> Example:
    sample = dataset[index]
    clip, target, (name,) = sample
    valid = clip.valid[0]
    masks = target.masks[0, valid]
    if dataset.classes == 1:
        masks = torch.where(masks == IGNORE, masks, (masks != 0).long())
    return Example(
        name,
        denormalise(clip.frames[0, valid]).numpy(),
        clip.audio[0, valid, 0].numpy() if clip.audio.ndim == 5 else None,
        [f"{round(k + dataset.phase, 2):g} s" for k in valid.nonzero().flatten().tolist()],
        masks.numpy(),
        target.labelled[0, valid].numpy(),
        [_predict(model, sample, named) for model, named in zip(models, checkpoints, strict=True)],
    )


def _predict(model: AVSModel, sample: Sample, named: str) -> ExamplePrediction:
    with evaluating(model), torch.inference_mode():
        prediction = model(sample.clip, maps=True).at(sample.target.masks.shape[-2:])
    if any(not tensor.isfinite().all() for tensor in (prediction.logits, *prediction.maps.values())):
        raise CheckpointError(f"{named} predicts NaN or infinity for clip {sample.names[0]!r}: its weights are broken")
    valid = sample.clip.valid[0]
    maps = {name: tensor[0, valid].float() for name, tensor in prediction.maps.items()}
    return ExamplePrediction(decide(prediction)[0, valid].numpy(), _score(model.classes, prediction, sample), maps)


def _score(classes: int, prediction: Prediction, sample: Sample) -> float | None:
    metric, score = _protocol(classes)
    metric.update(prediction, sample.target, sample.clip.valid)
    return metric.compute()[score].item() if sample.target.labelled.any() else None


def _protocol(classes: int) -> tuple[Protocol, str]:
    return (AVSBench(), "j") if classes == 1 else (AVSBenchSemantic(classes), "miou_present")
