"""READ FIRST. The records that all parts of avseg exchange, and the base class of models.

A model maps a ``Clip`` to a ``Prediction``; ``Target`` is the ground truth.

Shape letters, here and everywhere: B clips, T frames per clip (one per second of sound), H × W pixels,
K output channels of a model, D numbers of an audio embedding.

A task with one class (AVSBench S4, MS3: sounding or not) has K = 1. Its labels are 0 for the background and, for
sounding objects, 1 or the number of a category. A task with several classes (AVSS, VPO) has one channel per class;
channel 0 is the background. Label 255 is never scored.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from avseg import model_folder
from avseg.errors import ConfigError, did_you_mean
from avseg.registry import name_of
from avseg.settings import LARGEST, fits, in_bounds, named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from typing_extensions import Self

IGNORE = 255
"""Label of pixels that are ignored in losses and scores."""
SPLITS = ("train", "val", "test")
"""Names of the splits of every data set."""
TRAINING = "training"
"""Name of the part of a model that only training runs, see :attr:`AVSModel.parts`."""


class _Record:
    """Base of dataclasses of tensors, which move between devices as a whole."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Return a copy on ``device``, with floating-point tensors converted to ``dtype``."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, dtype if value.is_floating_point() else None)

        return self._map(move)

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory (called by torch's DataLoader)."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        values = {f.name: _apply(function, getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return type(self)(**values)

    def __repr__(self) -> str:
        values = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={_shapes(value)}' for name, value in values)})"


def _apply(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply ``function`` to each tensor in a value, tuple or dictionary; return anything else unchanged."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_apply(function, v) for v in value)
    if isinstance(value, dict):
        return {k: _apply(function, v) for k, v in value.items()}
    return value


def _shapes(value: Any) -> str:
    """Return a text with the shapes of tensors instead of their values."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape)) if value.ndim else f"{value.item():.4g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shapes, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {_shapes(v)}' for k, v in value.items())}}}"
    return repr(value)


def _has_non_finite(values: Tensor) -> bool:
    """Return whether a CPU tensor holds NaN or infinity; False on other devices and while a graph is traced.

    Other devices are not checked because reading the result would wait for the device.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if traced or values.device.type != "cpu" or not values.is_floating_point():
        return False
    # One sum is several times faster than isfinite; only a sum that overflows needs the second pass.
    values = values.detach()
    return not math.isfinite(values.sum(dtype=torch.float32)) and not bool(values.isfinite().all())


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Clip(_Record):
    """Input of a model: frames and audio.

    Attributes:
        frames: (B, T, 3, H, W), RGB in 0..1, normalised with the ImageNet mean and standard deviation.
        audio: (B, T, 1, 96, 64) log-mel patches from :func:`avseg.log_mel`, (B, T, 2, 96, 64) for stereo, or
            (B, T, D) embeddings, for which a model skips its audio encoder.
        valid: (B, T) bool; False marks padding frames. All True by default.

    Raises:
        ValueError: When ranks or leading sizes do not agree, or a value is NaN or infinite.
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
        # Symbolic sizes of torch.export have no hash; a pair of comparisons leaves one guard each in its graph.
        leading = tuple(frames.shape[:2]), tuple(audio.shape[:2]), tuple(valid.shape)
        if leading[0] != leading[1] or leading[0] != leading[2]:
            raise ValueError(f"frames, audio and valid must agree on (B, T), got {leading}")
        if 0 in frames.shape:
            raise ValueError(f"a clip needs at least one frame and one pixel, got {tuple(frames.shape)}")
        for name, values in (("frames", frames), ("audio", audio)):
            if _has_non_finite(values):
                raise ValueError(f"{name} must be finite, got NaN or infinity: check the decoding and normalisation")


@dataclass(frozen=True, eq=False, repr=False)
class Target(_Record):
    """Ground truth of a clip.

    Attributes:
        masks: (B, T, H, W) int64 labels: 0 background, 1.. sounding objects, 255 ignored. With one class, all labels
            from 1 to 254 count as sounding. The size is that of the frames, or larger to score at the original
            resolution.
        labelled: (B, T) bool; only these frames are used in losses and scores. The first-frame supervision of S4 is
            ``[True, False, False, False, False]``; MS3 and AVSS label all frames; padding frames are False.

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
    """Output of a model.

    Attributes:
        logits: (B, T, K, H, W), before sigmoid (K = 1) or softmax (K > 1), at the size of the frames.
        aux: Outputs of deeper stages, deepest last, each shaped like ``logits``; used in losses only.
        scalars: Named numbers to log, such as ``"keep_ratio/4"``.
        maps: Named tensors for figures, (B, T, G, h, w) each, such as ``"attention/avga4"``; filled when the model is
            called with ``maps=True``.
        state: Intermediate results for :meth:`AVSModel.loss`, :meth:`AVSModel.after_step` and
            :meth:`AVSModel.object_scores` of the same model.
    """

    logits: Tensor
    aux: tuple[Tensor, ...] = ()
    scalars: Mapping[str, Tensor] = field(default_factory=dict)
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    state: Any = None

    @cached_property
    def probabilities(self) -> Tensor:
        """Return (B, T, K, H, W) probabilities: sigmoid for one class, softmax over K for several."""
        return self.logits.sigmoid() if self.logits.shape[2] == 1 else self.logits.softmax(2)

    def at(self, size: tuple[int, int]) -> Prediction:
        """Return a copy with logits resized bilinearly to another height and width."""
        if self.logits.shape[-2:] == size:
            return self

        def resized(logits: Tensor) -> Tensor:
            larger: Tensor = interpolate(logits.flatten(0, 1), size, mode="bilinear").unflatten(0, logits.shape[:2])
            return larger

        return dataclasses.replace(self, logits=resized(self.logits), aux=tuple(map(resized, self.aux)))

    @cached_property
    def masks(self) -> Tensor:
        """Return (B, T, H, W) masks: bool (probability > 0.5) for one class, int64 labels for several."""
        return self.logits[:, :, 0] > 0 if self.logits.shape[2] == 1 else self.logits.argmax(2)


class Source(NamedTuple):
    """Location of a tensor in a foreign checkpoint.

    Attributes:
        key: Key in the checkpoint.
        half: 0 or 1 for the first or second half of the rows of that tensor; None for the whole tensor.
    """

    key: str
    half: int | None = None


class Adopted(NamedTuple):
    """Model settings and key mapping for a foreign checkpoint.

    Attributes:
        config: Settings of the model that reproduce the release.
        classes: K.
        source: Function from a key of our model to its location in the checkpoint.
        unused: Prefixes of keys that the release stores but does not use.
    """

    config: Any
    classes: int
    source: Callable[[str], Source]
    unused: tuple[str, ...] = ()


class AVSModel(nn.Module, ABC):
    """An audio-visual segmentation model. Subclasses are final: share code by calling it, not by inheriting.

    A subclass lives in ``models/<name>.py``; the file name is the name for :func:`avseg.build`. Other packages register
    subclasses as entry points, see :mod:`avseg.registry`.

    Attributes:
        Config: Frozen dataclass declared inside the class; every field has a default, the value of the paper.
        paper: arXiv id.
        parts: Name of a part (backbone, audio, fusion, decoder) → prefixes of its submodules, for cost tables. The
            part :data:`TRAINING` has the submodules that only training runs.
        config: Settings of the instance.
        classes: K, from the data.
        card: Metadata of the weights; filled by :func:`avseg.load`.
        optimized: Modes of :func:`avseg.optimize`, empty for a model that it did not change.
        weights_sha256: SHA-256 of the file from which :func:`avseg.load` read the weights, in hexadecimal; None
            without one.
    """

    optimized: tuple[str, ...] = ()
    Config: ClassVar[type[Any]]
    paper: ClassVar[str]
    parts: ClassVar[Mapping[str, tuple[str, ...]]]

    def __init__(self, config: Any, classes: int) -> None:
        super().__init__()
        if classes < 1:
            raise ConfigError(f"classes must be 1 (sounding or not) or more (background + classes), got {classes}")
        self.config = config
        self.classes = classes
        self.card: dict[str, Any] = {}
        self.weights_sha256: str | None = None

    @property
    def name(self) -> str:
        """Return the name with which :func:`avseg.build` finds the model."""
        return name_of(type(self), "avseg.models")

    @abstractmethod
    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        """Predict masks for a clip.

        Args:
            clip: Frames and audio of any T, H, W.
            target: Ground truth, given in training only, for models that use labels in their forward pass. The
                predicted masks must not depend on it.
            maps: Fill :attr:`Prediction.maps`.
        """

    @abstractmethod
    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """Return the weighted terms of the training objective by name; their sum is minimised.

        It changes no parameter and no buffer, so that it can be called any number of times. It may keep intermediate
        results in :attr:`Prediction.state` for :meth:`after_step`.
        """

    def after_step(self, prediction: Prediction, target: Target) -> None:
        """Update buffers that are not trained by gradient, such as running statistics. The default does nothing.

        The training module calls it after each optimizer step, without gradients: once, or with
        ``train.accumulate`` > 1 once for each batch of the step, in the order of the batches.

        Args:
            prediction: Output of :meth:`forward` in training mode, which was passed to :meth:`loss`.
            target: Ground truth of the same batch.
        """

    @property
    def object_names(self) -> tuple[str, ...]:
        """Return the names of the kinds of objects that :meth:`object_scores` scores; empty, the default, for none."""
        return ()

    def object_scores(self, prediction: Prediction) -> Tensor | None:
        """Return how well each kind of object explains the sound and the mask of every frame.

        Args:
            prediction: Output of :meth:`forward` in evaluation mode.

        Returns:
            (B, T, len(object_names)) in 0..1; None, the default, for a model that scores none.
        """
        return None

    def gate(self, confidence: float | None = None) -> None:
        """Restrict the finest decoder stages to uncertain pixels, in place; see :func:`avseg.optimize`.

        Args:
            confidence: Probability above which a pixel is certain; None takes that of the model's settings.

        Raises:
            ConfigError: When the model does not support it, which is the default.
        """
        raise ConfigError(f"{self.name} has no confidence masks to gate its decoder: leave out 'gated'")

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model to a folder that :func:`avseg.load` reads.

        Args:
            folder: Created if missing. Gets ``model.safetensors``, ``avseg.json`` with the settings and what
                :attr:`card` records, and a model card ``README.md`` unless there is one.

        Returns:
            The folder.

        Raises:
            CheckpointError: When ``folder`` is a file.
            OSError: When the folder cannot be written.
        """
        return model_folder.save_pretrained(self, folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | bool | None = None,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model with avseg",
    ) -> str:
        """Upload the files of :meth:`save_pretrained` to the Hugging Face Hub; ``avseg.load(repo_id)`` reads them.

        Args:
            repo_id: ``owner/name``; the repository is created if it does not exist.
            token: Access token with write permission; None takes the one of ``hf auth login``.
            private: Whether a new repository is private; None leaves it to the default of the owner.
            revision: Branch to commit to; None for the main branch.
            commit_message: First line of the commit.

        Returns:
            The address of the repository.

        Raises:
            CheckpointError: When the Hub refuses, with its reason.
        """
        return model_folder.push_to_hub(
            self, repo_id, token=token, private=private, revision=revision, message=commit_message
        )

    @classmethod
    def adopt(cls, state: Mapping[str, Tensor]) -> Adopted | None:
        """Recognise a checkpoint of the authors' release; None if it is not of this model.

        Args:
            state: The state dict, without ``module.`` prefixes.
        """
        return None

    @classmethod
    def published(cls, config: Any) -> tuple[Any, int] | None:
        """Return the config of which the paper reports the cost, and its number of unused parameters.

        None if the paper reports no cost.
        """
        return None


def make_config(owner: Any, settings: Mapping[str, Any]) -> Any:
    """Create ``owner.Config`` from keyword settings.

    Args:
        owner: A class with a dataclass ``Config`` inside, such as a model or a data set.
        settings: Fields; omitted fields take their default.

    Raises:
        ConfigError: When a key is unknown (the message suggests the closest) or a value is invalid.
    """
    known = {f.name for f in dataclasses.fields(owner.Config)}
    for key in settings:
        if key not in known:
            raise ConfigError(f"unknown setting {key!r} of {owner.__name__}. {did_you_mean(key, known)}")
    hints = get_type_hints(owner.Config)
    for key, value in settings.items():
        if get_origin(hints[key]) is Literal and value not in get_args(hints[key]):
            raise ConfigError(f"{key} = {value!r} does not exist. {did_you_mean(str(value), get_args(hints[key]))}")
        if not fits(value, hints[key]):
            raise ConfigError(f"{key} of {owner.__name__} must be {named(hints[key])}, got {value!r:.80}")
        if not in_bounds(value):
            raise ConfigError(f"{key} of {owner.__name__} must be at most {LARGEST}, got {value!r:.80}")
    try:
        return owner.Config(**settings)
    except TypeError as error:  # such as a list that is compared with a number
        raise ConfigError(f"a setting of {owner.__name__} has the wrong type: {error}") from error
