"""``overlay.mp4``: the video with its sound, the masks laid over it, class names and a timeline of the scores."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from avseg.colours import palette
from avseg.media.video import probe
from avseg.media.writer import VideoWriter
from avseg.media.yuv import Planes, subsampled, yuv_planes
from avseg.outputs._base import Output, OutputFrame, damage
from avseg.outputs._drawing import (
    add_legend,
    add_names,
    add_names_planes,
    add_regions,
    add_timeline,
    add_timeline_planes,
    overlay,
    striped,
    timeline,
    timeline_height,
)
from avseg.prediction.record import Record

_NO_PLANES = (np.zeros((0, 0), np.uint8),) * 3


class Overlay(Output):
    """The overlay video, drawn on the YUV planes of the source where H.264 can take them as they are.

    With uncertainty, stripes mark uncertain pixels, and a legend explains them.
    """

    files = ("overlay.mp4",)
    reads_video = True

    def __init__(self, record: Record, folder: Path) -> None:
        super().__init__(record, folder)
        info = probe(record.source)
        self._colours = palette(len(record.class_names))
        self._timeline = _timeline(record, self._colours)
        self._matrix = info.matrix
        odd = any(length % 2 for length in record.size)
        self._in_rgb = record.has_uncertainty or odd
        if not self._in_rgb:
            even = self._timeline[len(self._timeline) % 2 :]
            self._line = subsampled(even, Planes(_NO_PLANES, 2, self._matrix))
        self._writer = VideoWriter(
            folder / "overlay.mp4",
            record.size,
            rate=info.rate,
            pixel_aspect=info.pixel_aspect,
            matrix=info.matrix,
            sound=record.source,
            complain=damage(record),
        )

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Close the video."""
        self._writer.__exit__(kind, *rest)

    def add(self, frame: OutputFrame) -> None:
        """Write the overlay of one frame."""
        if self._in_rgb:
            self._writer.write(self._drawn(frame), frame.time)
            return
        packed = frame.yuv(self._matrix)
        target = yuv_planes(packed, self._matrix)
        add_regions(target, frame.labels, self._colours)
        add_timeline_planes(target, self._line, self._done(frame))
        if len(self._colours) > 2:
            add_names_planes(target, self._labels(frame), self.record.class_names, self._colours)
        self._writer.write_planes(packed, frame.time)

    def _drawn(self, frame: OutputFrame) -> NDArray[np.uint8]:
        """Return the overlay of a frame in RGB, for odd sizes and stripes."""
        below = frame.rgb if frame.uncertainty is None else striped(frame.rgb, frame.uncertainty)
        image = overlay(below, frame.labels, self._colours)
        if frame.uncertainty is not None:
            add_legend(image, len(self._timeline))
        add_timeline(image, self._timeline, self._done(frame))
        if len(self._colours) > 2:
            add_names(image, self._labels(frame), self.record.class_names, self._colours)
        return image

    def _done(self, frame: OutputFrame) -> float:
        start = self.record.times[0]
        return float((frame.time - start) / (self.record.end - start))

    def _labels(self, frame: OutputFrame) -> list[int]:
        return [region.label for region in self.record.frames[frame.index].regions]


def _timeline(record: Record, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    largest = record.areas.argmax(1)
    height = timeline_height(record.size)
    return timeline(record.size[1], height, record.times, record.end, record.scores, colours[largest])
