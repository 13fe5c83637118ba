"""Visual similarity of two objects: overlap of their outlines and of their colour histograms."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.synthesis.sprites.canvas import CutOut

_AREA = 12.0
"""Outlines are scaled to the area of a square of this side before the comparison."""
_FIELD = 48
"""Side in pixels of the canvas on which outlines are compared, centred on their centre of mass."""
_OPAQUE = 127
_LEVELS = 4
"""Levels per channel in the colour histogram."""


def likeness(some: Sequence[CutOut], others: Sequence[CutOut]) -> NDArray[np.float64]:
    """Return the geometric mean of outline overlap and colour overlap: 1 for equal images.

    Outline overlap: intersection over union at equal area and centre, maximum over the transformations of a scene:
    mirrored or not, and in quarter turns if neither of the two has to be upright. Colour overlap: histogram
    intersection.

    Args:
        some: N objects.
        others: M objects.

    Returns:
        (N, M), 0..1.
    """
    outlines = np.stack([_outline(thing.image) for thing in some])
    shared = np.zeros((len(some), len(others)))
    for m, other in enumerate(others):
        for way, view in enumerate(_views(other.image)):
            fitting = [way < 2 or not (other.upright or thing.upright) for thing in some]
            shared[fitting, m] = np.maximum(shared[fitting, m], _overlap(outlines[fitting], _outline(view)))
    palettes = [np.stack([_palette(thing.image) for thing in things]) for things in (some, others)]
    both: NDArray[np.float64] = np.minimum(palettes[0][:, None], palettes[1]).sum(2)
    return np.sqrt(shared * both)


def _views(image: Image.Image) -> list[Image.Image]:
    """Return the image and its mirror image, then both in quarter turns."""
    ways = [image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return ways + [way.rotate(turn, expand=True) for turn in (90, 180, 270) for way in ways]


def _outline(image: Image.Image) -> NDArray[np.bool_]:
    """Return the outline, scaled to the common area and centred, (field, field)."""
    alpha = image.getchannel("A")
    factor = _AREA / float((np.asarray(alpha) > _OPAQUE).sum()) ** 0.5
    small = alpha.resize((max(1, round(alpha.width * factor)), max(1, round(alpha.height * factor))))
    y, x = np.nonzero(np.asarray(small) > _OPAQUE)
    field = Image.new("L", (_FIELD, _FIELD))
    field.paste(small, (round(_FIELD / 2 - float(x.mean())), round(_FIELD / 2 - float(y.mean()))))
    return np.asarray(field) > _OPAQUE


def _overlap(some: NDArray[np.bool_], one: NDArray[np.bool_]) -> NDArray[np.float64]:
    both: NDArray[np.float64] = (some & one).sum((1, 2)) / (some | one).sum((1, 2))
    return both


def _palette(image: Image.Image) -> NDArray[np.float64]:
    """Return the colour histogram of the object over 64 colours."""
    pixels = np.asarray(image)
    level = pixels[pixels[..., 3] > _OPAQUE][:, :3].astype(np.int64) * _LEVELS // 256
    counts = np.bincount(level @ np.array([_LEVELS**2, _LEVELS, 1]), minlength=_LEVELS**3)
    return np.asarray(counts / counts.sum())
