"""Write the test videos of several scripts."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from avseg.mel import SAMPLE_RATE

_BLOCK = 1024
"""Samples in a block of sound."""


def write_video(
    path: Path,
    frames: Iterable[av.VideoFrame],
    wave: NDArray[np.float32],
    *,
    rate: Fraction | int,
    size: tuple[int, int],
    codec: str,
    pix_fmt: str,
) -> None:
    """Write pictures and lossless sound.

    Args:
        path: File to write.
        frames: Pictures of this size, at multiples of 1 / rate seconds.
        wave: (n,) mono sound at 16 kHz.
        rate: Pictures per second.
        size: Height and width.
        codec: Codec of the pictures.
        pix_fmt: Pixel format of the pictures.
    """
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream(codec, rate)
        sound: Any = out.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        video.height, video.width = size
        video.pix_fmt = pix_fmt
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, 1 / Fraction(rate)
            out.mux(video.encode(frame))
        for first in range(0, len(wave), _BLOCK):
            block = av.AudioFrame.from_ndarray(wave[None, first : first + _BLOCK], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, first, Fraction(1, SAMPLE_RATE)
            out.mux(sound.encode(block))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
