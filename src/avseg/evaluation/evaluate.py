"""``avseg eval``: all scores of a model, with the audio of the clip and with negative audio.

A model whose masks do not depend on the audio can have high scores. Therefore each clip is also predicted with
``silence``, with white ``noise``, and with the audio of another clip (``swap``), and scored against the same ground
truth: the scores of a model that uses the audio fall, and its masks change.
"""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from avseg.checkpoints.store import load
from avseg.data import AVSDataset, build_dataset
from avseg.devices import check_computes, find_device, move
from avseg.errors import CheckpointError, ConfigError, DataError
from avseg.evaluation.negative_audio import NegativeAudioDataset, NegativeSample, collate_negatives
from avseg.files import check_writable
from avseg.interface import AVSModel, Clip, Prediction, Target
from avseg.metrics import AVSBench, AVSBenchSemantic, PerClass, Protocol, decide, headline, protocols
from avseg.metrics.calibration import Calibration
from avseg.provenance import provenance, write_result

RIGHT = "right"
"""Name of the audio of the clip, next to ``silence``, ``noise`` and ``swap``."""


def evaluate(
    model: AVSModel,
    dataset: AVSDataset,
    *,
    batch_size: int = 1,
    device: torch.device | str = "cpu",
    negatives: bool = True,
    progress: bool = True,
    workers: int = 0,
) -> dict[str, Any]:
    """Compute all protocols for a model on a data set. Labelled frames are scored, at the size of their masks.

    Args:
        model: Model; it is moved to ``device``, and its training modes are restored at the end.
        dataset: Clips to score.
        batch_size: Clips per forward pass; does not affect scores.
        device: Device of the computation; ``"auto"`` for the fastest device.
        negatives: Also score each clip with silence (log-mel ln 0.01), white noise (-20 dB) and the audio of another
            clip. For a data set of embeddings, only with the last.
        progress: Show a progress bar on the terminal.
        workers: Number of processes that load clips.

    Returns:
        Report for JSON; an undefined score (no such frame) is None.
        ``clips``, ``frames``: numbers of scored clips and frames. ``headline``: the score of ``drop``.
        ``scores``: protocol → name → value, see :mod:`avseg.metrics`. ``marked``: share of foreground pixels.
        ``calibration``: ``ece``, the expected calibration error; ``auroc_confidence``, the AUROC with which
        1 - confidence finds wrong pixels; for a model with a map ``uncertainty``, also ``auroc_uncertainty``, that of
        the uncertainty, see :mod:`avseg.metrics.calibration`.
        ``negatives``: kind of audio → its ``scores`` and ``marked``; ``drop``, decrease of the headline against the
        right audio; ``overlap``, mean IoU with the mask for the right audio, over the frames where either has
        foreground; ``changed``, share of pixels with another label than for the right audio.
        ``per_class`` for several classes; ``per_category`` for one class, if clips are named ``category/name``.
        ``per_clip``: name → kind of audio → two scores of this clip.

    Raises:
        ConfigError: When model and data set have different classes, or the device does not exist.
        DataError: When there is no clip, or no other clip for negative audio.
        CheckpointError: When the model predicts NaN.
    """
    check_classes(model, dataset)
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"batch_size must be 1 or more and workers must be 0 or more, got {batch_size} and {workers}")
    if len(dataset) < 1 + negatives:
        raise DataError(f"scores need 1 clip, audio of another clip needs 2, the data set has {len(dataset)}")
    samples = NegativeAudioDataset(dataset, negatives=negatives)
    # The loader's own generator leaves the global random state as it was.
    generator = torch.Generator()
    loader = DataLoader(samples, batch_size, num_workers=workers, collate_fn=collate_negatives, generator=generator)
    tallies: dict[str, _Tally] = {}
    check_computes(device)
    device = find_device(device)
    move(model, device)
    with evaluating(model), torch.inference_mode():
        for negative in track(loader, "evaluating", console=Console(stderr=True), transient=True, disable=not progress):
            _score_sample(model, negative, device, tallies)
    return _report(dataset, tallies)


