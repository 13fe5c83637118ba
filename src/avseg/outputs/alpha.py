"""``alpha.mov`` or ``alpha.webm``: the video with the sounding objects opaque and all else transparent."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from avseg.media.writer import PRORES_4444, VP9_ALPHA
from avseg.outputs._base import OutputFrame
from avseg.outputs._opacity import check_softness, opacity
from avseg.outputs._video import VideoOutput
from avseg.prediction.record import Record


class Alpha(VideoOutput):
    """ProRes 4444 for editing programs, or VP9 for browsers. The alpha is straight: colours are those of the source."""

    @dataclass(frozen=True)
    class Config:
        """Settings of the video with alpha.

        Attributes:
            codec: ``"prores"`` writes alpha.mov, ``"vp9"`` the smaller alpha.webm.
            softness: Width of the edge in probability: 0 is a hard edge, 1 the probability itself.
        """

        codec: Literal["prores", "vp9"] = "prores"
        softness: float = 0.5

        def __post_init__(self) -> None:
            check_softness(self.softness)

    files = ("alpha.mov", "alpha.webm")

    def __init__(self, record: Record, folder: Path, config: Config) -> None:
        name, encoding = ("alpha.mov", PRORES_4444) if config.codec == "prores" else ("alpha.webm", VP9_ALPHA)
        super().__init__(record, folder / name, encoding=encoding)
        self._config = config

    def add(self, frame: OutputFrame) -> None:
        """Write one frame with its opacity."""
        self.write(np.dstack([frame.rgb, opacity(frame, self._config.softness)]), frame.time)
