"""What a video shows at given moments, and its sound from the start to a given moment."""

from collections import deque
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avseg.errors import MediaError
from avseg.media.container import audio_stream, opened
from avseg.media.sound import Sound, sound_blocks
from avseg.media.video import Picture, pictures
from avseg.mel import PATCH_SAMPLES, SAMPLE_RATE

_MARGIN = 0.25
"""Seconds to begin earlier: some containers are searched by when a picture is decoded, which is before it is shown."""


def pictures_at(path: Path, times: Sequence[float]) -> Iterator[NDArray[np.uint8]]:
    """The picture that is shown at each moment, each decoded when it is asked for.

    Before the first picture appears it stands for what is not there yet; from the moment on at which the last one
    would be replaced there is none.

    Args:
        path: A video of any frame rate, also a variable one.
        times: Seconds since the start of the file, rising.

    Yields:
        (H, W, 3) RGB, upright; fewer than ``times`` when the video ends before.

    Raises:
        MediaError: When it is no video, or damaged where it is read.
    """
    left = deque(times)
    shown: Picture | None = None
    for picture in pictures(path, after=max(0.0, left[0] - _MARGIN)) if left else ():
        while shown is not None and left and left[0] < picture.time:
            left.popleft()
            yield shown.rgb()
        shown = picture
        if not left:
            return
    while shown is not None and left and left[0] < shown.end:
        left.popleft()
        yield shown.rgb()


def sound_of(path: Path) -> Sound:
    """The sound track, to be asked about moments.

    Raises:
        MediaError: When the file is no video, or has no sound.
    """
    with opened(path) as container:
        if audio_stream(container, path) is None:
            raise MediaError(f"{path} has no sound track: audio-visual segmentation needs one, leave this video out")
    return Sound(sound_blocks(path))


def sound_until(path: Path, end: float) -> Tensor:
    """The sound of the first ``end`` seconds of a file, or all there is if that is less.

    Returns:
        (n,) float32 at 16 kHz, the channels' mean; sample 0 is the start of the file.

    Raises:
        MediaError: When the file is no video, has no sound, or is damaged there.
    """
    sound = sound_of(path)
    wanted = round(end * SAMPLE_RATE)
    middles = [(k + 0.5) * PATCH_SAMPLES / SAMPLE_RATE for k in range(ceil(wanted / PATCH_SAMPLES))]
    heard = torch.cat([sound.around(middle) for middle in middles]) if middles else torch.zeros(0)
    # Of a track longer than that only a little more was read, so this is no limit.
    return heard[: min(wanted, ceil(sound.end * SAMPLE_RATE))]
