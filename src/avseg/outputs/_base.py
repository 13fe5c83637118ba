"""Base class of the outputs, and the frame that they receive."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from avseg.media.container import Complain, ignore, refuse
from avseg.media.video import Picture
from avseg.prediction.record import Record, no_probabilities
from avseg.prediction.soft_masks import soft_mask


@dataclass(frozen=True)
class OutputFrame:
    """One frame of a video and its prediction; arrays are decoded on first access and shared by all outputs.

    Attributes:
        record: The prediction.
        index: Index of the frame.
        picture: The frame of the video; None if no output reads the video.
    """

    record: Record
    index: int
    picture: Picture | None = None

    @property
    def time(self) -> float:
        """Return the start of the frame, in seconds since the start of the file."""
        return self.record.frames[self.index].time

    @cached_property
    def rgb(self) -> NDArray[np.uint8]:
        """Return the frame, (H, W, 3) RGB.

        Raises:
            RuntimeError: When the output does not declare ``reads_video``.
        """
        if self.picture is None:
            raise RuntimeError("an output that uses rgb must set reads_video = True")
        return self.picture.rgb()

    def yuv(self, matrix: int) -> NDArray[np.uint8]:
        """Return a new packed YUV frame, see :meth:`avseg.media.video.Picture.yuv`.

        Raises:
            RuntimeError: When the output does not declare ``reads_video``.
        """
        if self.picture is None:
            raise RuntimeError("an output that uses yuv must set reads_video = True")
        return self.picture.yuv(matrix)

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Return the class of every pixel, (H, W); 0 is the background."""
        labels: NDArray[np.uint8] = self.record.labels[self.index]
        return labels

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Return (H, W): probability 0..1 that a pixel belongs to a sounding class, as :attr:`Record.probabilities`.

        Raises:
            ConfigError: When a result of an earlier version of avseg has none.
            RuntimeError: When the output does not declare ``reads_video``.
        """
        if self.picture is None:
            raise RuntimeError("an output that uses probability must set reads_video = True")
        guided = self.record.options.get("upsampling") != "bilinear"
        found = self.record.frames[self.index].probability
        if found is None:
            raise no_probabilities(self.record)
        return soft_mask(found, self.picture if guided else None, self.record.size, self.record.threshold)

    @cached_property
    def uncertainty(self) -> NDArray[np.float32] | None:
        """Return the uncertainty of every pixel, (H, W), 0..1; None if it was not requested."""
        return self.record.uncertainty[self.index] if self.record.has_uncertainty else None


class Output:
    """One kind of output of a prediction; ``outputs/<name>.py`` holds one subclass, which is final.

    It is entered as a context, gets every frame in order, then :meth:`finish` is called.

    Args:
        record: The prediction.
        folder: Existing folder to write to.
        config: Only for a class with a ``Config``: its settings.

    Attributes:
        Config: Frozen dataclass declared inside a class that has settings; every field has a default. Its fields are
            the flags ``--NAME.FIELD`` of ``avseg predict``. None without settings.
        files: Patterns of the files it writes, relative to the folder, such as ``masks/*.png``. An earlier result is
            only overwritten if all its files match such a pattern.
        reads_video: Whether it uses :attr:`OutputFrame.rgb`. If no output does, the video is not opened.
        finishes_last: Whether it is finished after the outputs that do not set this.
        written: Name → files, relative to the folder, of all chosen outputs; none for those that are not finished.
        settings: Name → settings of all chosen outputs that have any, from :meth:`finish` on.
    """

    Config: ClassVar[type[Any] | None] = None
    files: ClassVar[tuple[str, ...]]
    reads_video: ClassVar[bool] = False
    finishes_last: ClassVar[bool] = False

    def __init__(self, record: Record, folder: Path) -> None:
        self.record, self.folder = record, folder
        self.written: Mapping[str, list[str]] = {}
        self.settings: Mapping[str, Mapping[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close open files; ``kind`` is the type of the exception if one was raised."""

    def add(self, frame: OutputFrame) -> None:
        """Write one frame."""

    def finish(self) -> None:
        """Write what depends on all frames."""

    def own_files(self) -> list[str]:
        """Return the files in the folder that match :attr:`files`, relative to it, sorted."""
        return matching(self.folder, self.files)


def matching(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Return the files in a folder that match one of the patterns, relative to it, sorted."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path.relative_to(folder).as_posix() for path in found)


def numbered(folder: str, suffix: str = "png") -> tuple[str, ...]:
    """Return the patterns of the files ``<folder>/000000.<suffix>``, and so on."""
    return tuple(f"{folder}/{'[0-9]' * digits}.{suffix}" for digits in (6, 7))


def damage(record: Record) -> Complain:
    """Return what to do with damage in the video: what was skipped in the prediction is skipped again."""
    return ignore if record.options.get("damaged") == "skip" else refuse
