"""What a prediction says about a video, as an object: masks, times, scores, intervals, pictures, files."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import Self

from avseg.errors import ConfigError, MediaError
from avseg.media import rle
from avseg.prediction.regions import Frame, Region
from avseg.prediction.uncertainty import UncertaintyMap, unpack

if TYPE_CHECKING:
    from PIL import Image

MIN_AREA = 0.001
"""Share of the picture a class must cover to count as sounding in :attr:`Result.intervals`."""
_FORMAT = 1
"""Raised whenever result.json changes its form; uncertainty that was asked for only adds to it."""


class Interval(NamedTuple):
    """A span in which a class sounds.

    Attributes:
        start: Seconds.
        end: Seconds.
        name: Of the class.
    """

    start: float
    end: float
    name: str


class Masks:
    """An (N, H, W) array whose pictures are made when they are asked for.

    ``masks[3]`` is (H, W), ``masks[10:20]`` is (10, H, W), ``np.asarray(masks)`` is all of it at once.
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
            raise ValueError("masks are made when they are asked for: they cannot be had without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"Masks(shape={self.shape}, dtype={self.dtype})"


@dataclass(frozen=True, eq=False)
class Result:
    """What sounds in a video, where, and when.

    Attributes:
        source: The video.
        size: (H, W) of its pictures, as shown.
        class_names: Label → name; the first is the background.
        frames: One entry for every picture; about 1 kB each at 720p, up to 4 kB more with uncertainty.
        end: When the last picture goes, in seconds since the start of the file.
        model: The model's name.
        options: The settings of the prediction.
        notes: What the user should know, such as that the sound track is silent.
    """

    source: Path
    size: tuple[int, int]
    class_names: tuple[str, ...]
    frames: Sequence[Frame] = field(repr=False)
    end: float
    model: str
    options: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def masks(self) -> Masks:
        """(N, H, W) bool: what sounds, whatever its class; read lazily."""
        return Masks(lambda i: self._labels(i) > 0, (len(self.frames), *self.size), bool)

    @property
    def labels(self) -> Masks:
        """(N, H, W) uint8: the class of every pixel, 0 for the background; read lazily."""
        return Masks(self._labels, (len(self.frames), *self.size), np.uint8)

    @property
    def has_uncertainty(self) -> bool:
        """Whether the uncertainty was asked for: ``predict(..., show="uncertainty")``."""
        return any(frame.uncertainty is not None for frame in self.frames)

    @property
    def uncertainty(self) -> Masks:
        """(N, H, W) float32: how little the model knows about every pixel, 0 sure .. 1 knows nothing; read lazily.

        Raises:
            ConfigError: When it was not asked for.
        """
        kept = self._kept()
        return Masks(lambda i: unpack(kept[i], self.size), (len(kept), *self.size), np.float32)

    @cached_property
    def mean_uncertainty(self) -> NDArray[np.float64]:
        """(N,) the uncertainty about each picture, as a mean over it.

        Raises:
            ConfigError: When it was not asked for.
        """
        return np.array([kept.mean for kept in self._kept()])

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """(N,) seconds since the start of the file at which the pictures appear."""
        return np.array([frame.time for frame in self.frames])

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """(N, K) pixels per picture and class; column 0, the background, stays 0."""
        areas = np.zeros((len(self.frames), len(self.class_names)), np.int64)
        for row, frame in zip(areas, self.frames, strict=True):
            for region in frame.regions:
                row[region.label] = rle.area(region.rle)
        return areas

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """(N,) mean probability over the mask's pixels, each pixel's of its own class; 0 where nothing sounds."""
        sums = [
            sum(region.score * self.areas[i, region.label] for region in frame.regions)
            for i, frame in enumerate(self.frames)
        ]
        pixels: NDArray[np.int64] = np.maximum(self.areas.sum(1), 1)
        return np.array(sums, np.float64) / pixels

    @cached_property
    def intervals(self) -> list[Interval]:
        """Spans in which a class covers more than a thousandth of the picture, by start.

        A span begins when the first such picture appears and ends when the last one goes.
        """
        edges = np.append(self.times, self.end)
        sounding = self.areas > MIN_AREA * self.size[0] * self.size[1]
        found = []
        for label, name in enumerate(self.class_names):
            padded = np.concatenate(([False], sounding[:, label], [False]))
            for first, last in np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2):
                found.append(Interval(float(edges[first]), float(edges[last]), name))
        return sorted(found)

    def plot(self) -> "Image.Image":
        """One picture of the whole: overlays, spectrogram, score and intervals over time. Reads the video again.

        Raises:
            MediaError: When the video is no longer there.
        """
        from avseg.prediction.summary import summary  # matplotlib takes half a second to import

        return summary(self)

    def save(self, folder: str | Path, *, overwrite: bool = False, progress: bool = False) -> Path:
        """Write overlay.mp4 (with the sound), masks/NNNNNN.png, summary.png and result.json. Reads the video again.

        With uncertainty, uncertainty/NNNNNN.png as well: grey, as large as the picture, 255 knows nothing.

        Args:
            folder: Appears when all is written, or not at all.
            overwrite: Replace an earlier result.
            progress: Show a bar.

        Returns:
            The folder.

        Raises:
            ConfigError: When the folder is taken.
            MediaError: When it cannot be written, or the video is no longer there.
        """
        from avseg.prediction.export import save

        return save(self, Path(folder), overwrite=overwrite, progress=progress)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A result that was saved, equal to what it was.

        Raises:
            MediaError: When the folder holds none.
        """
        path = Path(folder) / "result.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MediaError(f"{path} is no result of avseg ({error}): give a folder avseg predict wrote") from error
        size = (data["size"][0], data["size"][1])
        frames = tuple(_frame(frame, size) for frame in data["frames"])
        names, notes = tuple(data["class_names"]), tuple(data["notes"])
        return cls(Path(data["source"]), size, names, frames, data["end"], data["model"], data["options"], notes)

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain values, as result.json holds it."""
        return {
            "format": _FORMAT,
            "source": str(self.source),
            "size": list(self.size),
            "class_names": list(self.class_names),
            "end": self.end,
            "model": self.model,
            "options": dict(self.options),
            "notes": list(self.notes),
            "intervals": [interval._asdict() for interval in self.intervals],
            "frames": [
                {
                    "time": frame.time,
                    "score": round(float(score), 4),
                    "regions": [_region_as_dict(region) for region in frame.regions],
                    **({"uncertainty": _map_as_dict(frame.uncertainty)} if frame.uncertainty else {}),
                }
                for frame, score in zip(self.frames, self.scores, strict=True)
            ],
        }

    def to_coco(self) -> dict[str, Any]:
        """The masks as a COCO data set: images, annotations with run lengths, categories.

        An image is named after its mask (``masks/000012.png`` → ``000012.png``); ``time`` is in seconds. With
        uncertainty, an annotation has its mean ``uncertainty``.
        """
        height, width = self.size
        images = [
            {"id": i, "file_name": f"{i:06d}.png", "height": height, "width": width, "time": frame.time}
            for i, frame in enumerate(self.frames)
        ]
        annotations = [
            {
                "image_id": i,
                "category_id": region.label,
                "segmentation": {"size": list(region.rle.size), "counts": region.rle.counts.decode()},
                "area": rle.area(region.rle),
                "bbox": list(rle.box(region.rle)),
                "iscrowd": 0,
                "score": region.score,
                **_unsure(region),
            }
            for i, frame in enumerate(self.frames)
            for region in frame.regions
        ]
        return {
            "info": {"description": f"What sounds in {self.source.name}, by avseg's {self.model}"},
            "images": images,
            "annotations": [{"id": i, **annotation} for i, annotation in enumerate(annotations, 1)],
            "categories": [{"id": i, "name": n} for i, n in enumerate(self.class_names) if i],
        }

    def _labels(self, index: int) -> NDArray[np.uint8]:
        labels = np.zeros(self.size, np.uint8)
        for region in self.frames[index].regions:
            labels[rle.decode(region.rle)] = region.label
        return labels

    def _kept(self) -> list[UncertaintyMap]:
        kept = [frame.uncertainty for frame in self.frames if frame.uncertainty is not None]
        if len(kept) != len(self.frames):
            raise ConfigError(
                f"this result of {self.model} is without uncertainty: predict again with show uncertainty "
                "(--show uncertainty) and a model that estimates it"
            )
        return kept


def _unsure(region: Region) -> dict[str, float]:
    return {} if region.uncertainty is None else {"uncertainty": region.uncertainty}


def _region_as_dict(region: Region) -> dict[str, Any]:
    size, counts = list(region.rle.size), region.rle.counts.decode()
    return {"label": region.label, "score": region.score, "size": size, "counts": counts, **_unsure(region)}


def _map_as_dict(kept: UncertaintyMap) -> dict[str, Any]:
    return {"mean": kept.mean, "size": list(kept.size), "png": b64encode(kept.png).decode()}


def _frame(data: Mapping[str, Any], size: tuple[int, int]) -> Frame:
    """One frame of result.json, for pictures of (H, W)."""
    regions = (
        Region(r["label"], r["score"], rle.RLE(size, r["counts"].encode()), r.get("uncertainty"))
        for r in data["regions"]
    )
    kept = data.get("uncertainty")
    return Frame(data["time"], tuple(regions), kept and _map(kept))


def _map(data: Mapping[str, Any]) -> UncertaintyMap:
    return UncertaintyMap(data["mean"], (data["size"][0], data["size"][1]), b64decode(data["png"]))
