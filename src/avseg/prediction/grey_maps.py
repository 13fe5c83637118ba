"""Maps of values in 0..1 as small 8-bit grey PNGs, so that those of an hour of video fit into memory."""

from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.media.images import enlarged

LEVELS = 255
"""Level of a pixel at 1."""


class GreyMap(NamedTuple):
    """A map of one frame.

    Attributes:
        size: (h, w) of the map.
        png: The map as an 8-bit grey PNG; 255 is 1.
    """

    size: tuple[int, int]
    png: bytes


def pack(values: NDArray[np.float32], longest: int) -> GreyMap:
    """Compress a map; its size is reduced by averaging areas.

    Args:
        values: (h, w), 0..1.
        longest: Largest length in pixels of the longer side; a smaller map keeps its size.
    """
    image = Image.fromarray(values)
    if (longer := max(image.size)) > longest:
        width, height = (max(1, round(side * longest / longer)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    png = BytesIO()
    Image.fromarray(quantised(np.asarray(image))).save(png, "PNG")
    return GreyMap((image.height, image.width), png.getvalue())


def unpack(packed: GreyMap, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return a map enlarged bilinearly to (H, W), 0..1, as the transpose of a C-contiguous array."""
    return enlarged(values(packed).T, size).T


def values(packed: GreyMap) -> NDArray[np.float32]:
    """Return a map at its own size, (h, w), 0..1."""
    return np.asarray(levels(packed) / np.float32(LEVELS), np.float32)


def levels(packed: GreyMap) -> NDArray[np.uint8]:
    """Return the levels of a map, (h, w), 0..255."""
    with Image.open(BytesIO(packed.png)) as image:
        return np.asarray(image)


def quantised(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert 0..1 to 0..255."""
    return np.round(values * np.float32(LEVELS)).astype(np.uint8)
