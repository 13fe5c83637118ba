"""``redact.mp4`` and ``redact.json``: the sounding objects made unrecognisable, and a record of the covered areas.

The covered area of a frame is the union of the masks of all frames within ``padding`` seconds, enlarged by
``dilation``. With ``keep``, all but the sounding objects is covered; padding and dilation enlarge the covered area in
this case too.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import maximum_filter

from avseg.errors import ConfigError, did_you_mean
from avseg.files import sha256
from avseg.media import rle
from avseg.outputs._base import OutputFrame
from avseg.outputs._video import VideoOutput
from avseg.prediction.record import Record

_LEAST_STRENGTH = 0.01
"""Smallest setting ``strength``."""
_CELL = 4
"""Side in pixels of the cells in which covered areas are computed: a cell is covered if any of its pixels is."""
Cells = NDArray[np.bool_]


class Redact(VideoOutput):
    """The redacted video, and its audit file."""

    @dataclass(frozen=True)
    class Config:
        """Settings of the redaction.

        Attributes:
            mode: ``"blur"``, ``"pixelate"`` or ``"black"``.
            keep: Cover everything but the sounding objects, instead of them.
            dilation: Enlargement of the covered area on every side, relative to the longer side of the frame.
            padding: Seconds by which the covered area is extended before and after each frame.
            strength: Side of a cell of blur or pixelate, relative to the longer side of the frame; 0.01 or more, since
                smaller cells leave faces recognisable.
            mute: Silence while an object is covered; with ``keep``, silence while no object is visible.
            classes: Names of the classes to cover, or to keep; null for all.
        """

        mode: Literal["blur", "pixelate", "black"] = "blur"
        keep: bool = False
        dilation: float = 0.02
        padding: float = 0.5
        strength: float = 0.03
        mute: bool = False
        classes: list[str] | None = None

        def __post_init__(self) -> None:
            for name, least in (("dilation", 0), ("padding", 0), ("strength", _LEAST_STRENGTH)):
                if not getattr(self, name) >= least:
                    raise ConfigError(f"{name} must be {least} or more, got {getattr(self, name)}")

    files = ("redact.mp4", "redact.json")

    def __init__(self, record: Record, folder: Path, config: Config) -> None:
        self._config = config
        self._labels = _labels(record, config.classes)
        self._ends = np.append(record.times[1:], record.end)
        self._windows = _windows(record.times, self._ends, config.padding)
        self._hidden = _hidden(record, self._labels, self._windows, config.keep)
        self._muted = _stretches(self._hidden, record.times, self._ends) if config.mute else []
        super().__init__(record, folder / "redact.mp4", muted=self._muted)
        self._counts = np.zeros([-(-n // _CELL) for n in record.size], np.int32)
        self._held = (0, 0)
        self._audit: list[dict[str, Any]] = []

    def add(self, frame: OutputFrame) -> None:
        """Write one frame."""
        cells = self._covered(frame.index)
        image = frame.rgb
        if cells.any():
            covered = np.repeat(np.repeat(cells, _CELL, 0), _CELL, 1)[: image.shape[0], : image.shape[1]]
            image = np.where(covered[..., None], _obscured(image, self._config), image)
            self._note(frame.index, covered)
        self.write(image, frame.time)

    def finish(self) -> None:
        """Write the audit file."""
        record = self.record
        covered = np.zeros(len(record.frames), bool)
        covered[[entry["frame"] for entry in self._audit]] = True
        data = {
            "source": str(record.source),
            "source_sha256": sha256(record.source),
            "model": record.model,
            "weights_sha256": record.weights_sha256,
            "avseg_version": record.version,
            "settings": asdict(self._config),
            "intervals": [{"start": a, "end": b} for a, b in _stretches(covered, record.times, self._ends)],
            "muted": [{"start": a, "end": b} for a, b in self._muted],
            "frames": self._audit,
        }
        (self.folder / "redact.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")

    def _covered(self, index: int) -> Cells:
        """Return the covered cells of a frame. Frames are given in order."""
        first, last = self._windows[index]
        for entering in range(self._held[1], last):
            self._counts += self._cells(entering)
        for leaving in range(self._held[0], first):
            self._counts -= self._cells(leaving)
        self._held = (first, last)
        radius = round(self._config.dilation * max(self.record.size))
        cells: Cells = self._counts > 0
        if radius and cells.any():
            cells = maximum_filter(cells, 2 * -(-radius // _CELL) + 1, mode="constant")
        return cells

    def _cells(self, index: int) -> Cells:
        """Return the cells that the mask of one frame covers, without dilation and padding."""
        mask = np.zeros(self.record.size, bool)
        for region in self.record.frames[index].regions:
            if region.label in self._labels:
                mask |= rle.decode(region.rle)
        if self._config.keep:
            np.logical_not(mask, out=mask)
        height, width = (_CELL * n for n in self._counts.shape)
        padded = np.zeros((height, width), bool)
        padded[: mask.shape[0], : mask.shape[1]] = mask
        return np.asarray(padded.reshape(height // _CELL, _CELL, width // _CELL, _CELL).any((1, 3)))

    def _note(self, index: int, covered: NDArray[np.bool_]) -> None:
        """Add a frame to the audit file."""
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        left, top = int(columns[0]), int(rows[0])
        first, last = self._windows[index]
        areas = self.record.areas[first:last]
        self._audit.append(
            {
                "frame": index,
                "start": float(self.record.times[index]),
                "end": float(self._ends[index]),
                "pixels": int(np.count_nonzero(covered)),
                "box": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
                "classes": [self.record.class_names[label] for label in self._labels if areas[:, label].any()],
            }
        )


def _labels(record: Record, classes: list[str] | None) -> list[int]:
    """Return the labels of the classes.

    Raises:
        ConfigError: When the model has no class of a name.
    """
    names = list(record.class_names[1:]) if classes is None else classes
    for name in names:
        if name not in record.class_names[1:]:
            raise ConfigError(f"{record.model} has no class {name!r}. {did_you_mean(name, record.class_names[1:])}")
    return [record.class_names.index(name) for name in names]


def _windows(times: NDArray[np.float64], ends: NDArray[np.float64], padding: float) -> list[tuple[int, int]]:
    """Return for every frame the first frame within ``padding`` seconds, and the one after the last."""
    first = np.searchsorted(ends, times - padding, side="right")
    last = np.searchsorted(times, ends + padding, side="left")
    return [(int(a), int(b)) for a, b in zip(first, last, strict=True)]


def _hidden(record: Record, labels: list[int], windows: list[tuple[int, int]], keep: bool) -> NDArray[np.bool_]:
    """Return whether an object is covered in each frame; with ``keep``, whether none is shown."""
    present = np.asarray(record.areas[:, labels].any(1))
    return np.array([not present[a:b].all() if keep else present[a:b].any() for a, b in windows])


def _stretches(
    chosen: NDArray[np.bool_], times: NDArray[np.float64], ends: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """Return start and end in seconds of each run of chosen frames."""
    padded = np.concatenate(([False], chosen, [False]))
    edges = np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2)
    return [(float(times[a]), float(ends[b - 1])) for a, b in edges]


def _obscured(image: NDArray[np.uint8], config: Redact.Config) -> NDArray[np.uint8]:
    """Return an image of which nothing can be recognised."""
    if config.mode == "black":
        return np.zeros_like(image)
    picture = Image.fromarray(image)
    side = max(2, round(config.strength * max(picture.size)))
    cells = picture.resize([max(1, -(-n // side)) for n in picture.size], Image.Resampling.BOX)
    smooth = Image.Resampling.BICUBIC if config.mode == "blur" else Image.Resampling.NEAREST
    return np.asarray(cells.resize(picture.size, smooth))
