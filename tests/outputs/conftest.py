"""A prediction with known masks, probabilities and times, without a model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from avseg.media import rle
from avseg.pipeline.result import Result
from avseg.prediction import grey_maps
from avseg.prediction.objects import NamedObject
from avseg.prediction.regions import Frame, Region

SIZE = (100, 150)
TIMES = (0.0, 0.05, 0.1, 0.4, 0.8)
"""Variable frame rate; the last frame ends at 0.9 s."""
NAMES = ("background", "dog", "siren")


def picture(index: int, size: tuple[int, int]) -> np.ndarray:
    """Return a frame with stripes of two pixels, which every kind of redaction removes."""
    image = np.full((*size, 3), 60, np.uint8)
    image[:, ::4] = image[:, 1::4] = (200, 180, 160)
    return image


def mask_of(part: Any) -> np.ndarray:
    """Return a mask that is set in a part of the frame."""
    mask = np.zeros(SIZE, bool)
    mask[part] = True
    return mask


DOG, SIREN = mask_of(np.s_[20:60, 30:70]), mask_of(np.s_[70:90, 100:140])
HOLE = DOG.copy()
HOLE[30:40, 40:50] = False


@pytest.fixture
def make_clip(make_video: Callable[..., Path], make_beep: Callable[..., np.ndarray]) -> Callable[..., Result]:
    """Make a result: nothing, dog, dog, dog with a hole and siren, siren; ``names`` of two classes leave the siren out.

    The probability of a pixel is 0.9 in a mask, 0 outside, at half the size of the video, enlarged bilinearly.
    """

    def make(names: tuple[str, ...] = NAMES, **video: Any) -> Result:
        settings = {"codec": "ffv1", "pix_fmt": "bgr0", "sound": make_beep(0.9, 0, 0.9, 48_000), "rate": 48_000}
        path = make_video("clip.mkv", times=TIMES, size=SIZE, picture=picture, **{**settings, **video})
        shown = [[], [(1, DOG)], [(1, DOG)], [(1, HOLE), (2, SIREN)], [(2, SIREN)]]
        frames = []
        for time, regions in zip(TIMES, shown, strict=True):
            kept = [(label, mask) for label, mask in regions if label < len(names)]
            soft = np.float32(0.9) * sum((mask for _, mask in kept), np.zeros(SIZE, bool))
            found = tuple(Region(label, 0.9, rle.encode(mask)) for label, mask in kept)
            frames.append(Frame(time, found, None, grey_maps.pack(np.float32(soft), SIZE[1] // 2)))
        options = {"damaged": "error", "upsampling": "bilinear", "threshold": 0.5}
        return Result(path, SIZE, names, frames, 0.9, "tiny", options)

    return make


@pytest.fixture
def make_named(make_clip: Callable[..., Result]) -> Callable[..., Result]:
    """Make a result of one class whose object is a wolf (score 0.9, 0.6, 0.3) rather than a dog (0.4, 0.4, 0.4)."""

    def make() -> Result:
        result = make_clip(("background", "sounding"))
        named = [
            frame._replace(objects=(NamedObject("wolf", 0.9 - 0.3 * k), NamedObject("dog", 0.4)))
            for k, frame in enumerate(frame for frame in result.frames if frame.regions)
        ]
        return replace(result, frames=[result.frames[0], *named, result.frames[-1]])

    return make


def packets(path: Path) -> list[bytes]:
    """Return the encoded audio of a file."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def decoded(path: Path, pixel_format: str) -> tuple[list[float], np.ndarray, Any]:
    """Return times, pixels in a format, and the pixel format of the stream of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        pixels = np.stack([frame.to_ndarray(format=pixel_format) for frame in frames])
        return [frame.time for frame in frames], pixels, stream.codec_context.pix_fmt
