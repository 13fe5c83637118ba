"""Uncertainty maps of frames, compressed so that those of an hour of video fit into memory.

A model that estimates its uncertainty returns a map of that name (:data:`MAP`), from 0 (certain) to 1 (uncertain). The
map of a frame is stored as an 8-bit grey PNG whose longer side is at most :data:`LONGEST` pixels: maps are smooth,
and this takes a few kB.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avseg.errors import ConfigError
from avseg.interface import Prediction
from avseg.prediction import grey_maps
from avseg.prediction.grey_maps import LEVELS, GreyMap

MAP = "uncertainty"
"""Name of the map in :attr:`avseg.interface.Prediction.maps`."""
LONGEST = 64
"""Largest length in pixels of the longer side of a stored map; a smaller map keeps its size."""
_SLACK = 1e-3
"""Tolerance for values outside 0..1 by rounding errors: less than half a level."""


class UncertaintyMap(NamedTuple):
    """Uncertainty of one frame.

    Attributes:
        mean: Mean over the map, 0..1.
        size: (h, w) of the map.
        png: The map as an 8-bit grey PNG; 255 is uncertainty 1.
    """

    mean: float
    size: tuple[int, int]
    png: bytes


def predicted_maps(prediction: Prediction, model: str) -> NDArray[np.float32]:
    """Return the uncertainty maps (T, h, w) of the prediction for one clip.

    Args:
        prediction: Prediction with ``maps=True`` for one clip.
        model: Name of the model, for errors.

    Raises:
        ConfigError: When the prediction has no such map, or its shape or values are wrong.
    """
    found = prediction.maps.get(MAP)
    if found is None:
        raise ConfigError(
            f"this model ({model}) does not estimate its uncertainty: train ama_ue with uncertainty on and give its "
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
    """Compress a map; its size is reduced by averaging areas.

    Args:
        values: (h, w), 0..1.
    """
    packed = grey_maps.pack(values, LONGEST)
    return UncertaintyMap(round(float(grey_maps.levels(packed).mean()) / LEVELS, 4), *packed)


def unpack(packed: UncertaintyMap, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the map enlarged bilinearly to (H, W), 0..1, as the transpose of a C-contiguous array."""
    return grey_maps.unpack(GreyMap(packed.size, packed.png), size)
