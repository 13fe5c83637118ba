"""Outcome of one video of a batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from avseg.prediction.record import Interval


class Outcome(NamedTuple):
    """Outcome of one video of a batch.

    Attributes:
        video: The video.
        folder: Folder of its result.
        state: ``"done"``, ``"skipped"`` because an equal result was there, or ``"failed"``.
        message: Reason of a failure, in one line; else empty.
        intervals: Intervals of the result; none after a failure.
        to_open: File of the result to open first; None after a failure.
        captions: Name of the object or class of each interval.
    """

    video: Path
    folder: Path
    state: Literal["done", "skipped", "failed"]
    message: str = ""
    intervals: Sequence[Interval] = ()
    to_open: Path | None = None
    captions: Sequence[str] = ()
