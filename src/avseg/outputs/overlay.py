"""``overlay.mp4``: the video with its sound, the masks laid over it, class names and a timeline of the scores."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from avseg.colours import palette
from avseg.media.video import probe
from avseg.media.writer import VideoWriter
from avseg.outputs._base import Output, OutputFrame, damage
from avseg.outputs._drawing import add_legend, add_names, add_timeline, overlay, striped, timeline, timeline_height
from avseg.prediction.record import Record


class Overlay(Output):
    """The overlay video. With uncertainty, stripes mark uncertain pixels, and a legend explains them."""

    files = ("overlay.mp4",)
    reads_video = True

    def __init__(self, record: Record, folder: Path) -> None:
        super().__init__(record, folder)
        info = probe(record.source)
        self._colours = palette(len(record.class_names))
        self._timeline = _timeline(record, self._colours)
        self._writer = VideoWriter(
            folder / "overlay.mp4",
            record.size,
            rate=info.rate,
            pixel_aspect=info.pixel_aspect,
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
        record, below = self.record, frame.rgb
        if frame.uncertainty is not None:
            below = striped(below, frame.uncertainty)
        image = overlay(below, frame.labels, self._colours)
        if frame.uncertainty is not None:
            add_legend(image, len(self._timeline))
        start = record.times[0]
        add_timeline(image, self._timeline, (frame.time - start) / (record.end - start))
        if len(self._colours) > 2:
            labels = [region.label for region in record.frames[frame.index].regions]
            add_names(image, labels, record.class_names, self._colours)
        self._writer.write(image, frame.time)


def _timeline(record: Record, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    largest = record.areas.argmax(1)
    height = timeline_height(record.size)
    return timeline(record.size[1], height, record.times, record.end, record.scores, colours[largest])
