"""Data of a prediction: the regions of every frame of a video, and arrays derived from them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from avseg.errors import ConfigError
from avseg.media import rle
from avseg.prediction.grey_maps import GreyMap
from avseg.prediction.objects import NamedObject, best
from avseg.prediction.regions import Frame
from avseg.prediction.soft_masks import SoftMaskReader
from avseg.prediction.uncertainty import UncertaintyMap, unpack

MIN_AREA = 0.001
"""Share of the frame that a class must cover to count as sounding in :attr:`Record.intervals`."""


class Interval(NamedTuple):
    """A time span in which a class sounds.

    Attributes:
        start: Onset in seconds.
        end: Offset in seconds.
        name: Name of the class.
    """

    start: float
    end: float
    name: str


class Masks:
    """An (N, H, W) array whose frames are decoded on access.

    ``masks[3]`` is (H, W), ``masks[10:20]`` is (10, H, W), ``np.asarray(masks)`` decodes all frames.

    Args:
        make: Returns frame k, (H, W).
        shape: (N, H, W).
        dtype: Type of the values.
    """

    def __init__(self, make: Callable[[int], NDArray[Any]], shape: tuple[int, int, int], dtype: DTypeLike) -> None:
        self._make = make
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.ndim = 3

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self._make(i) for i in range(len(self)))

    def __getitem__(self, index: int | slice) -> NDArray[Any]:
        if isinstance(index, slice):
            chosen = [self._make(i) for i in range(*index.indices(len(self)))]
            return np.stack(chosen) if chosen else np.zeros((0, *self.shape[1:]), self.dtype)
        return self._make(range(len(self))[index])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("masks are decoded on access: an array of them is always a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"Masks(shape={self.shape}, dtype={self.dtype})"


@dataclass(frozen=True, eq=False)
class Record:
    """The regions of the sounding classes in every frame of a video.

    Attributes:
        source: The video.
        size: (H, W) of its frames, as displayed.
        class_names: Label → name; the first is the background.
        frames: One entry per frame; about 6 kB each at 720p, up to 4 kB more with uncertainty.
        end: End of the last frame, in seconds since the start of the file.
        model: Name of the model.
        options: Settings of the prediction.
        notes: Warnings, such as that the sound track is silent.
        weights_sha256: SHA-256 of the file of the model's weights, in hexadecimal; None for a model in memory.
        version: Version of avseg that made the prediction; None in results before it was recorded.
    """

    source: Path
    size: tuple[int, int]
    class_names: tuple[str, ...]
    frames: Sequence[Frame] = field(repr=False)
    end: float
    model: str
    options: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    weights_sha256: str | None = None
    version: str | None = field(default_factory=lambda: version("avseg"))

    @property
    def masks(self) -> Masks:
        """Return (N, H, W) bool: pixels of any sounding class; decoded on access."""
        return Masks(self._foreground, (len(self.frames), *self.size), bool)

    @property
    def labels(self) -> Masks:
        """Return (N, H, W) uint8: class of every pixel, 0 for the background; decoded on access."""
        return Masks(self._labels, (len(self.frames), *self.size), np.uint8)

    @property
    def probabilities(self) -> Masks:
        """Return (N, H, W) float32: probability 0..1 that a pixel belongs to a sounding class, before the threshold.

        It is computed on access from a small map (:mod:`avseg.prediction.soft_masks`) and the frame of the video,
        which is read again unless the prediction was made with ``upsampling="bilinear"``. Reading in order is
        fastest.

        Raises:
            ConfigError: When a result of an earlier version of avseg has none.
            MediaError: On access, when the video cannot be read.
        """
        maps = self.probability_maps()
        guided = self.options.get("upsampling") != "bilinear"
        reader = SoftMaskReader(self.source, self.times, maps, self.size, guided=guided, threshold=self.threshold)
        return Masks(reader, (len(maps), *self.size), np.float32)

    @property
    def threshold(self) -> float:
        """Return the probability above which a pixel belongs to a mask."""
        return float(self.options.get("threshold", 0.5))

    def probability_maps(self) -> list[GreyMap]:
        """Return the small probability map of every frame.

        Raises:
            ConfigError: When a result of an earlier version of avseg has none.
        """
        maps = [frame.probability for frame in self.frames if frame.probability is not None]
        if len(maps) != len(self.frames):
            raise no_probabilities(self)
        return maps

    @property
    def has_uncertainty(self) -> bool:
        """Return whether uncertainty was requested: ``predict(..., show="uncertainty")``."""
        return any(frame.uncertainty is not None for frame in self.frames)

    @property
    def uncertainty(self) -> Masks:
        """Return (N, H, W) float32: uncertainty of every pixel, 0..1; decoded on access.

        Raises:
            ConfigError: When it was not requested.
        """
        maps = self._uncertainty_maps()
        return Masks(self._uncertainty, (len(maps), *self.size), np.float32)

    @cached_property
    def mean_uncertainty(self) -> NDArray[np.float64]:
        """Return the mean uncertainty of every frame, (N,).

        Raises:
            ConfigError: When it was not requested.
        """
        return np.array([found.mean for found in self._uncertainty_maps()])

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """Return the start of every frame, (N,), in seconds since the start of the file."""
        return np.array([frame.time for frame in self.frames])

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """Return the pixels per frame and class, (N, K); column 0, the background, is 0."""
        areas = np.zeros((len(self.frames), len(self.class_names)), np.int64)
        for row, frame in zip(areas, self.frames, strict=True):
            for region in frame.regions:
                row[region.label] = rle.area(region.rle)
        return areas

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """Return (N,): mean probability of the predicted class over the pixels of the mask; 0 for an empty mask."""
        sums = [
            sum(region.score * self.areas[i, region.label] for region in frame.regions)
            for i, frame in enumerate(self.frames)
        ]
        pixels: NDArray[np.int64] = np.maximum(self.areas.sum(1), 1)
        return np.array(sums, np.float64) / pixels

    @cached_property
    def intervals(self) -> list[Interval]:
        """Return the time spans in which a class covers more than a thousandth of the frame, sorted by onset.

        A span starts with the first such frame and ends with the last one.
        """
        edges = np.append(self.times, self.end)
        sounding = self.areas > MIN_AREA * self.size[0] * self.size[1]
        found = []
        for label, name in enumerate(self.class_names):
            padded = np.concatenate(([False], sounding[:, label], [False]))
            for first, last in np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2):
                found.append(Interval(float(edges[first]), float(edges[last]), name))
        return sorted(found)

    @cached_property
    def objects(self) -> list[NamedObject | None]:
        """Return the kind of object of each of :attr:`intervals`; None without kinds or a high score."""
        spans = np.searchsorted(self.times, [(i.start, i.end) for i in self.intervals]).reshape(-1, 2).tolist()
        return [best(frame.objects for frame in self.frames[first:last]) for first, last in spans]

    @property
    def captions(self) -> list[str]:
        """Return the object's name of each of :attr:`intervals`, or the class name if the object has none."""
        pairs = zip(self.intervals, self.objects, strict=True)
        return [interval.name if found is None else found.name for interval, found in pairs]

    # Bound methods, not functions in functions: masks can be pickled, as a DataLoader with workers needs.
    def _foreground(self, index: int) -> NDArray[np.bool_]:
        return self._labels(index) > 0

    def _uncertainty(self, index: int) -> NDArray[np.float32]:
        found = self.frames[index].uncertainty
        if found is None:
            raise ConfigError(f"frame {index} has no uncertainty")
        return unpack(found, self.size)

    def _labels(self, index: int) -> NDArray[np.uint8]:
        columns = np.zeros(self.size[::-1], np.uint8)  # run lengths go down the columns: each in consecutive memory
        for region in self.frames[index].regions:
            columns[rle.decode(region.rle).T] = region.label
        return np.ascontiguousarray(columns.T)

    def _uncertainty_maps(self) -> list[UncertaintyMap]:
        maps = [frame.uncertainty for frame in self.frames if frame.uncertainty is not None]
        if len(maps) != len(self.frames):
            raise ConfigError(
                f"this result of {self.model} has no uncertainty: predict again with show uncertainty "
                "(--show uncertainty) and a model that estimates it"
            )
        return maps


def captioned(record: Record) -> list[Interval]:
    """Return the intervals, named by their captions."""
    pairs = zip(record.intervals, record.captions, strict=True)
    return [interval._replace(name=caption) for interval, caption in pairs]


def no_probabilities(record: Record) -> ConfigError:
    """Return the error for a result without probabilities."""
    return ConfigError(f"this result of {record.source.name} has no probabilities: predict the video again")
