"""Which pictures of a video AVSBench's authors kept as S4's and MS3's frames, and how they shrank them.

They took 16 candidates a second by their number, second k and candidate i being picture int(k f + i/16 f) with f
the frame rate rounded to a whole number, and kept the last one, i = 15: frame k shows k + 15/16 s. That is exact
for videos of a whole, constant rate; at 29.97 pictures a second it drifts by 1 ms every second. Pictures are counted
as they are stored: of a video whose rate varies FFmpeg's command, through which the authors read, may repeat or drop
some before they are counted, so that frames can differ.
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
"""Per second; the last of them is kept."""


def kept_numbers(rate: Fraction, seconds: int) -> list[int]:
    """The numbers of the pictures that become frames, one for each second.

    Args:
        rate: Pictures per second.
        seconds: How many.
    """
    whole = round(rate)
    return [k * whole + (_CANDIDATES - 1) * whole // _CANDIDATES for k in range(seconds)]


def kept_frames(path: Path, seconds: int) -> list[NDArray[np.uint8]]:
    """The frames the authors kept of a video: one a second; its last picture where it ends before.

    Returns:
        (224, 224, 3) RGB each.

    Raises:
        MediaError: When it is no video, or damaged before the last frame.
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
    """(H, W, 3) → (224, 224, 3), bilinear between the four nearest pixels alone: no smoothing, as in the release."""
    planes = torch.from_numpy(image).movedim(-1, 0)[None].float()
    small = interpolate(planes, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=False)
    return small[0].movedim(0, -1).round().clamp(0, 255).byte().numpy()
