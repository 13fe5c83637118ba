"""Work in pieces, each of which is there completely or not at all, so that an interrupted run goes on."""

import os
import shutil
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from avseg.mel import SAMPLE_RATE


class Job(NamedTuple):
    """One piece.

    Attributes:
        done: Whether it is there already.
        make: Makes it.
    """

    done: Callable[[], bool]
    make: Callable[[], None]


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A name beside to write a file or folder under; it becomes ``path`` when the ``with`` block ends well.

    What a killed run left under that name is removed first, and an incomplete folder of the final name last.
    """
    beside = path.with_name(f".{path.stem}.part{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(beside)
    try:
        yield beside
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(beside, path)
    finally:
        _remove(beside)


def write_wave(path: Path, samples: Tensor) -> None:
    """One channel of 16-bit samples at 16 kHz.

    Args:
        path: The file to write.
        samples: (n,) in -1..1.
    """
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples.clamp(-1, 1) * 32767.0).round().numpy().astype("<i2").tobytes())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
