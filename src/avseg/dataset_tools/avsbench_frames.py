"""Sample and resize the frames of S4 and MS3 as AVSBench's authors did.

The authors took 16 candidates per second by frame number: candidate i of second k is frame int(k f + i/16 f), with f
the frame rate rounded to an integer. They kept the last one, i = 15, so that frame k is at k + 15/16 s. This time is
exact for videos with a constant integer frame rate; at 29.97 frames per second it drifts by 1 ms every second. Frames
are counted as stored: for a variable frame rate, FFmpeg's command, which the authors used, may repeat or drop frames
before they are counted, so that the result can differ.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from avseg.media.video import pictures, probe

SIDE = 224
"""Height and width in pixels of the released frames."""
_CANDIDATES = 16
"""Candidates per second, of which the last is kept."""


def kept_numbers(rate: Fraction, seconds: int) -> list[int]:
    """Return the numbers of the kept frames, one for each second.

    Args:
        rate: Frames per second.
        seconds: Number of seconds.
    """
    whole = round(rate)
    return [k * whole + (_CANDIDATES - 1) * whole // _CANDIDATES for k in range(seconds)]


def kept_frames(path: Path, seconds: int) -> list[NDArray[np.uint8]]:
    """Return the kept frames of a video, one per second; its last frame is repeated if it is shorter.

    Returns:
        (224, 224, 3) RGB each.

    Raises:
        MediaError: When it is not a video, or is damaged before the last kept frame.
    """
    wanted = kept_numbers(probe(path).rate, seconds)
    found: list[NDArray[np.uint8]] = []
    for number, picture in enumerate(pictures(path)):
        last = picture
        found += [squash(picture.rgb())] * wanted.count(number)
        if number == wanted[-1]:
            break
    return found + [squash(last.rgb())] * (seconds - len(found))


def squash(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize (H, W, 3) to (224, 224, 3), bilinearly without antialiasing, as in the release."""
    planes = torch.from_numpy(image).movedim(-1, 0)[None].float()
    small = interpolate(planes, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=False)
    return small[0].movedim(0, -1).round().clamp(0, 255).byte().numpy()
