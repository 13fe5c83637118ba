"""From a model's probabilities to the regions of one picture, at the picture's own size."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avseg.media.images import enlarged
from avseg.media.rle import RLE, encode
from avseg.prediction.uncertainty import UncertaintyMap, unpack

Maps = NDArray[np.float32]
_Masks = tuple[Maps, list[tuple[int, NDArray[np.bool_]]]]
"""The winner's probability at every pixel, and each class with its pixels; all (W, H)."""


class Region(NamedTuple):
    """All pixels of one class in one picture.

    Attributes:
        label: The class; 0, the background, is never a region.
        score: Mean probability of the class over the region's pixels.
        rle: The pixels.
        uncertainty: Mean of the frame's uncertainty over the region's pixels; None when it was not asked for.
    """

    label: int
    score: float
    rle: RLE
    uncertainty: float | None = None


class Frame(NamedTuple):
    """One picture of a video.

    Attributes:
        time: When it appears, in seconds since the start of the file.
        regions: What sounds in it, by rising label.
        uncertainty: How little the model knows about it; None when it was not asked for.
    """

    time: float
    regions: tuple[Region, ...]
    uncertainty: UncertaintyMap | None = None


def find_regions(
    probabilities: Maps, size: tuple[int, int], uncertainty: UncertaintyMap | None = None
) -> tuple[Region, ...]:
    """The regions of one picture, by rising label; a class without pixels has none.

    Probabilities are enlarged bilinearly before they are compared, so contours are smooth at any size. With one
    channel a pixel sounds when its probability is above 0.5; with several it gets the likeliest class, at a tie
    the lower one.

    Args:
        probabilities: (K, h, w) float32: sigmoid for K = 1, softmax with the background first for K > 1.
        size: (H, W) of the picture.
        uncertainty: Of the picture, for the regions' means of it.
    """
    columns = probabilities.swapaxes(1, 2)  # run lengths go down the columns: each in consecutive memory
    best, masks = _loudest(columns[0], size) if len(columns) == 1 else _likeliest(columns, size)
    found = [(label, mask) for label, mask in masks if mask.any()]
    doubt = unpack(uncertainty, size).T if uncertainty and found else None
    return tuple(_region(label, mask, best, doubt) for label, mask in found)


def _loudest(sounding: Maps, size: tuple[int, int]) -> _Masks:
    if sounding.max() <= 0.5:
        return np.zeros(0, np.float32), []
    probability = enlarged(sounding, size)
    return probability, [(1, probability > 0.5)]


def _likeliest(columns: Maps, size: tuple[int, int]) -> _Masks:
    best, labels = enlarged(columns[0], size), np.zeros(size[::-1], np.uint8)
    # A pixel's winner has at least its fair share, so a class that has it nowhere wins nowhere.
    possible = [k for k in range(1, len(columns)) if columns[k].max() >= 1 / len(columns)]
    for label in possible:
        probability = enlarged(columns[label], size)
        labels[probability > best] = label
        np.maximum(best, probability, out=best)
    return best, [(label, labels == label) for label in possible]


def _region(label: int, mask: NDArray[np.bool_], probability: Maps, doubt: Maps | None) -> Region:
    """From (W, H) arrays."""
    unsure = None if doubt is None else _mean(doubt, mask)
    return Region(label, _mean(probability, mask), encode(mask.T), unsure)


def _mean(values: Maps, mask: NDArray[np.bool_]) -> float:
    return round(float(np.dot(values.ravel(), mask.ravel())) / int(np.count_nonzero(mask)), 4)
