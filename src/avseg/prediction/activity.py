"""Onset and offset of a sound inside the window of the model, from the level of the sound.

The model takes 0.96 s of sound, and so its masks begin up to 0.48 s before a sound and end as much after it, plus up to
half the time between two samples. The level of the sound, every 10 ms, shows where inside this time the sound begins:
a moment is inactive if it lies in 1.0 s or more that are :data:`BELOW_DB` below the loudest moment around it. Shorter
pauses, such as those between words or barks, count as active, so that masks do not flicker. If another sound is as
loud as the object, nothing changes.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from avseg.media.sound import Sound
from avseg.mel import PATCH_SAMPLES, PATCH_SECONDS, SAMPLE_RATE

BELOW_DB = 20.0
"""Decibels below the loudest moment around, at which a moment is inactive. Errors: docs/howto/masks.md."""
PAUSE_SECONDS = 1.0
"""Shortest pause that counts: pauses between words or barks are shorter."""
_HOP = 0.01
_HOP_SAMPLES = round(_HOP * SAMPLE_RATE)
_BLOCK = round(PATCH_SECONDS / _HOP)
"""Hops per block that is read."""
_PAUSE = round(PAUSE_SECONDS / _HOP)
_SILENT = 1e-9
"""Mean square of a track that is silent: -90 dBFS."""


class Activity:
    """Decide if a sound track is active, at times in increasing order; memory is constant.

    Args:
        sound: The track, which nothing else reads.
        fps: Samples per second of the model.
    """

    def __init__(self, sound: Sound, fps: float) -> None:
        self._sound = sound
        # A pause is measured against the sound on both sides of it, however far inside the pause the moment is.
        self._around = round((PATCH_SECONDS / 2 + 0.5 / fps) / _HOP) + _PAUSE
        self._margin = self._around + _PAUSE
        self._first = 0
        self._levels: deque[float] = deque()

    def at(self, time: float) -> bool:
        """Return whether the sound is active at a time in seconds since the start of the file."""
        centre = int(time / _HOP + 1e-6)
        levels = self._window(centre - self._margin, centre + self._margin + 1)
        peaks = maximum_filter1d(levels, 2 * self._around + 1, mode="constant")
        if peaks[self._margin] < _SILENT:
            return True  # there is no onset; silence is a matter of the silence gate
        loud = levels > peaks * 10.0 ** (-BELOW_DB / 10.0)
        part = np.flatnonzero(loud[self._margin - _PAUSE : self._margin + _PAUSE + 1]) - _PAUSE
        before, after = part[part <= 0].max(initial=-_PAUSE), part[part >= 0].min(initial=_PAUSE)
        return bool(after - before <= _PAUSE - 1 or before == 0 or after == 0)

    def _window(self, first: int, last: int) -> NDArray[np.float64]:
        """Return the mean squares of hops ``first`` to ``last``; before the start of the file there is silence."""
        while self._first + len(self._levels) < last:
            self._levels.extend(self._block(self._first + len(self._levels)))
        while self._first < first:
            self._levels.popleft()
            self._first += 1
        held = np.fromiter(self._levels, np.float64, len(self._levels))[: last - self._first]
        return np.concatenate([np.zeros(last - first - len(held)), held])

    def _block(self, hop: int) -> NDArray[np.float64]:
        """Return the next block of mean squares, each over 30 ms."""
        start = hop * _HOP - (PATCH_SAMPLES - _BLOCK * _HOP_SAMPLES) / 2 / SAMPLE_RATE
        wave = self._sound.waveform_at(start + PATCH_SAMPLES / 2 / SAMPLE_RATE).double().numpy()
        total = np.concatenate([[0.0], np.cumsum(wave**2)])
        begins = np.arange(_BLOCK) * _HOP_SAMPLES + (PATCH_SAMPLES - _BLOCK * _HOP_SAMPLES) // 2
        low, high = np.maximum(begins - _HOP_SAMPLES, 0), np.minimum(begins + 2 * _HOP_SAMPLES, len(wave))
        power: NDArray[np.float64] = (total[high] - total[low]) / (high - low)
        return power
