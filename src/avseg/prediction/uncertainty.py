"""How little a model knows about each pixel of a picture, kept so small that an hour of video fits into memory.

A model that estimates its uncertainty answers with a map of that name (:data:`MAP`): 0 is sure, 1 knows nothing. One
such map per picture is kept as a grey PNG of 256 levels, :data:`LONGEST` pixels long at most: it is smooth, and a few
kB are what a picture may cost.
"""

from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.errors import ConfigError
from avseg.interface import Prediction
from avseg.media.images import enlarged

MAP = "uncertainty"
"""Its name in :attr:`avseg.interface.Prediction.maps`."""
LONGEST = 64
"""Pixels of the longer side of a map that is kept; a smaller one keeps its size."""
_LEVELS = 255
_SLACK = 1e-3
"""How far beyond 0 and 1 rounding may take a value: less than half a level."""


class UncertaintyMap(NamedTuple):
    """The uncertainty about one picture.

    Attributes:
        mean: Over the map's pixels, 0..1.
        size: (h, w) of the map.
        png: The map as an 8-bit grey PNG; 255 knows nothing.
    """

    mean: float
    size: tuple[int, int]
    png: bytes


def answered(prediction: Prediction, model: str) -> NDArray[np.float32]:
    """The map of a model's answer to one clip: (T, h, w).

    Args:
        prediction: Made with ``maps=True``, of one clip.
        model: The model's name, to be named when it has no such map.

    Raises:
        ConfigError: When it has none, or one that is none.
    """
    found = prediction.maps.get(MAP)
    if found is None:
        raise ConfigError(
            f"this model ({model}) does not say how uncertain it is: train ama_ue with uncertainty on and name its "
            "folder (--model FOLDER), or show masks (--show masks)"
        )
    expected = (1, prediction.logits.shape[1], 1)
    if found.ndim != 5 or tuple(found.shape[:3]) != expected:
        raise ConfigError(f"{model}'s map {MAP!r} must be (B, T, 1, h, w), here {expected}, got {tuple(found.shape)}")
    values: NDArray[np.float32] = found[0, :, 0].float().cpu().numpy()
    if not (values.min() >= -_SLACK and values.max() <= 1 + _SLACK):
        raise ConfigError(f"{model}'s map {MAP!r} must be 0..1, got {values.min():.4g}..{values.max():.4g}")
    return values


def pack(values: NDArray[np.float32]) -> UncertaintyMap:
    """Make a map small; averages areas.

    Args:
        values: (h, w), 0..1.
    """
    image = Image.fromarray(values)
    if (longer := max(image.size)) > LONGEST:
        width, height = (max(1, round(side * LONGEST / longer)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    levels = quantised(np.asarray(image))
    png = BytesIO()
    Image.fromarray(levels).save(png, "PNG")
    return UncertaintyMap(round(float(levels.mean()) / _LEVELS, 4), (image.height, image.width), png.getvalue())


def unpack(kept: UncertaintyMap, size: tuple[int, int]) -> NDArray[np.float32]:
    """The map at the (H, W) of its picture, enlarged bilinearly: the transpose of a C-contiguous array, 0..1."""
    with Image.open(BytesIO(kept.png)) as image:
        levels = np.asarray(image, np.float32)
    return enlarged(levels.T / np.float32(_LEVELS), size).T


def quantised(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0..1 as 0..255."""
    return np.round(values * np.float32(_LEVELS)).astype(np.uint8)
