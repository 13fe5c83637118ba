"""Names of the sounding objects, for models of one class that score kinds of objects (:meth:`AVSModel.object_scores`).

Each sample has scores of all kinds, averaged over its mask. A frame keeps the highest scores of the nearest sample, and
an interval has the name with the highest mean score of its frames, if that is not below :data:`LEAST`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

LEAST = 0.2
"""Mean score below which an interval has no name."""
_KEPT = 3
"""Largest number of names of a frame."""
_FAINT = 0.02
"""Scores below this are not kept."""


class NamedObject(NamedTuple):
    """A kind of object that makes the sound.

    Attributes:
        name: Name of the kind, such as ``"dog"``.
        score: Score in 0..1: kind of the sound times kind of the object in the mask.
    """

    name: str
    score: float


def highest(names: Sequence[str], scores: Sequence[float]) -> tuple[NamedObject, ...]:
    """Return the kinds with the highest scores of a sample, the highest first."""
    order = sorted(range(len(names)), key=lambda k: -scores[k])[:_KEPT]
    return tuple(NamedObject(names[k], round(scores[k], 3)) for k in order if scores[k] >= _FAINT)


def best(frames: Iterable[Sequence[NamedObject]], least: float = LEAST) -> NamedObject | None:
    """Return the kind with the highest mean score over frames, or None if no mean reaches ``least``."""
    totals: dict[str, float] = defaultdict(float)
    count = 0
    for objects in frames:
        count += 1
        for name, score in objects:
            totals[name] += score
    if not totals:
        return None
    name = max(totals, key=lambda kind: totals[kind])
    mean = totals[name] / count
    return NamedObject(name, round(mean, 3)) if mean >= least else None
