"""Who is in a clip, who is seen, and who sounds when: the three tasks of AVSBench as random scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Variant = Literal["s4", "ms3", "avss"]
Ambiguity = Literal["none", "spatial", "temporal"]

_CAST = (0.10, 0.30, 0.35, 0.25)
"""Probability of 1, 2, 3, 4 things to be seen."""
_AT_ONCE = 3
"""More voices than this are not asked to be told apart."""
_BESIDE = 2
"""Things seen beside a pair that looks alike, at most."""


@dataclass(frozen=True)
class Role:
    """One class in a clip.

    Attributes:
        label: Class, from 1.
        seen: Is it in the picture? If not, it is only heard.
        sounds: For each second, whether it sounds.
    """

    label: int
    seen: bool
    sounds: tuple[bool, ...]


def write_script(
    rng: np.random.Generator,
    variant: Variant,
    seen: Sequence[int],
    heard: Sequence[int],
    seconds: int,
    cast: Sequence[int] = (),
    ambiguity: Ambiguity = "none",
    alike: Sequence[tuple[int, int]] = (),
) -> list[Role]:
    """The roles of one clip, all of different classes.

    Args:
        rng: Source of chance.
        variant: ``"s4"``: one seen thing sounds throughout, the others are silent. ``"ms3"``, ``"avss"``: things
            start and stop; some sounds come from off screen; some clips are silent.
        seen: Labels there are pictures of.
        heard: Labels there are sounds of.
        seconds: Length T of the clip.
        cast: Labels that are seen in this clip; left out, one to four at random.
        ambiguity: ``"spatial"``: roles 0 and 1 are a pair of ``alike``, in either order; 0 sounds, 1 never does, and up
            to two more are seen. ``"temporal"``, not of s4 and of two seconds or more: something seen sounds in every
            clip, and all that sounds starts or stops at about half of the seconds.
        alike: Pairs of labels that look alike, each with pictures and sounds; for ``"spatial"``.
    """
    both, silent = sorted(set(seen) & set(heard)), sorted(set(seen) - set(heard))
    pair = _pair(rng, alike) if ambiguity == "spatial" else []
    if pair:
        cast = pair + _some(rng, [label for label in both if label not in pair], int(rng.integers(_BESIDE + 1)))
    if variant == "s4":
        star = pair[0] if pair else int(rng.choice(both))
        rest = [label for label in both if label != star]
        others = [c for c in cast if c != star] if cast else _cast(rng, rest, silent, int(rng.choice(4, p=_CAST)))
        return [Role(star, True, (True,) * seconds)] + [Role(o, True, (False,) * seconds) for o in others]
    cast = cast or _cast(rng, both, silent, int(rng.choice(4, p=_CAST)) + 1)
    voices = [label for label in cast if label in both]
    most = min(_AT_ONCE, max(1, len(cast) - 1))  # where two or more are seen, one never sounds
    count = 0 if ambiguity == "none" and rng.random() < 0.06 else int(rng.integers(1, most + 1))
    speaking = pair[:1] + _some(rng, [c for c in voices if c not in pair], count - len(pair[:1]))
    times = _often if ambiguity == "temporal" else _times
    roles = [Role(c, True, times(rng, seconds) if c in speaking else (False,) * seconds) for c in cast]
    hidden = [label for label in heard if label not in cast]
    if hidden and rng.random() < 0.2:
        roles.append(Role(int(rng.choice(hidden)), False, times(rng, seconds)))
    return roles


def _pair(rng: np.random.Generator, alike: Sequence[tuple[int, int]]) -> list[int]:
    """Who sounds and who only looks like it."""
    return _some(rng, alike[int(rng.integers(len(alike)))], 2)


def _cast(rng: np.random.Generator, able: Sequence[int], silent: Sequence[int], count: int) -> list[int]:
    """Who is seen: of those that cannot sound, however many there are, a third of the cast at most."""
    few = _some(rng, silent, sum(rng.random() < 1 / 3 for _ in range(count - 1))) if silent else []
    return _some(rng, able, count - len(few)) + few


def _some(rng: np.random.Generator, labels: Sequence[int], count: int) -> list[int]:
    return [int(x) for x in rng.permutation(np.asarray(labels, dtype=np.int64))[:count]]


def _times(rng: np.random.Generator, seconds: int) -> tuple[bool, ...]:
    """Seconds of sound: throughout, or switched on and off at random, at least once on."""
    if seconds == 1 or rng.random() < 0.45:
        return (True,) * seconds
    on: NDArray[np.bool_] = (rng.integers(2) + np.cumsum(rng.random(seconds) < 0.4)) % 2 == 1
    if not on.any():
        on[rng.integers(seconds)] = True
    return tuple(bool(x) for x in on)


def _often(rng: np.random.Generator, seconds: int) -> tuple[bool, ...]:
    """Seconds of sound that change at about half of the moments between two seconds, and at least once."""
    changes = rng.random(seconds - 1) < 0.5
    if not changes.any():
        changes[rng.integers(seconds - 1)] = True
    on = (rng.integers(2) + np.cumsum([False, *changes])) % 2 == 1
    return tuple(bool(x) for x in on)
