"""The user's audio files: found by folder, read by PyAV, with long pauses removed."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avseg.errors import DataError
from avseg.media.sound import read_sound
from avseg.mel import SAMPLE_RATE

_SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".mp4", ".mkv", ".webm")
_SILENT = 1e-4
"""Peak of a silent file: -80 dB."""
_WINDOW = SAMPLE_RATE // 20
"""Samples of a window in which the level is measured: 50 ms."""
_QUIET = 0.1
"""Windows below this part of the loudest (-20 dB) are pauses."""
_PAUSE = 4
"""Windows that are kept of a pause: 0.2 s."""


def find_sounds(folder: Path) -> dict[str, list[Path]]:
    """Return the audio files of each subfolder, by its name.

    Raises:
        DataError: When there is no such folder, or no audio file in it.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: give a folder with one subfolder of sounds per class")
    found = {
        below.name: sorted(p for p in below.rglob("*") if p.suffix.lower() in _SOUNDS)
        for below in sorted(folder.iterdir())
        if below.is_dir()
    }
    if not any(found.values()):
        raise DataError(f"no sounds in {folder}: expected <class>/<any name>.wav, .flac, .ogg, .mp3, ...")
    return {name: files for name, files in found.items() if files}


@lru_cache(maxsize=256)
def waveform_without_pauses(path: Path) -> NDArray[np.float32]:
    """Read a waveform and remove long pauses, so that every second has sound; peak 1.

    Raises:
        DataError: When it cannot be read, or is silent.
    """
    wave = read_sound(path)
    peak = float(np.abs(wave).max(initial=0.0))
    if peak < _SILENT:
        raise DataError(f"{path} is silent: remove it, it would label an inaudible object as sounding")
    count = max(1, len(wave) // _WINDOW)
    windows = np.resize(wave, count * _WINDOW).reshape(count, _WINDOW)
    level = np.sqrt((windows**2).mean(1))
    # number of consecutive quiet windows up to each window
    place = np.arange(count)
    since = place - np.maximum.accumulate(np.where(level > _QUIET * level.max(), place, -_PAUSE - 1))
    return np.asarray(windows[since <= _PAUSE].reshape(-1) / peak)


def looped_waveform(path: Path, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return ``count`` samples of a recording from a random offset, repeated if it is shorter."""
    wave = waveform_without_pauses(path).astype(np.float64)
    start = int(rng.integers(len(wave)))
    return np.resize(np.roll(wave, -start), count)
