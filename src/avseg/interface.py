"""READ FIRST. The four records every part of avseg speaks in.

``Clip`` → a model → ``Prediction``; ``Target`` is what the prediction should have been.

Shape letters, here and everywhere: B clips, T frames per clip (one per second of sound), H × W pixels,
K output channels of a model, D numbers of an audio embedding.

A task with one class (AVSBench S4, MS3: "what sounds") has K = 1 and labels 0, 1 or, where the data names what
sounds, 0 and its category: all but 0 sounds. A task with several (AVSS, VPO) has one channel per class, channel 0
being the background. Label 255 is never scored.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from avseg.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

IGNORE = 255
"""Label of pixels that neither train nor score."""
SPLITS = ("train", "val", "test")
"""Names of the parts of every data set."""
TRAINING = "training"
"""The part of a model that answers never run."""


class _Record:
    """Moves the tensors of a dataclass; floating tensors alone change their type."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy on ``device``, its floating tensors as ``dtype``."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, dtype if value.is_floating_point() else None)

        return self._map(move)

    def pin_memory(self) -> Self:
        """A copy in page-locked memory (called by torch's DataLoader)."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        values = {f.name: _apply(function, getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return type(self)(**values)

    def __repr__(self) -> str:
        values = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={_shapes(value)}' for name, value in values)})"


def _apply(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """``function`` of each tensor in a value, a tuple or a dictionary; anything else as it is."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_apply(function, v) for v in value)
    if isinstance(value, dict):
        return {k: _apply(function, v) for k, v in value.items()}
    return value


