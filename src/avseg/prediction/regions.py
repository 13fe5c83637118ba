"""Convert the probabilities of a model to the regions of one frame, at the size of the frame."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avseg.media.images import enlarged
from avseg.media.rle import RLE, encode
from avseg.prediction.uncertainty import UncertaintyMap, unpack

Maps = NDArray[np.float32]
_Masks = tuple[Maps, list[tuple[int, NDArray[np.bool_]]]]
"""Probability of the predicted class at every pixel, and each label with its mask; all (W, H)."""


class Region(NamedTuple):
    """All pixels of one class in one frame.

    Attributes:
        label: Label of the class, 1 or more: the background is not a region.
        score: Mean probability of the class over the region.
        rle: Mask as run lengths.
        uncertainty: Mean uncertainty over the region; None if it is not requested.
    """

    label: int
    score: float
    rle: RLE
    uncertainty: float | None = None


class Frame(NamedTuple):
    """Prediction for one frame of a video.

    Attributes:
        time: Start of the frame, in seconds since the start of the file.
        regions: Regions of the sounding classes, sorted by label.
        uncertainty: Uncertainty of the pixels; None if it is not requested.
    """

    time: float
    regions: tuple[Region, ...]
    uncertainty: UncertaintyMap | None = None


def find_regions(
    probabilities: Maps, size: tuple[int, int], uncertainty: UncertaintyMap | None = None
) -> tuple[Region, ...]:
    """Return the regions of one frame, sorted by label; a class without pixels has none.

    Probabilities are enlarged bilinearly before they are compared, so that contours are smooth at any size. With one
    channel, a pixel is foreground if its probability is above 0.5; with several, it gets the class of the highest
    probability, at a tie the lower label.

    Args:
        probabilities: (K, h, w) float32: sigmoid for K = 1, softmax with the background first for K > 1.
        size: (H, W) of the frame.
        uncertainty: Uncertainty of the frame, to average over the regions.
    """
    columns = probabilities.swapaxes(1, 2)  # run lengths go down the columns: each in consecutive memory
    best, masks = _binary(columns[0], size) if len(columns) == 1 else _semantic(columns, size)
    found = [(label, mask) for label, mask in masks if mask.any()]
    values = unpack(uncertainty, size).T if uncertainty and found else None
    return tuple(_region(label, mask, best, values) for label, mask in found)


def _binary(foreground: Maps, size: tuple[int, int]) -> _Masks:
    if foreground.max() <= 0.5:
        return np.zeros(0, np.float32), []
    probability = enlarged(foreground, size)
    return probability, [(1, probability > 0.5)]


def _semantic(columns: Maps, size: tuple[int, int]) -> _Masks:
    best, labels = enlarged(columns[0], size), np.zeros(size[::-1], np.uint8)
    # The highest of K probabilities is 1 / K or more, so a class that is below it everywhere is predicted nowhere.
    possible = [k for k in range(1, len(columns)) if columns[k].max() >= 1 / len(columns)]
    for label in possible:
        probability = enlarged(columns[label], size)
        labels[probability > best] = label
        np.maximum(best, probability, out=best)
    return best, [(label, labels == label) for label in possible]


def _region(label: int, mask: NDArray[np.bool_], probability: Maps, uncertainty: Maps | None) -> Region:
    """Return the region of a mask; all arrays are (W, H)."""
    mean = None if uncertainty is None else _mean(uncertainty, mask)
    return Region(label, _mean(probability, mask), encode(mask.T), mean)


def _mean(values: Maps, mask: NDArray[np.bool_]) -> float:
    return round(float(np.dot(values.ravel(), mask.ravel())) / int(np.count_nonzero(mask)), 4)
