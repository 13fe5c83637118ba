"""``overlay.mp4``: the video with its sound, the masks laid over it, class names, and a timeline of the scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avseg.colours import palette
from avseg.media import rle
from avseg.media.yuv import Planes, rgb_planes, subsampled, yuv_planes
from avseg.outputs._base import OutputFrame
from avseg.outputs._drawing import (
    add_legend,
    add_name,
    add_names,
    add_regions,
    add_timeline,
    overlay,
    planes_with_timeline,
    striped,
    timeline,
    timeline_height,
)
from avseg.outputs._video import VideoOutput
from avseg.prediction.record import Record

_NO_PLANES = (np.zeros((0, 0), np.uint8),) * 3


class Overlay(VideoOutput):
    """The overlay video, drawn on the YUV planes of the source where H.264 can take them as they are.

    With several classes, a name stands at each region, and a legend in the upper left corner lists all classes of the
    video. With uncertainty, stripes mark uncertain pixels, and a legend explains them.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of the overlay.

        Attributes:
            timeline: ``"below"`` adds a bar with the scores of the whole video below the picture; ``"off"`` keeps the
                size of the video.
        """

        timeline: Literal["below", "off"] = "below"

    files = ("overlay.mp4",)

    def __init__(self, record: Record, folder: Path, config: Config) -> None:
        self._colours = palette(len(record.class_names))
        self._timeline = _timeline(record, self._colours) if config.timeline == "below" else None
        rows = 0 if self._timeline is None else len(self._timeline)
        super().__init__(record, folder / "overlay.mp4", extra_rows=rows, source_matrix=True)
        self._shown = [int(label) for label in np.flatnonzero(record.areas.any(0))]
        self._in_rgb = record.has_uncertainty or any(length % 2 for length in record.size)
        self._line: Sequence[NDArray[np.uint8]] | None = None
        if self._timeline is not None and rows and not self._in_rgb:
            self._line = subsampled(self._timeline, Planes(_NO_PLANES, 2, self.matrix))

    def add(self, frame: OutputFrame) -> None:
        """Write the overlay of one frame."""
        if self._in_rgb:
            self.write(self._drawn(frame), frame.time)
            return
        packed = frame.yuv(self.matrix)
        target = yuv_planes(packed, self.matrix)
        add_regions(target, frame.labels, self._colours)
        self._add_names(target, frame)
        if self._line is not None:
            shown = planes_with_timeline(target, self._line, self._done(frame))
            packed = np.concatenate([plane.ravel() for plane in shown]).reshape(-1, packed.shape[1])
        self.write_planes(packed, frame.time)

    def _drawn(self, frame: OutputFrame) -> NDArray[np.uint8]:
        """Return the overlay of a frame in RGB, for odd sizes and stripes."""
        below = frame.rgb if frame.uncertainty is None else striped(frame.rgb, frame.uncertainty)
        image = overlay(below, frame.labels, self._colours)
        if frame.uncertainty is not None:
            add_legend(image)
        self._add_names(rgb_planes(image), frame)
        return image if self._timeline is None else add_timeline(image, self._timeline, self._done(frame))

    def _add_names(self, target: Planes, frame: OutputFrame) -> None:
        if len(self._colours) == 2:
            return
        names = self.record.class_names
        for region in self.record.frames[frame.index].regions:
            left, top, *_ = rle.box(region.rle)
            add_name(target, names[region.label], self._colours[region.label], top, left)
        add_names(target, self._shown, names, self._colours)

    def _done(self, frame: OutputFrame) -> float:
        start = self.record.times[0]
        return float((frame.time - start) / (self.record.end - start))


def _timeline(record: Record, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    largest = record.areas.argmax(1)
    height = timeline_height(record.size)
    return timeline(record.size[1], height, record.times, record.end, record.scores, colours[largest])
