"""Export a model to an ONNX file with a JSON card next to it, and compare the file with the model."""

import dataclasses
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.export import Dim

from avseg.errors import CheckpointError, ConfigError
from avseg.export.read import CARD_SUFFIX, OnnxModel
from avseg.export.static import LogitsOnly, static_form
from avseg.files import check_writable, replacing, sha256
from avseg.interface import AVSModel, Clip
from avseg.mel import BANDS, FRAMES, PATCH_SECONDS, SAMPLE_RATE
from avseg.prediction.sampling import USUAL_SIZE, clip_from_video
from avseg.profile import noise

TOLERANCE = 1e-3
"""Largest difference of a probability from that of the torch model."""
OPSET = 18
_USUAL_FRAMES = 5


class Parity(NamedTuple):
    """Largest differences between an exported file and its model.

    Attributes:
        input: Description of the clip.
        logits: Difference of the logits.
        probabilities: Difference of the probabilities.
        masks: Share of the pixels whose masks are equal.
    """

    input: str
    logits: float
    probabilities: float
    masks: float


def export(
    model: AVSModel, path: str | Path, *, size: int | None = None, frames: int | None = None, video: Path | None = None
) -> list[Parity]:
    """Write a model to an ONNX file, in its static dense form, and its card next to it, ``<path>.json``.

    Batch and number of frames are dynamic, height and width fixed. Both files are written completely or not at all.

    Args:
        model: The model. Is not changed.
        path: The file, ``*.onnx``.
        size: H = W of the frames; None takes the size of the training data on the card, or 224.
        frames: T of the compared clips, 2 or more; None takes that of the training data on the card, or 5.
        video: A video whose first clip is compared too; random clips are always compared.

    Returns:
        The differences on each clip.

    Raises:
        ConfigError: When a package of the extra ``onnx`` is missing, the file cannot be written, or a setting is wrong.
        CheckpointError: When the exporter refuses the model, or a probability differs by more than :data:`TOLERANCE`.
        MediaError: When the video cannot be used.
    """
    _require_packages()
    if model.optimized:
        raise ConfigError(f"the model is optimized ({', '.join(model.optimized)}) or exported: give the original model")
    path, data = Path(path), model.card.get("data") or {}
    height, width = _size(size if size is not None else data.get("size") or USUAL_SIZE)
    length = frames if frames is not None else max(2, int(data.get("frames") or _USUAL_FRAMES))
    if path.suffix != ".onnx":
        raise ConfigError(f"the exported file must be named *.onnx, got {path.name}")
    if min(height, width, length - 1) < 1:
        raise ConfigError(f"size must be 1 or more and frames 2 or more, got {height} x {width} and {length}")
    check_writable(path)
    static = static_form(model)
    clips = _clips(static, length, (height, width), video)
    with replacing(path.with_name(path.name + CARD_SUFFIX)) as card, replacing(path) as file:
        _write(static, file, next(iter(clips.values())))
        content = _card(static, model.card, length, (height, width), sha256(file))
        parity = [compare(static, OnnxModel(content, file), clip, name) for name, clip in clips.items()]
        _check(parity)
        content["export"]["parity"] = [found._asdict() for found in parity]
        card.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return parity


@torch.no_grad()
def compare(model: AVSModel, other: AVSModel, clip: Clip, name: str) -> Parity:
    """Return the largest differences of two models on a clip."""
    one, two = model(clip), other(clip)
    logits, probabilities = (
        (a - b).abs().max().item() for a, b in ((one.logits, two.logits), (one.probabilities, two.probabilities))
    )
    return Parity(name, logits, probabilities, (one.masks == two.masks).double().mean().item())


def _require_packages() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        raise ConfigError(f"export needs {names}, not installed: pip install -e '.[onnx]' in the checkout of avseg")


def _size(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _clips(model: AVSModel, frames: int, size: tuple[int, int], video: Path | None) -> Mapping[str, Clip]:
    """Return the clips to compare by description, the first with B and T above 1: a 1 would become constant."""
    source = torch.Generator().manual_seed(0)
    shapes = ((2, frames), (1, frames), (1, 1))
    clips = {f"random, B = {b}, T = {t}": _random(model, b, t, size, source) for b, t in shapes}
    if video is not None:
        clips[video.name] = clip_from_video(video, seconds=frames, size=size)
    return clips


def _random(model: AVSModel, clips: int, frames: int, size: tuple[int, int], source: torch.Generator) -> Clip:
    like = noise(model, frames, *size)
    channels = 2 if getattr(model.config, "stereo", False) and like.audio.ndim == 5 else 1
    sound = (channels, *like.audio.shape[3:]) if like.audio.ndim == 5 else like.audio.shape[2:]
    pictures = torch.randn(clips, *like.frames.shape[1:], generator=source)
    return Clip(pictures, torch.randn(clips, frames, *sound, generator=source))


def _write(model: AVSModel, path: Path, clip: Clip) -> None:
    dynamic = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    names: dict[str, Any] = {"input_names": ["frames", "audio"], "output_names": ["logits"]}
    try:
        with _quiet():
            program = torch.onnx.export(
                LogitsOnly(model),
                (clip.frames, clip.audio),
                dynamo=True,
                dynamic_shapes=(dynamic, dynamic),
                opset_version=OPSET,
                verbose=False,
                **names,
            )
            if program is None:
                raise RuntimeError("the exporter returned nothing")
            program.save(path, external_data=False)
    except OSError:
        raise
    except Exception as error:  # torch raises classes of many kinds here
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{model.name} cannot be exported with these settings: {reason[:200]}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and log lines of torch's exporter, such as that torchvision is not installed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _card(model: AVSModel, card: Mapping[str, Any], frames: int, size: tuple[int, int], digest: str) -> dict[str, Any]:
    """Return the card of an exported file: that of the model, and the facts of the export."""
    packages = ("avseg", "torch", "onnx", "onnxscript", "onnxruntime")
    facts = {
        "format": 1,
        "sha256": digest,
        "opset": OPSET,
        "dynamic": ["B", "T"],
        "size": list(size),
        "audio": {"sample_rate": SAMPLE_RATE, "patch_seconds": PATCH_SECONDS, "frames": FRAMES, "bands": BANDS},
        "versions": {name: version(name) for name in packages},
    }
    return {
        **card,
        "model": model.name,
        "classes": model.classes,
        "config": dataclasses.asdict(model.config),
        "data": {**(card.get("data") or {}), "size": list(size), "frames": frames},
        "export": facts,
    }


def _check(parity: list[Parity]) -> None:
    worst = max(parity, key=lambda found: math.inf if math.isnan(found.probabilities) else found.probabilities)
    if not worst.probabilities <= TOLERANCE:
        raise CheckpointError(
            f"the exported file differs from the model by {worst.probabilities:.2g} in a probability ({worst.input}), "
            f"more than {TOLERANCE:g}: it is not written; keep the torch model"
        )
