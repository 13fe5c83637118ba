"""Random scripts of the three AVSBench tasks: the objects of a clip, their visibility and their sounding seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Variant = Literal["s4", "ms3", "avss"]
Ambiguity = Literal["none", "spatial", "temporal"]

_CAST = (0.10, 0.30, 0.35, 0.25)
"""Probability of 1, 2, 3, 4 visible objects."""
_AT_ONCE = 3
"""Largest number of sounding visible objects."""
_DISTRACTORS = 2
"""Largest number of objects visible in addition to a similar pair."""


@dataclass(frozen=True)
class Role:
    """One object of a clip.

    Attributes:
        label: Class, from 1.
        seen: True if it is visible; otherwise it is off screen but audible.
        sounds: For each second, whether it sounds.
    """

    label: int
    seen: bool
    sounds: tuple[bool, ...]


def write_script(
    rng: np.random.Generator,
    variant: Variant,
    seen: Sequence[int],
    audible: Sequence[int],
    seconds: int,
    cast: Sequence[int] = (),
    ambiguity: Ambiguity = "none",
    alike: Sequence[tuple[int, int]] = (),
) -> list[Role]:
    """Sample the roles of one clip, all of different classes.

    Args:
        rng: Random generator.
        variant: ``"s4"``: one visible object sounds throughout, the others are silent. ``"ms3"``, ``"avss"``: objects
            start and stop; some sounds come from off screen; some clips are silent.
        seen: Labels with images.
        audible: Labels with sounds.
        seconds: Length T of the clip.
        cast: Labels visible in this clip; one to four random ones if empty.
        ambiguity: ``"spatial"``: roles 0 and 1 are a pair of ``alike``, in either order; 0 sounds, 1 never does, and up
            to two more objects are visible. ``"temporal"``, not for s4 and for two seconds or more: a visible object
            sounds in every clip, and all sounds start or stop at about half of the seconds.
        alike: Pairs of visually similar labels, each with images and sounds; for ``"spatial"``.
    """
    both, silent = sorted(set(seen) & set(audible)), sorted(set(seen) - set(audible))
    pair = _pair(rng, alike) if ambiguity == "spatial" else []
    if pair:
        cast = pair + _some(rng, [label for label in both if label not in pair], int(rng.integers(_DISTRACTORS + 1)))
    if variant == "s4":
        source = pair[0] if pair else int(rng.choice(both))
        rest = [label for label in both if label != source]
        others = [c for c in cast if c != source] if cast else _visible(rng, rest, silent, int(rng.choice(4, p=_CAST)))
        return [Role(source, True, (True,) * seconds)] + [Role(o, True, (False,) * seconds) for o in others]
    cast = cast or _visible(rng, both, silent, int(rng.choice(4, p=_CAST)) + 1)
    able = [label for label in cast if label in both]
    most = min(_AT_ONCE, max(1, len(cast) - 1))  # with two or more visible objects, one never sounds
    count = 0 if ambiguity == "none" and rng.random() < 0.06 else int(rng.integers(1, most + 1))
    sounding = pair[:1] + _some(rng, [c for c in able if c not in pair], count - len(pair[:1]))
    times = _frequent_times if ambiguity == "temporal" else _times
    roles = [Role(c, True, times(rng, seconds) if c in sounding else (False,) * seconds) for c in cast]
    hidden = [label for label in audible if label not in cast]
    if hidden and rng.random() < 0.2:
        roles.append(Role(int(rng.choice(hidden)), False, times(rng, seconds)))
    return roles


def _pair(rng: np.random.Generator, alike: Sequence[tuple[int, int]]) -> list[int]:
    """Sample a similar pair: the sounding label, then the silent one."""
    return _some(rng, alike[int(rng.integers(len(alike)))], 2)


def _visible(rng: np.random.Generator, able: Sequence[int], silent: Sequence[int], count: int) -> list[int]:
    """Sample the visible labels: at most a third, on average, of labels without sounds, for any number of those."""
    few = _some(rng, silent, sum(rng.random() < 1 / 3 for _ in range(count - 1))) if silent else []
    return _some(rng, able, count - len(few)) + few


def _some(rng: np.random.Generator, labels: Sequence[int], count: int) -> list[int]:
    return [int(x) for x in rng.permutation(np.asarray(labels, dtype=np.int64))[:count]]


def _times(rng: np.random.Generator, seconds: int) -> tuple[bool, ...]:
    """Sample the sounding seconds: all, or switched on and off at random, at least one on."""
    if seconds == 1 or rng.random() < 0.45:
        return (True,) * seconds
    on: NDArray[np.bool_] = (rng.integers(2) + np.cumsum(rng.random(seconds) < 0.4)) % 2 == 1
    if not on.any():
        on[rng.integers(seconds)] = True
    return tuple(bool(x) for x in on)


def _frequent_times(rng: np.random.Generator, seconds: int) -> tuple[bool, ...]:
    """Sample sounding seconds that change at about half of the boundaries between seconds, at least once."""
    changes = rng.random(seconds - 1) < 0.5
    if not changes.any():
        changes[rng.integers(seconds - 1)] = True
    on = (rng.integers(2) + np.cumsum([False, *changes])) % 2 == 1
    return tuple(bool(x) for x in on)
