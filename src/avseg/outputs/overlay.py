"""``overlay.mp4``: the video with its sound, the masks laid over it, class names, and a timeline of the scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avseg.colours import palette
from avseg.media import rle
from avseg.outputs._base import OutputFrame
from avseg.outputs._drawing import (
    add_legend,
    add_name,
    add_names,
    add_timeline,
    overlay,
    striped,
    timeline,
    timeline_height,
)
from avseg.outputs._video import VideoOutput
from avseg.prediction.record import Record


class Overlay(VideoOutput):
    """The overlay video.

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
        super().__init__(record, folder / "overlay.mp4", extra_rows=rows)
        self._shown = [int(label) for label in np.flatnonzero(record.areas.any(0))]

    def add(self, frame: OutputFrame) -> None:
        """Write the overlay of one frame."""
        record, below = self.record, frame.rgb
        if frame.uncertainty is not None:
            below = striped(below, frame.uncertainty)
        image = overlay(below, frame.labels, self._colours)
        if frame.uncertainty is not None:
            add_legend(image)
        if len(self._colours) > 2:
            for region in record.frames[frame.index].regions:
                left, top, *_ = rle.box(region.rle)
                add_name(image, record.class_names[region.label], self._colours[region.label], top, left)
            add_names(image, self._shown, record.class_names, self._colours)
        if self._timeline is not None:
            start = record.times[0]
            image = add_timeline(image, self._timeline, (frame.time - start) / (record.end - start))
        self.write(image, frame.time)


def _timeline(record: Record, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    largest = record.areas.argmax(1)
    height = timeline_height(record.size)
    return timeline(record.size[1], height, record.times, record.end, record.scores, colours[largest])
