"""A colour for every label, the same in every picture the package makes of labels."""

from colorsys import hsv_to_rgb

from avseg.interface import IGNORE

Colour = tuple[int, int, int]

_FIRST: tuple[Colour, ...] = (
    (250, 99, 80), (47, 158, 244), (255, 193, 38), (64, 192, 87), (190, 75, 219), (21, 200, 190),
    (255, 140, 20), (92, 108, 250), (170, 214, 40), (240, 90, 160), (160, 110, 70), (120, 190, 250),
)  # fmt: skip
_GOLDEN = 0.618033988749895


def colour(label: int) -> Colour:
    """Black for the background, grey for what is not scored, else a colour unlike those of the labels before."""
    if label in (0, IGNORE):
        return (0, 0, 0) if label == 0 else (150, 150, 150)
    if label <= len(_FIRST):
        return _FIRST[label - 1]
    return hsv(label * _GOLDEN % 1.0, (0.9, 0.55, 0.75)[label % 3], (1.0, 0.75)[label % 2])


def palette() -> list[int]:
    """The colours of labels 0..255, one after the other, for a palette PNG."""
    return [value for label in range(256) for value in colour(label)]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return RGB in 0..255 from hue, saturation and value in 0..1; the hue wraps around."""
    r, g, b = (round(255.0 * channel) for channel in hsv_to_rgb(hue % 1.0, saturation, value))
    return r, g, b
