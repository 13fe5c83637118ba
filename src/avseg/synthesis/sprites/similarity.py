"""How much alike two things look: their outlines, laid over each other, and their colours."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.synthesis.sprites.canvas import CutOut

_AREA = 12.0
"""Outlines are compared at this size: side of the square with their area."""
_FIELD = 48
"""Pixels of the square they are laid on, centre of mass on centre."""
_OPAQUE = 127
_LEVELS = 4
"""Of each of red, green and blue, for the histogram of colours."""


def likeness(some: Sequence[CutOut], others: Sequence[CutOut]) -> NDArray[np.float64]:
    """The geometric mean of how much two outlines and two palettes share: 1 for one picture twice.

    Outlines: intersection over union, of equal area and with one centre, the best of the ways in which a scene may
    show a thing: mirrored or not, and in quarter turns where neither of the two has to be upright. Palettes: the
    intersection of their histograms.

    Args:
        some: N things.
        others: M things.

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
    """As it is and mirrored; then both in quarter turns."""
    ways = [image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return ways + [way.rotate(turn, expand=True) for turn in (90, 180, 270) for way in ways]


def _outline(image: Image.Image) -> NDArray[np.bool_]:
    """(field, field): where the thing is when it has the common area and lies in the middle."""
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
    """Shares of the thing's pixels with each of 64 colours."""
    pixels = np.asarray(image)
    level = pixels[pixels[..., 3] > _OPAQUE][:, :3].astype(np.int64) * _LEVELS // 256
    counts = np.bincount(level @ np.array([_LEVELS**2, _LEVELS, 1]), minlength=_LEVELS**3)
    return np.asarray(counts / counts.sum())
