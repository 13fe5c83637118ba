"""Opacity of the sounding objects."""

import numpy as np
from numpy.typing import NDArray

from avseg.errors import ConfigError
from avseg.outputs._base import OutputFrame


def check_softness(softness: float) -> None:
    """Raise ConfigError unless ``softness`` is in 0..1."""
    if not 0 <= softness <= 1:
        raise ConfigError(f"softness must be between 0 (hard edges) and 1, got {softness}")


def opacity(frame: OutputFrame, softness: float) -> NDArray[np.uint8]:
    """Return the opacity of a frame, (H, W) uint8, which rises with the probability: 128 (half) at the threshold.

    Args:
        frame: The frame.
        softness: Width of the ramp in probability. 0 gives the mask, which is 0 at the threshold and 255 above; 1 gives
            the probability if the threshold is 0.5.
    """
    probability, threshold = frame.probability, frame.record.threshold
    if softness == 0:
        return np.where(probability > threshold, np.uint8(255), np.uint8(0))
    ramp = (probability - np.float32(threshold)) * np.float32(1 / softness) + np.float32(0.5)
    return np.asarray(np.round(np.clip(ramp, 0, 1) * np.float32(255)), np.uint8)