def check_classes(model: AVSModel, dataset: AVSDataset) -> None:
    """Raise if the classes of model and data set differ.

    Raises:
        ConfigError: When their number or their names differ.
    """
    if model.classes != dataset.classes:
        raise ConfigError(
            f"the model has {model.classes} classes, the data set {dataset.classes}: "
            "evaluate on data with the classes it was trained for"
        )
    names = getattr(model, "card", {}).get("class_names")
    if model.classes > 1 and names is not None and tuple(names) != dataset.class_names:
        ours, theirs = next((a, b) for a, b in zip(names, dataset.class_names, strict=True) if a != b)
        raise ConfigError(
            f"the classes of model and data set differ: the model has {ours!r} where the data set has {theirs!r}"
        )


@contextmanager
def evaluating(model: AVSModel) -> Iterator[None]:
    """Set evaluation mode, and restore the mode of every module at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _score_sample(
    model: AVSModel, negative: NegativeSample, device: torch.device | str, tallies: "dict[str, _Tally]"
) -> None:
    """Predict clips with each kind of audio, the right one first, and add them to the tallies."""
    clip, target = negative.sample.clip.to(device), negative.sample.target.to(device)
    own, names = negative.own.to(device), negative.sample.names
    right: Tensor | None = None
    for kind, audio in {RIGHT: clip.audio, **negative.audio}.items():
        prediction = model(Clip(clip.frames, audio.to(device), clip.valid), maps=right is None)
        prediction = prediction.at(target.masks.shape[-2:])
        broken = (prediction.logits.isnan().flatten(2).any(2) & (target.labelled | ~own)).any(1)
        if broken.any():
            name = names[int(broken.nonzero()[0])]
            raise CheckpointError(f"the model predicts NaN for clip {name!r} ({kind} audio): its weights are broken")
        masks = decide(prediction)
        tally = tallies.setdefault(kind, _Tally(model.classes))
        if right is None:
            right = masks
            tally.calibrate(prediction, target)
        tally.score(prediction, target, own, names)
        tally.compare(masks[target.labelled], right[target.labelled])


class _Tally:
    """Sums over clips for one kind of audio."""

    def __init__(self, classes: int) -> None:
        self.protocols = protocols(classes)
        self.per_class = PerClass(classes)
        self.calibration = Calibration(classes)
        self.per_clip: dict[str, dict[str, float | None]] = {}
        self.frames = self.non_empty = 0
        self.pixels = self.marked = self.changed = 0
        self.overlap = 0.0
        self._one_clip: Protocol = AVSBench() if classes == 1 else AVSBenchSemantic(classes)
        self._of_clip = ("j", "f") if classes == 1 else ("miou_present", "fscore_present")

    def score(self, prediction: Prediction, target: Target, own: Tensor, names: Sequence[str]) -> None:
        """Add clips to all protocols."""
        for metric in (*self.protocols.values(), self.per_class):
            metric.update(prediction, target, own)
        for i, name in enumerate(names):
            one = slice(i, i + 1)
            predicted, truth = Prediction(prediction.logits[one]), Target(target.masks[one], target.labelled[one])
            self._one_clip.reset()
            self._one_clip.update(predicted, truth, own[one])
            scores = _plain(self._one_clip.compute())
            self.per_clip[name] = {key: scores[key] for key in self._of_clip}

    def calibrate(self, prediction: Prediction, target: Target) -> None:
        """Add the labelled frames of clips to the calibration."""
        labelled, uncertainty = target.labelled, prediction.maps.get("uncertainty")
        if uncertainty is not None:
            uncertainty = interpolate(uncertainty[labelled], target.masks.shape[-2:], mode="bilinear")[:, 0]
        self.calibration.update(prediction.probabilities[labelled], target.masks[labelled], uncertainty)

    def compare(self, masks: Tensor, right: Tensor) -> None:
        """Add frames, (N, H, W) predicted labels, and those predicted for the right audio."""
        both = ((masks != 0) & (masks == right)).sum((1, 2)).cpu()
        either = ((masks != 0) | (right != 0)).sum((1, 2)).cpu()
        self.frames += len(masks)
        self.pixels += masks.numel()
        self.marked += int((masks != 0).sum())
        self.changed += int((masks != right).sum())
        self.non_empty += int((either > 0).sum())
        self.overlap += (both.double() / either.clamp(min=1)).sum().item()

    def scores(self) -> dict[str, Any]:
        """Return the report fields of every kind of audio."""
        scores = {name: _plain(metric.compute()) for name, metric in self.protocols.items()}
        return {"scores": scores, "marked": _share(self.marked, self.pixels)}

    def change(self) -> dict[str, Any]:
        """Return the extra report fields of negative audio."""
        return {"overlap": _share(self.overlap, self.non_empty), "changed": _share(self.changed, self.pixels)}


def _plain(scores: Mapping[str, Tensor]) -> dict[str, float | None]:
    return {name: None if value.isnan() else value.item() for name, value in scores.items()}


def _share(amount: float, of: int) -> float | None:
    return amount / of if of else None


def _report(dataset: AVSDataset, tallies: "Mapping[str, _Tally]") -> dict[str, Any]:
    right = tallies[RIGHT]
    main = headline(dataset.classes)
    report = {
        "clips": len(dataset),
        "frames": right.frames,
        "headline": main.name,
        **right.scores(),
        "calibration": _calibration(right.calibration),
        "negatives": {},
    }
    best = report["scores"][main.protocol][main.score]
    for kind in [kind for kind in tallies if kind != RIGHT]:
        found = tallies[kind].scores()
        value = found["scores"][main.protocol][main.score]
        drop = None if best is None or value is None else best - value
        report["negatives"][kind] = {**found, "drop": drop, **tallies[kind].change()}
    if dataset.classes > 1:
        report["per_class"] = _per_class(right, dataset.class_names)
    elif categories := _per_category(right):
        report["per_category"] = categories
    report["per_clip"] = {name: {kind: t.per_clip[name] for kind, t in tallies.items()} for name in right.per_clip}
    return report


def _calibration(found: Calibration) -> dict[str, float | None]:
    values = {"ece": found.probability_bins.ece, "auroc_confidence": found.confidence_ranking.auroc}
    if found.uncertainty_bins.counts.any():
        values["auroc_uncertainty"] = found.uncertainty_ranking.auroc
    return {name: None if isnan(value) else value for name, value in values.items()}


def _per_class(tally: _Tally, names: Sequence[str]) -> dict[str, Any]:
    columns = tally.per_class.compute()
    return {name: _plain({key: values[label] for key, values in columns.items()}) for label, name in enumerate(names)}


def _per_category(tally: _Tally) -> dict[str, Any]:
    """Return J and F of AVSBench per category, averaged over the clips of the category."""
    members: dict[str, list[dict[str, float | None]]] = {}
    for name, scores in tally.per_clip.items():
        if "/" in name and None not in scores.values():
            members.setdefault(name.rsplit("/", 1)[0], []).append(scores)
    return {
        category: {"clips": len(clips), **{key: sum(c[key] or 0.0 for c in clips) / len(clips) for key in clips[0]}}
        for category, clips in sorted(members.items())
    }


def table(report: Mapping[str, Any]) -> Table:
    """Return a report of :func:`evaluate` as a table: one row per score, one column per kind of audio."""
    negatives = report["negatives"]
    shown = Table(title=f"{report['clips']} clips, {report['frames']} frames")
    for heading in ("protocol", "score"):
        shown.add_column(heading, overflow="fold")
    for heading in (f"{RIGHT} audio", *negatives):
        shown.add_column(heading, justify="right")
    for protocol, scores in report["scores"].items():
        for row, (name, value) in enumerate(scores.items()):
            others = [n["scores"][protocol][name] for n in negatives.values()]
            style = "bold" if f"{protocol}/{name}" == report["headline"] else None
            cells = [_cell(v) for v in (value, *others)]
            shown.add_row("" if row else protocol, name, *cells, style=style, end_section=row == len(scores) - 1)
    for row, (name, value) in enumerate(report["calibration"].items()):
        last = row == len(report["calibration"]) - 1
        shown.add_row("" if row else "calibration", name, _cell(value), *[""] * len(negatives), end_section=last)
    shown.add_row("mask", "marked", *[_cell(v["marked"]) for v in (report, *negatives.values())])
    for name in ("overlap", "changed", "drop") if negatives else ():
        shown.add_row("", name, "", *[_cell(n[name]) for n in negatives.values()])
    return shown


def parts_table(report: Mapping[str, Any]) -> Table | None:
    """Return a table of the scores of each class or category; None if the data has neither."""
    kind = next((k for k in ("class", "category") if f"per_{k}" in report), None)
    if kind is None:
        return None
    parts = report[f"per_{kind}"]
    columns = next(iter(parts.values()))
    shown = Table(title=f"per {kind}")
    shown.add_column(kind)
    for column in columns:
        shown.add_column(column, justify="right")
    for name, scores in parts.items():
        shown.add_row(name, *[str(int(v)) if c in ("frames", "clips") else _cell(v) for c, v in scores.items()])
    return shown


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def evaluate_checkpoint(
    checkpoint: str,
    data: Mapping[str, Any] | None = None,
    *,
    split: str = "test",
    out: Path | None = None,
    batch_size: int = 1,
    device: str = "cpu",
    negatives: bool = True,
    progress: bool = True,
    workers: int = 0,
) -> dict[str, Any]:
    """Score a model on a data set, with its audio and with negative audio; print tables and write JSON.

    Args:
        checkpoint: A bundled name, a folder written by avseg train or convert, or a Hub id.
        data: ``name`` and fields of the data set's ``Config``. They override the settings that the checkpoint was
            trained with, if the data set is the same.
        split: train, val or test.
        out: JSON file to write.
        batch_size: Clips per forward pass; does not affect scores.
        device: Device of the computation: cpu, cuda, mps, or auto for the fastest one.
        negatives: Also score each clip with silence, noise and the audio of another clip.
        progress: Show a progress bar on the terminal.
        workers: Number of processes that load clips.

    Returns:
        The contents of the file: provenance, ``config`` (checkpoint, model, data), ``numbers`` (the report of
        :func:`evaluate`).

    Raises:
        ConfigError: When a setting is invalid, the classes do not match, or ``out`` cannot be written.
        CheckpointError: When the checkpoint cannot be loaded.
        DataError: When there is no data.
    """
    if out is not None:
        check_writable(out)
    device = str(find_device(device))
    model = load(checkpoint)
    settings = data_settings(model.card, dict(data or {}), checkpoint)
    dataset = build_dataset(split=split, **settings)
    report = evaluate(
        model,
        dataset,
        batch_size=batch_size,
        device=device,
        negatives=negatives,
        progress=progress,
        workers=workers,
    )
    config = {
        "checkpoint": checkpoint,
        "model": {"name": model.card["model"], "classes": model.classes, **model.card["config"]},
        "data": {**settings, "split": split},
    }
    source = provenance(shlex.join(["avseg", *sys.argv[1:]]), device)
    result = {**source, "config": config, "numbers": report}
    if out is not None:
        write_result(out, result)
    Console().print(*filter(None, (table(report), parts_table(report))))
    return result


def data_settings(card: Mapping[str, Any], data: Mapping[str, Any], checkpoint: str) -> dict[str, Any]:
    """Return name and settings of the data set to evaluate on.

    Args:
        card: Card of the model, with the settings of its training data.
        data: Requested settings, which override those of the card if the data set is the same.
        checkpoint: Name of the model for the error message.

    Raises:
        ConfigError: When neither names a data set.
    """
    trained = card.get("data") or {}
    name = data.get("name", trained.get("name"))
    if name is None:
        raise ConfigError(f"{checkpoint} has no record of its training data: name a data set with --data.name")
    merged = {**(trained if trained.get("name") == name else {}), **data, "name": name}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in merged.items()}
