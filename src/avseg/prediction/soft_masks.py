"""Probabilities at the size of the frames, from the small maps that a prediction keeps and the frames of the video."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avseg.errors import MediaError
from avseg.media.container import ignore
from avseg.media.images import enlarged
from avseg.media.video import Picture, pictures
from avseg.prediction import grey_maps
from avseg.prediction.grey_maps import GreyMap
from avseg.prediction.upsampling import FAINT, guide_size, refined, without_texture

LONGEST = 112
"""Largest length in pixels of the longer side of a map: half the output of the bundled model, twice its grid."""
_SLACK = 1e-6
"""Tolerance in seconds for the time of a frame."""


def soft_mask(
    found: GreyMap, picture: Picture | None, size: tuple[int, int], threshold: float = 0.5
) -> NDArray[np.float32]:
    """Return the probability of every pixel, 0..1, as (H, W).

    Args:
        found: Map of the frame.
        picture: The frame, along whose edges the map is enlarged; None enlarges bilinearly.
        size: (H, W) of the frame.
        threshold: Probability at the contours of the masks.
    """
    if picture is None:
        return grey_maps.unpack(found, size)
    small = grey_maps.values(found)
    if small.max() > FAINT:
        reduced = guide_size(size)
        fitted = refined(small[None], picture.reduced(reduced))[0]
        small = without_texture(fitted, enlarged(small, reduced[::-1]), threshold)
    return enlarged(small, size[::-1])


class SoftMaskReader:
    """Return the soft mask of a frame by its index. Frames in order are decoded once, others are searched.

    It can be pickled, as a DataLoader with workers needs.

    Args:
        video: The video.
        times: Start of every frame in seconds.
        maps: Map of every frame.
        size: (H, W) of the frames.
        guided: Enlarge along the edges of the frame; False enlarges bilinearly, without the video.
        threshold: Probability at the contours of the masks.
    """

    def __init__(
        self,
        video: Path,
        times: NDArray[np.float64],
        maps: list[GreyMap],
        size: tuple[int, int],
        *,
        guided: bool,
        threshold: float = 0.5,
    ) -> None:
        self._video, self._times, self._maps, self._size, self._guided = video, times, maps, size, guided
        self._threshold = threshold
        self._shown: Iterator[Picture] = iter(())
        self._next = -1

    def __call__(self, index: int) -> NDArray[np.float32]:
        """Return (H, W).

        Raises:
            MediaError: When the video cannot be read, or has another length than the prediction.
        """
        if not self._guided:
            return soft_mask(self._maps[index], None, self._size)
        time = float(self._times[index])
        if index != self._next:
            self._shown = pictures(self._video, ignore, after=time)
        picture = next((shown for shown in self._shown if shown.time > time - _SLACK), None)
        if picture is None or picture.time > time + _SLACK:
            raise MediaError(f"{self._video} has no frame at {time:.3f} s: it has changed since the prediction")
        self._next = index + 1
        return soft_mask(self._maps[index], picture, self._size, self._threshold)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_shown": iter(()), "_next": -1}
