"""Random appearance and sound, with regions of every parameter kept apart for train, val and test."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from avseg.colours import Colour, hsv

CELLS = 5
"""Each parameter's range is cut into this many cells; every cell holds a part for each split."""
REGIONS = {"train": (0.00, 0.62), "val": (0.66, 0.80), "test": (0.84, 0.98)}
"""Part of a cell each split draws from; the gaps between belong to nobody."""

T = TypeVar("T")

_SKIN = ((72, 46, 34), (115, 74, 51), (159, 107, 77), (202, 150, 117), (228, 185, 152), (243, 212, 190))


class Traits:
    """Draws parameters of one thing or sound.

    Args:
        rng: Source of chance.
        split: Whose region of each parameter to draw from.
    """

    def __init__(self, rng: np.random.Generator, split: str) -> None:
        self.rng = rng
        self.region = REGIONS[split]

    def position(self) -> float:
        """A place in 0..1 that only this split can draw."""
        low, high = self.region
        within = low + (high - low) * self.rng.random()
        return float((self.rng.integers(CELLS) + within) / CELLS)

    def uniform(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high`` from this split's region."""
        return low + (high - low) * self.position()

    def pitch(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high`` from this split's region, even on a logarithmic scale."""
        return float(low * (high / low) ** self.position())

    def free(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high`` that all splits share: pose, timing, chance."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[T]) -> T:
        """One of a few kinds; kinds are shared by the splits, their parameters are not."""
        return options[int(self.rng.integers(len(options)))]

    def colour(
        self,
        hue: tuple[float, float] = (0.0, 1.0),
        saturation: tuple[float, float] = (0.3, 0.95),
        value: tuple[float, float] = (0.25, 1.0),
    ) -> Colour:
        """A colour whose hue (of 0..1), saturation and value lie in these ranges."""
        return hsv(self.uniform(*hue), self.uniform(*saturation), self.uniform(*value))

    def skin(self) -> Colour:
        """A skin colour, from dark to light."""
        place = self.uniform(0.0, len(_SKIN) - 1.001)
        low, rest = int(place), place % 1.0
        return mix(_SKIN[low], _SKIN[low + 1], rest)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """``a`` with this share of ``b``."""
    r, g, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return r, g, blue


def shade(colour: Colour, factor: float) -> Colour:
    """The colour darker (factor below 1) or lighter."""
    r, g, b = (min(255, max(0, round(c * factor))) for c in colour)
    return r, g, b
