"""Fixtures that several tests share: tiny videos, made on the spot."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

TICK = Fraction(1, 12_800)


def grey(index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture whose brightness tells its number."""
    return np.full((*size, 3), 20 + index * 5 % 200, np.uint8)


def write_video(
    path: Path,
    *,
    times: Sequence[float] = tuple(k / 25 for k in range(25)),
    size: tuple[int, int] = (48, 64),
    picture: Callable[[int, tuple[int, int]], NDArray[np.uint8]] = grey,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sound: NDArray[np.float32] | None = None,
    rate: int = 16_000,
    sound_codec: str = "flac",
    sound_start: float = 0.0,
    faststart: bool = False,
) -> Path:
    """A video with pictures at given seconds and (channels, n) sound, -1..1, from a given second on."""
    with av.open(str(path), "w", options={"movflags": "+faststart"} if faststart else {}) as container:
        video = container.add_stream(codec, rate=25)
        video.height, video.width = size
        video.pix_fmt = pix_fmt
        video.codec_context.time_base = TICK
        audio = None
        if sound is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
            audio = container.add_stream(sound_codec, rate=rate, layout=layout)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index, size))
            frame.pts, frame.time_base = round(time / TICK), TICK
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            for first in range(0, sound.shape[1], 1024):
                piece = np.ascontiguousarray(sound[:, first : first + 1024], np.float32)
                frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = first + round(sound_start * rate)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny video under the test's own folder: ``make_video("clip.mp4", times=[0, 0.1], ...)``."""
    return lambda name="clip.mkv", **settings: write_video(tmp_path / name, **settings)
