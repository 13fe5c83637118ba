"""Base class of data sets: indexed samples of one ``Clip`` and its ``Target``, and class names."""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from avseg.errors import ConfigError, DataError
from avseg.interface import Clip, Target

MOST_PIXELS = 100_000_000
"""Largest number of pixels of a clip: 1.2 GB as 32-bit numbers."""


class Sample(NamedTuple):
    """One clip (B = 1) or a batch of them.

    Attributes:
        clip: Input of the model.
        target: Ground truth.
        names: One unique, stable name per clip.
    """

    clip: Clip
    target: Target
    names: list[str]


class AVSDataset(Dataset[Sample]):
    """Base of all data sets. A subclass lives in ``data/<name>.py``.

    Attributes:
        class_names: Label → name. ``("background", "sounding")`` for one-class tasks.
        classes: K of a model for this data: 1 if there are two names, else one per name.
        category_names: Label → name of the labels in the masks; ``class_names``, unless the masks of a one-class task
            hold the category of the sounding object.
        categories: Number of categories in the masks, without the background.
        phase: Offset of a frame within its second: frame k is at k + ``phase`` s.
    """

    class_names: tuple[str, ...]
    phase: ClassVar[float] = 0.5

    @property
    def classes(self) -> int:
        """Return K, the number of output channels of a model for this data."""
        return 1 if len(self.class_names) == 2 else len(self.class_names)

    @property
    def category_names(self) -> tuple[str, ...]:
        """Return label → name of the labels in the masks."""
        return self.class_names

    @property
    def categories(self) -> int:
        """Return the number of categories in the masks, without the background."""
        return len(self.category_names) - 1

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of clips."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return clip ``index``, with B = 1; the same sample for the same index, in every process."""


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of the setting ``size``: the side of a square, or both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def collate(samples: list[Sample]) -> Sample:
    """Collate samples of equal size into a batch; shorter clips are padded with invalid, unlabelled frames.

    Raises:
        DataError: When heights and widths differ.
    """
    _check_sizes("clips", {s.clip.frames.shape[-2:]: s.names[0] for s in samples}, "set a size, or batch_size 1")
    _check_sizes("masks", {s.target.masks.shape[-2:]: s.names[0] for s in samples}, "set batch_size 1")
    longest = max(s.clip.frames.shape[1] for s in samples)
    samples = [lengthen(s, longest) for s in samples]
    clip = Clip(
        torch.cat([s.clip.frames for s in samples]),
        torch.cat([s.clip.audio for s in samples]),
        torch.cat([s.clip.valid for s in samples]),
    )
    target = Target(torch.cat([s.target.masks for s in samples]), torch.cat([s.target.labelled for s in samples]))
    return Sample(clip, target, [name for s in samples for name in s.names])


def check_pixels(height: int, width: int, frames: int = 1) -> None:
    """Raise ConfigError if clips of these settings have more than :data:`MOST_PIXELS` pixels."""
    if height * width * frames > MOST_PIXELS:
        raise ConfigError(
            f"{frames} frames of {width} x {height} pixels are more than {MOST_PIXELS // 10**6} megapixels per clip: "
            "set a smaller size, or fewer frames"
        )


def lengthen(sample: Sample, frames: int) -> Sample:
    """Pad a sample to at least ``frames`` frames.

    Padding frames are 0 in frames and log-mel (mean grey; not silence), invalid, unlabelled, and have label 0.
    """

    def longer(x: Tensor) -> Tensor:
        return pad(x, (0, 0) * (x.ndim - 2) + (0, max(frames - x.shape[1], 0)))

    clip, target = sample.clip, sample.target
    return Sample(
        Clip(longer(clip.frames), longer(clip.audio), longer(clip.valid)),
        Target(longer(target.masks), longer(target.labelled)),
        sample.names,
    )


def _check_sizes(what: str, sizes: dict[torch.Size, str], remedy: str) -> None:
    """Raise DataError for unequal sizes, naming one clip of each size."""
    if len(sizes) > 1:
        found = ", ".join(f"{name} {tuple(size)}" for size, name in sizes.items())
        raise DataError(f"{what} of one batch must agree in height and width, got {found}: {remedy}")