def _shapes(value: Any) -> str:
    """Shapes instead of pixels."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape)) if value.ndim else f"{value.item():.4g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shapes, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {_shapes(v)}' for k, v in value.items())}}}"
    return repr(value)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Clip(_Record):
    """What a model sees and hears.

    Attributes:
        frames: (B, T, 3, H, W) pictures, RGB in 0..1 minus the ImageNet mean over its deviation.
        audio: (B, T, 1, 96, 64) log-mel patches from :func:`avseg.log_mel`, (B, T, 2, 96, 64) for stereo, or
            (B, T, D) embeddings, with which a model skips its audio encoder.
        valid: (B, T) bool; False marks frames that were added as padding. All True when left out.

    Raises:
        ValueError: When ranks or leading sizes do not agree.
    """

    frames: Tensor
    audio: Tensor
    valid: Tensor

    def __init__(self, frames: Tensor, audio: Tensor, valid: Tensor | None = None) -> None:
        if valid is None:
            valid = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        object.__setattr__(self, "frames", frames)
        object.__setattr__(self, "audio", audio)
        object.__setattr__(self, "valid", valid)
        if frames.ndim != 5 or frames.shape[2] != 3:
            raise ValueError(f"frames must be (B, T, 3, H, W), got {tuple(frames.shape)}")
        if not (audio.ndim == 3 or (audio.ndim == 5 and audio.shape[2] in (1, 2))):
            raise ValueError(f"audio must be log-mel (B, T, 1, 96, 64) or (B, T, D), got {tuple(audio.shape)}")
        if valid.dtype != torch.bool:
            raise ValueError(f"valid must be bool, got {valid.dtype}")
        leading = tuple(frames.shape[:2]), tuple(audio.shape[:2]), tuple(valid.shape)
        if len(set(leading)) != 1:
            raise ValueError(f"frames, audio and valid must agree on (B, T), got {leading}")
        if 0 in frames.shape:
            raise ValueError(f"a clip needs at least one frame and one pixel, got {tuple(frames.shape)}")


@dataclass(frozen=True, eq=False, repr=False)
class Target(_Record):
    """What should have been predicted.

    Attributes:
        masks: (B, T, H, W) int64 labels: 0 background, 1.. what sounds, 255 ignored. With one class, 1 or any
            category sounds all the same. As large as the frames, but for scores at the original resolution.
        labelled: (B, T) bool; only these frames train. S4's first-frame supervision is
            ``[True, False, False, False, False]``; MS3 and AVSS label all frames; padding is False.

    Raises:
        ValueError: When ranks, types or leading sizes do not agree.
    """

    masks: Tensor
    labelled: Tensor

    def __post_init__(self) -> None:
        if self.masks.ndim != 4 or self.masks.dtype != torch.int64:
            raise ValueError(f"masks must be (B, T, H, W) int64, got {tuple(self.masks.shape)} {self.masks.dtype}")
        if self.labelled.dtype != torch.bool or self.labelled.shape != self.masks.shape[:2]:
            raise ValueError(
                f"labelled must be bool {tuple(self.masks.shape[:2])} like masks, "
                f"got {tuple(self.labelled.shape)} {self.labelled.dtype}"
            )


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(_Record):
    """What a model answers.

    Attributes:
        logits: (B, T, K, H, W), before sigmoid (K = 1) or softmax (K > 1), at the size of the frames.
        aux: Outputs of deeper stages, deepest last, each shaped like ``logits``; they train, nothing else.
        scalars: Named numbers worth a curve, such as ``"keep_ratio/4"``.
        maps: Named tensors worth a picture, (B, T, G, h, w) each, such as ``"attention/avga4"``; filled
            when the model is called with ``maps=True``.
        state: What a model's own loss needs besides; nobody else reads it.
    """

    logits: Tensor
    aux: tuple[Tensor, ...] = ()
    scalars: Mapping[str, Tensor] = field(default_factory=dict)
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    state: Any = None

    @cached_property
    def probabilities(self) -> Tensor:
        """(B, T, K, H, W): sigmoid for one class, softmax over K for several."""
        return self.logits.sigmoid() if self.logits.shape[2] == 1 else self.logits.softmax(2)

    def at(self, size: tuple[int, int]) -> Prediction:
        """The same answer at another height and width: logits resized bilinearly, before any decision."""
        if self.logits.shape[-2:] == size:
            return self

        def resized(logits: Tensor) -> Tensor:
            larger: Tensor = interpolate(logits.flatten(0, 1), size, mode="bilinear").unflatten(0, logits.shape[:2])
            return larger

        return dataclasses.replace(self, logits=resized(self.logits), aux=tuple(map(resized, self.aux)))

    @cached_property
    def masks(self) -> Tensor:
        """(B, T, H, W): bool (probability > 0.5) for one class, int64 labels for several."""
        return self.logits[:, :, 0] > 0 if self.logits.shape[2] == 1 else self.logits.argmax(2)


class Source(NamedTuple):
    """Where a tensor of ours is in a foreign checkpoint.

    Attributes:
        key: Its key there.
        half: 0 or 1 when it is the first or second half of that tensor's rows; None when it is all of it.
    """

    key: str
    half: int | None = None


class Adopted(NamedTuple):
    """A foreign checkpoint in our terms.

    Attributes:
        config: The model's settings that reproduce the release.
        classes: K.
        source: Our key → where it is in the checkpoint.
        unused: Prefixes of keys that the release stores and never runs.
    """

    config: Any
    classes: int
    source: Callable[[str], Source]
    unused: tuple[str, ...] = ()


class AVSModel(nn.Module, ABC):
    """An audio-visual segmentation model. Subclasses are final: share code by calling it, not by inheriting.

    A subclass lives in ``models/<name>.py``; the file name is the name for :func:`avseg.build`.

    Attributes:
        Config: Frozen dataclass declared inside the class; every field has a default, the paper's choice.
        paper: arXiv id.
        parts: Name of a part (backbone, audio, fusion, decoder) → prefixes of its submodules, for cost tables. What
            training alone runs is the part :data:`TRAINING`.
        config: The instance's settings.
        classes: K, from the data.
        card: What is known about the weights; filled by :func:`avseg.load`.
    """

    Config: ClassVar[type[Any]]
    paper: ClassVar[str]
    parts: ClassVar[Mapping[str, tuple[str, ...]]]

    def __init__(self, config: Any, classes: int) -> None:
        super().__init__()
        if classes < 1:
            raise ConfigError(f"classes must be 1 (what sounds) or more (background + classes), got {classes}")
        self.config = config
        self.classes = classes
        self.card: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The name :func:`avseg.build` knows the model by."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @abstractmethod
    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        """Answer a clip.

        Args:
            clip: Any T, H, W.
            target: Given in training alone, for models that fit something from labels. An answer must never
                need it.
            maps: Fill :attr:`Prediction.maps`.
        """

    @abstractmethod
    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """Named terms of the training objective, already weighted: their sum is minimised."""

    @classmethod
    def adopt(cls, state: Mapping[str, Tensor]) -> Adopted | None:
        """What a checkpoint of the authors' release holds, or None if it is not one of this model's.

        Args:
            state: The state dict, without ``module.`` prefixes.
        """
        return None

    @classmethod
    def published(cls, config: Any) -> tuple[Any, int] | None:
        """How the paper counted the cost of ``config``: the config it measured, and parameters that never run.

        None if it says nothing of its cost.
        """
        return None


def make_config(owner: Any, settings: Mapping[str, Any]) -> Any:
    """``owner.Config`` from keyword settings.

    Args:
        owner: A class with a dataclass ``Config`` inside: a model, a data set.
        settings: Fields; what is left out takes its default.

    Raises:
        ConfigError: When a key is unknown (names the closest) or a value is refused by the config.
    """
    known = {f.name for f in dataclasses.fields(owner.Config)}
    for key in settings:
        if key not in known:
            raise ConfigError(f"unknown setting {key!r} of {owner.__name__}. {did_you_mean(key, known)}")
    hints = get_type_hints(owner.Config)
    for key, value in settings.items():
        if get_origin(hints[key]) is Literal and value not in get_args(hints[key]):
            raise ConfigError(f"{key} = {value!r} does not exist. {did_you_mean(str(value), get_args(hints[key]))}")
    try:
        return owner.Config(**settings)
    except TypeError as error:  # such as a word where a number is compared
        raise ConfigError(f"a setting of {owner.__name__} has the wrong type: {error}") from error
