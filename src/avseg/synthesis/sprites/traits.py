"""Sample parameters of appearance and sound from disjoint regions for train, val and test."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from avseg.colours import Colour, hsv

CELLS = 5
"""Number of cells of each parameter's range; every cell has a region for each split."""
REGIONS = {"train": (0.00, 0.62), "val": (0.66, 0.80), "test": (0.84, 0.98)}
"""Region of a cell from which each split samples; the gaps between the regions are not used."""

T = TypeVar("T")

_SKIN = ((72, 46, 34), (115, 74, 51), (159, 107, 77), (202, 150, 117), (228, 185, 152), (243, 212, 190))


class Traits:
    """Sample the parameters of one object or sound.

    Args:
        rng: Random generator.
        split: Split that selects the region of each parameter.
    """

    def __init__(self, rng: np.random.Generator, split: str) -> None:
        self.rng = rng
        self.region = REGIONS[split]

    def position(self) -> float:
        """Sample a position in 0..1 from this split's regions."""
        low, high = self.region
        within = low + (high - low) * self.rng.random()
        return float((self.rng.integers(CELLS) + within) / CELLS)

    def uniform(self, low: float, high: float) -> float:
        """Sample uniformly between ``low`` and ``high`` from this split's regions."""
        return low + (high - low) * self.position()

    def pitch(self, low: float, high: float) -> float:
        """Sample log-uniformly between ``low`` and ``high`` from this split's regions."""
        return float(low * (high / low) ** self.position())

    def free(self, low: float, high: float) -> float:
        """Sample uniformly between ``low`` and ``high``, equally in all splits: for pose and timing."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Return True with that probability."""
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[T]) -> T:
        """Choose one of several options, equally in all splits."""
        return options[int(self.rng.integers(len(options)))]

    def colour(
        self,
        hue: tuple[float, float] = (0.0, 1.0),
        saturation: tuple[float, float] = (0.3, 0.95),
        value: tuple[float, float] = (0.25, 1.0),
    ) -> Colour:
        """Sample a colour with hue (of 0..1), saturation and value in these ranges."""
        return hsv(self.uniform(*hue), self.uniform(*saturation), self.uniform(*value))

    def skin(self) -> Colour:
        """Sample a skin colour, from dark to light."""
        place = self.uniform(0.0, len(_SKIN) - 1.001)
        low, rest = int(place), place % 1.0
        return mix(_SKIN[low], _SKIN[low + 1], rest)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Interpolate from ``a`` to ``b``: 0 gives ``a``, 1 gives ``b``."""
    r, g, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return r, g, blue


def shade(colour: Colour, factor: float) -> Colour:
    """Scale a colour: darker for a factor below 1, else lighter."""
    r, g, b = (min(255, max(0, round(c * factor))) for c in colour)
    return r, g, b
