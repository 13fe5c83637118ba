"""``cutout/000000.png`` … with transparency, or ``cutout.mp4`` on a colour: the sounding objects alone."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor
from typing_extensions import Self

from avseg.errors import ConfigError
from avseg.outputs._base import Output, OutputFrame, numbered
from avseg.outputs._opacity import check_softness, opacity
from avseg.outputs._video import VideoOutput
from avseg.prediction.record import Record


class Cutout(Output):
    """A PNG sequence with straight alpha, or a video with the sound on a plain background."""

    @dataclass(frozen=True)
    class Config:
        """Settings of the cut-outs.

        Attributes:
            background: A colour such as ``green`` or ``#00b140`` writes a video on it; null writes transparent PNGs.
            softness: Width of the edge in probability: 0 is a hard edge, 1 the probability itself.
        """

        background: str | None = None
        softness: float = 0.5

        def __post_init__(self) -> None:
            check_softness(self.softness)
            if self.background is not None:
                _colour(self.background)

    files = (*numbered("cutout"), "cutout.mp4")
    reads_video = True

    def __init__(self, record: Record, folder: Path, config: Config) -> None:
        super().__init__(record, folder)
        self._config, self._stack = config, ExitStack()
        self._video = None if config.background is None else VideoOutput(record, folder / "cutout.mp4")
        if self._video is None:
            (folder / "cutout").mkdir()

    def __enter__(self) -> Self:
        if self._video is not None:
            self._stack.enter_context(self._video)
        return self

    def __exit__(self, *raised: object) -> None:
        """Close the video."""
        self._stack.__exit__(*raised)  # type: ignore[arg-type]

    def add(self, frame: OutputFrame) -> None:
        """Write the cut-out of one frame."""
        alpha = opacity(frame, self._config.softness)[..., None]
        if self._video is None:
            image = np.concatenate([np.where(alpha > 0, frame.rgb, np.uint8(0)), alpha], 2)
            Image.fromarray(image).save(self.folder / "cutout" / f"{frame.index:06d}.png", compress_level=1)
        else:
            ground = np.array(_colour(str(self._config.background)), np.uint16)
            mixed = (frame.rgb * alpha.astype(np.uint16) + ground * (255 - alpha.astype(np.uint16)) + 127) // 255
            self._video.write(mixed.astype(np.uint8), frame.time)


def _colour(name: str) -> tuple[int, int, int]:
    try:
        r, g, b = ImageColor.getrgb(name)[:3]
    except ValueError:
        raise ConfigError(f"{name!r} is no colour: give a name such as green, or a value such as #00b140") from None
    return r, g, b
