"""Run an exported file with ONNX Runtime behind the interface of a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from avseg.errors import CheckpointError, ConfigError
from avseg.files import sha256
from avseg.interface import AVSModel, Clip, Prediction, Target, make_config
from avseg.models import model_class

CARD_SUFFIX = ".json"
"""Added to the name of an exported file for that of its card."""


class OnnxModel(AVSModel):
    """An exported model: predicts with ONNX Runtime on the CPU. It cannot be trained and returns no maps.

    Args:
        card: Card of the exported file.
        path: The file.

    Raises:
        CheckpointError: When ONNX Runtime cannot read the file.
        ConfigError: When ONNX Runtime is not installed.
    """

    optimized = ("onnx",)
    Config: ClassVar[type[Any]]
    paper: ClassVar[str] = "none"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(self, card: Mapping[str, Any], path: Path) -> None:
        owner = model_class(card["model"])
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in card["config"].items()}
        super().__init__(make_config(owner, settings), card["classes"])
        self.card, self.weights_sha256 = dict(card), card["export"]["sha256"]
        self._session = _session(path)
        self._size = tuple(card["export"]["size"])
        self.eval()

    @property
    def name(self) -> str:
        """Return the name of the model that was exported."""
        return str(self.card["model"])

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the model itself.

        Raises:
            ConfigError: When the device is not the CPU.
        """
        device = torch._C._nn._parse_to(*args, **kwargs)[0]
        if device is not None and device.type != "cpu":
            raise ConfigError(f"an exported model runs on the CPU, not on {device}: choose cpu or give the torch model")
        return self

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        """Predict masks for a clip of any B and T, and of the exported H and W. ``target`` is not used.

        Raises:
            ConfigError: When the size differs, or ``maps`` are requested.
        """
        if maps:
            raise ConfigError("an exported model returns masks only: give the torch model for maps and uncertainty")
        if tuple(clip.frames.shape[-2:]) != self._size:
            given, own = (" x ".join(map(str, size)) for size in (clip.frames.shape[-2:], self._size))
            raise ConfigError(f"this file was exported for frames of {own}, got {given}: export it again with --size")
        if clip.valid.all():
            return Prediction(self._run(clip.frames, clip.audio))
        # The graph has no input for padding: each clip runs without its padding frames.
        logits = clip.frames.new_zeros(*clip.valid.shape, self.classes, *self._size)
        for b, real in enumerate(clip.valid):
            if real.any():
                logits[b, real] = self._run(clip.frames[b : b + 1, real], clip.audio[b : b + 1, real])[0]
        return Prediction(logits)

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """Raise ConfigError: an exported model has no loss."""
        raise ConfigError("an exported model cannot be trained: give the torch model")

    def _run(self, frames: Tensor, audio: Tensor) -> Tensor:
        inputs = {
            name: np.ascontiguousarray(x.float().cpu().numpy()) for name, x in (("frames", frames), ("audio", audio))
        }
        try:
            (logits,) = self._session.run(["logits"], inputs)
        except Exception as error:  # the classes of ONNX Runtime have no common base
            reason, shape = " ".join(str(error).split())[:200], tuple(frames.shape)
            raise CheckpointError(f"ONNX Runtime cannot run {self.name} on frames of {shape}: {reason}") from error
        return torch.from_numpy(logits).to(frames.device)


def check_export(card: Mapping[str, Any], path: Path) -> None:
    """Check that a card describes an exported file.

    Args:
        card: Content of the card, of which the fields of all cards were checked.
        path: The exported file.

    Raises:
        CheckpointError: When the card has no facts of an export, or the file is another one.
    """
    found = card.get("export")
    facts: Mapping[str, Any] = found if isinstance(found, dict) else {}
    size = facts.get("size")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise CheckpointError(f"{path}{CARD_SUFFIX} describes no exported file: write both again with avseg export")
    if facts.get("sha256") != sha256(path):
        raise CheckpointError(f"{path} is not the file described by {path.name}{CARD_SUFFIX}: export it again")


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"{path} needs onnxruntime, which is not installed: pip install -e '.[onnx]' in the checkout of avseg"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the classes of ONNX Runtime have no common base
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"ONNX Runtime cannot read {path} ({reason}): export it again") from error
