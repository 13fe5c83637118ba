"""Base class of data sets on disk: reads frames, masks and audio of listed clips into a ``Sample``.

A subclass lists its files (:meth:`FileDataset.find`) and maps a mask file to labels (:meth:`FileDataset.labels`);
reading, resizing, normalisation, log-mel and padding are implemented here. Data sets without one file per frame or
sound (videos, mixed sounds) override :meth:`FileDataset.shots` or :meth:`FileDataset.log_mel_of`.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from avseg.data._base import AVSDataset, Sample, check_pixels, height_width, lengthen
from avseg.data._log_mel import Short, cached, consecutive, one_per_frame
from avseg.data._pickles import read_log_mel
from avseg.errors import ConfigError, DataError
from avseg.interface import IGNORE, Clip, Target
from avseg.media.images import Resize, fitted, normalise, read_picture
from avseg.media.sound import read_sound
from avseg.mel import log_mel_at

Labels = NDArray[np.int64]


class NoClipsError(DataError):
    """A split that is empty or missing, while the others can be used."""


class Entry(NamedTuple):
    """One clip on disk.

    Attributes:
        name: Unique, stable name; ``"category/name"`` if there are categories, for scores per category.
        frames: Frame files, in order.
        masks: One mask file per frame; None for a frame without labels.
        sounds: The audio file, or several that are mixed.
        notes: Further data of the clip, defined by the data set.
    """

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    sounds: tuple[Path, ...]
    notes: Any = None


class Shot(NamedTuple):
    """One frame as stored.

    Attributes:
        picture: RGB image.
        labels: (H, W), or None if the frame is not labelled.
    """

    picture: Image.Image
    labels: Labels | None


AudioPatches = Literal["wav", "wav_centred", "pkl"]


class Part(NamedTuple):
    """One file of a clip, with a function that checks it.

    Attributes:
        kind: ``"frames"``, ``"masks"`` or ``"sounds"``.
        path: The file.
        read: Reads the file and returns width and height of an image, None for audio; raises ``DataError``.
    """

    kind: str
    path: Path
    read: Callable[[Path], tuple[int, int] | None]


@dataclass(frozen=True)
class FileConfig:
    """Settings of every data set on disk.

    Attributes:
        root: Folder of the data set.
        size: Side of the resized, square frames, or (height, width); 0 keeps the stored size.
        resize: "squash": resize the whole frame, changing its aspect ratio. "crop": resize the centre crop of the
            target's aspect ratio. "native": keep the stored size, independent of ``size``.
        original_masks: In val and test, keep masks as stored while frames are resized, so that scores are at the
            original resolution. In the train split, masks always have the size of
            the frames.
        audio: "wav": consecutive patches of 0.96 s from the start of the audio, as in AVSBench's code, so that the
            patch of frame k, from 0, begins 40 k ms before second k. "wav_centred": the patch centred on the time of
            each frame. "pkl": the released log-mel pickles of S4 and MS3, read without executing code in them.
        cache: Folder to cache log-mel patches in; null for no cache.
    """

    root: str = ""
    size: int | tuple[int, int] = 224
    resize: Resize = "squash"
    original_masks: bool = False
    audio: AudioPatches = "wav"
    cache: str | None = None

    def __post_init__(self) -> None:
        if min(self.shape) < 0:
            raise ConfigError(f"size must be 0 (as stored) or more, got {self.size}")
        check_pixels(*self.shape)
        if self.original_masks and self.resize == "crop":
            raise ConfigError("original_masks needs whole frames: set resize to squash or native, got crop")

    @property
    def shape(self) -> tuple[int, int]:
        """Return height and width; 0 for the stored size."""
        return height_width(self.size)


class FileDataset(AVSDataset):
    """Base class of the data sets on disk. Subclasses are final; files are read on access.

    Args:
        config: Settings, a :class:`FileConfig`.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Attributes:
        root: Folder of the data set.
        short: Padding of audio that is shorter than the clip, see :func:`avseg.data._log_mel.consecutive`.
        mark: File by which a folder is recognised, for messages.
        ignored: Names of files and folders that belong to the layout and are not read.
    """

    short: ClassVar[Short] = "last"
    mark: ClassVar[str] = ""
    ignored: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: Any, split: str) -> None:
        self.config = config
        self.split = split

    @classmethod
    def recognise(cls, root: Path) -> list[dict[str, Any]]:
        """Return the settings of each data set of this layout in a folder; empty for another layout."""
        return [{"root": str(root)}] if cls.mark and (root / cls.mark).is_file() else []

    @property
    def published(self) -> int | None:
        """Return the published number of clips of this split; None for the user's own data."""
        return None

    @property
    def resize(self) -> Resize:
        """Return the resize mode of this split."""
        resize: Resize = self.config.resize
        return resize

    @property
    def padded_to(self) -> int:
        """Return the T to which shorter clips are padded with invalid frames; 0 for no padding."""
        return 0

    @property
    def masks_fit(self) -> bool:
        """Return whether masks are stored at the size of the frames; if so, a different size is an error."""
        return True

    @property
    def root(self) -> Path:
        """Return the folder of the data set."""
        if not self.config.root:
            raise DataError("no folder given. Set root (--data.root) to the folder of the data set")
        return Path(self.config.root)

    @abstractmethod
    def find(self) -> list[Entry]:
        """List the clips of the split, in a stable order, without opening images or audio.

        Raises:
            DataError: When the list is missing or not valid.
        """

    @abstractmethod
    def labels(self, path: Path) -> Labels:
        """Read the (H, W) labels of a mask file: 0 background, 255 not scored.

        Raises:
            DataError: When it is missing, cannot be read, or has labels without a class.
        """

    @cached_property
    def entries(self) -> list[Entry]:
        """Return the clips of the split.

        Raises:
            NoClipsError: When there are none.
            DataError: When the list is missing or not valid.
        """
        found = self.find()
        if not found:
            raise NoClipsError(f"no clips in the split {self.split!r} of {self.root}")
        return found

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        entry = self.entries[index]
        shots = self.shots(entry)
        frames = normalise(torch.from_numpy(_stacked([np.asarray(self._fit(s.picture)) for s in shots], entry)))
        found = [None if s.labels is None else self._fit_labels(s.labels, s.picture) for s in shots]
        shape = next((m.shape for m in found if m is not None), frames.shape[-2:])
        masks = _stacked([np.zeros(shape, np.int64) if m is None else m for m in found], entry)
        labelled = torch.tensor([[m is not None for m in found]])
        target = Target(torch.from_numpy(masks)[None], labelled)
        return lengthen(Sample(Clip(frames[None], self.log_mel_of(entry)[None]), target, [entry.name]), self.padded_to)

    def shots(self, entry: Entry) -> list[Shot]:
        """Read the frames of a clip and their labels, as stored.

        Raises:
            DataError: When a file is missing or cannot be read, or a mask does not fit its frame.
        """
        return [self._shot(*files) for files in zip(entry.frames, entry.masks, strict=True)]

    def picture(self, path: Path) -> Image.Image:
        """Read a frame as RGB image."""
        return read_picture(existing(path, "every frame needs an image"))

    def sound(self, path: Path) -> Tensor:
        """Read an audio file, (n,) float32 at 16 kHz.

        Raises:
            DataError: When it is missing, cannot be read, or has no samples.
        """
        waveform = torch.from_numpy(read_sound(existing(path, "every clip needs an audio file")))
        if not waveform.numel():
            raise DataError(f"{path} has no samples: give the audio of the clip")
        return waveform

    def log_mel_of(self, entry: Entry) -> Tensor:
        """Return the log-mel patches of a clip: (T, 1, 96, 64), or (T, 2, 96, 64) for stereo.

        Raises:
            DataError: When an audio file cannot be used.
        """
        how = f"{self.config.audio} {len(entry.frames)} {self.phase} {self.short}"
        return cached(self.config.cache, entry.sounds, how, lambda: self._read_log_mel(entry))

    def parts(self, entry: Entry) -> Iterator[Part]:
        """Yield the files of a clip, beginning with the first frame, for ``avseg data check``."""

        def picture(path: Path) -> tuple[int, int]:
            return self.picture(path).size

        def mask(path: Path) -> tuple[int, int]:
            height, width = self.labels(path).shape
            return width, height

        def sound(path: Path) -> None:
            if len(entry.sounds) == 1:
                self.log_mel_of(entry)
            else:
                self.sound(path)

        yield from (Part("frames", path, picture) for path in entry.frames)
        yield from (Part("masks", path, mask) for path in entry.masks if path is not None)
        yield from (Part("sounds", path, sound) for path in entry.sounds)

    def _read_log_mel(self, entry: Entry) -> Tensor:
        (path,), count = entry.sounds, len(entry.frames)
        if self.config.audio == "pkl":
            return one_per_frame(read_log_mel(path), count, self.short, path)
        if self.config.audio == "wav_centred":
            return log_mel_at(self.sound(path), torch.arange(count) + self.phase)
        return consecutive(self.sound(path), count, self.short, path)

    def _shot(self, frame: Path, mask: Path | None) -> Shot:
        picture, labels = self.picture(frame), None if mask is None else self.labels(mask)
        if self.masks_fit and labels is not None and labels.shape[::-1] != picture.size:
            raise DataError(f"{mask} is {labels.shape[::-1]} pixels, its frame is {picture.size}")
        return Shot(picture, labels)

    def _fit(self, picture: Image.Image) -> Image.Image:
        return fitted(picture, self.config.shape, self.resize, Image.Resampling.BILINEAR)

    def _fit_labels(self, labels: Labels, picture: Image.Image) -> Labels:
        """Resize labels to the model's input, or keep the stored size with ``original_masks``."""
        if self.config.original_masks and self.split != "train":
            return labels
        stored = Image.fromarray(labels.astype(np.uint8))
        if stored.size != picture.size:
            stored = stored.resize(picture.size, Image.Resampling.NEAREST)
        small = fitted(stored, self.config.shape, self.resize, Image.Resampling.NEAREST)
        return np.asarray(small).astype(np.int64)


def existing(path: Path, rule: str) -> Path:
    """Return the path of an existing file.

    Raises:
        DataError: When there is no such file; ``rule`` is the reason why it is needed.
    """
    if not path.is_file():
        raise DataError(f"no {path}: {rule}")
    return path


def check_labels(labels: Labels, path: Path, classes: int, source: str) -> Labels:
    """Return the labels after checking that each has a class.

    Args:
        labels: (H, W).
        path: The mask file, named in the error.
        classes: Number of classes, background included.
        source: Source of the class names, named in the error.

    Raises:
        DataError: When a label is neither in 0 … ``classes`` - 1 nor 255.
    """
    top = labels.max(initial=0, where=labels != IGNORE)
    if top >= classes:
        raise DataError(f"{path} holds label {top}, but {source} names {classes} classes")
    return labels


def _stacked(arrays: list[Any], entry: Entry) -> NDArray[Any]:
    sizes = sorted({a.shape[:2] for a in arrays})
    if len(sizes) > 1:
        raise DataError(f"the frames of {entry.name} differ in size, got {sizes[0]} and {sizes[1]}: make them equal")
    return np.stack(arrays)
