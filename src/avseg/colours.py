"""Colours of labels: one colour per label, in every picture and palette PNG that the package writes."""

from colorsys import hsv_to_rgb
from functools import cache

import numpy as np
from numpy.typing import NDArray

from avseg.interface import IGNORE

Colour = tuple[int, int, int]

_BASE: tuple[Colour, ...] = (
    (230, 60, 150),
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)
"""Magenta, which is rare in photographs, then colours that are distinct with every kind of colour vision (Okabe & Ito,
"Color Universal Design", 2008): sky blue, orange, green, yellow, blue, vermilion."""
_BLENDS = ((0.0, 0.0), (255.0, 0.5), (0.0, 0.4))
"""Grey level and its share in the first, second and third use of :data:`_BASE`."""
_GOLDEN = 0.618033988749895


def colour(label: int) -> Colour:
    """Return the RGB colour of a label: black for the background (0), grey for ignored pixels (255).

    Labels 1..7 have the colours of :data:`_BASE`, 8..21 lighter and darker ones, all others hues at the golden angle.
    """
    if label in (0, IGNORE):
        return (0, 0, 0) if label == 0 else (150, 150, 150)
    use, which = divmod(label - 1, len(_BASE))
    if use >= len(_BLENDS):
        return hsv(label * _GOLDEN % 1.0, (0.9, 0.55, 0.75)[label % 3], (1.0, 0.75)[label % 2])
    grey, share = _BLENDS[use]
    r, g, b = (round(value * (1 - share) + grey * share) for value in _BASE[which])
    return r, g, b


@cache
def palette(labels: int = 256) -> NDArray[np.uint8]:
    """Return the colours of the labels 0 … ``labels`` - 1 as a read-only array (labels, 3)."""
    colours = np.array([colour(label) for label in range(labels)], np.uint8)
    colours.flags.writeable = False
    return colours


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return RGB in 0..255 from hue, saturation and value in 0..1; the hue wraps around."""
    r, g, b = (round(255.0 * channel) for channel in hsv_to_rgb(hue % 1.0, saturation, value))
    return r, g, b
