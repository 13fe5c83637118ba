"""``matte.mp4``: the opacity of the sounding objects as a grey video, a luma matte for editing programs."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from avseg.media.writer import H264
from avseg.outputs._base import OutputFrame
from avseg.outputs._opacity import check_softness, opacity
from avseg.outputs._video import VideoOutput
from avseg.prediction.record import Record

_ENCODING = replace(H264, options={"preset": "veryfast", "crf": "8"})
"""Nearly lossless: the errors of the opacity are a few levels."""


class Matte(VideoOutput):
    """White is opaque. 8-bit luma in video range, so black is 16 and white 235 in the file."""

    @dataclass(frozen=True)
    class Config:
        """Settings of the matte.

        Attributes:
            softness: Width of the edge in probability: 0 is a hard edge, 1 the probability itself.
        """

        softness: float = 0.5

        def __post_init__(self) -> None:
            check_softness(self.softness)

    files = ("matte.mp4",)

    def __init__(self, record: Record, folder: Path, config: Config) -> None:
        super().__init__(record, folder / "matte.mp4", encoding=_ENCODING)
        self._config = config

    def add(self, frame: OutputFrame) -> None:
        """Write the matte of one frame."""
        grey = opacity(frame, self._config.softness)
        self.write(np.repeat(grey[..., None], 3, 2), frame.time)
