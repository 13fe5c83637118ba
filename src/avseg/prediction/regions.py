"""From a model's probabilities to the regions of one picture, at the picture's own size."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avseg.prediction.rle import RLE, encode

Maps = NDArray[np.float32]
_Masks = tuple[Maps, list[tuple[int, NDArray[np.bool_]]]]
"""The winner's probability at every pixel, and each class with its pixels; all (W, H)."""


class Region(NamedTuple):
    """All pixels of one class in one picture.

    Attributes:
        label: The class; 0, the background, is never a region.
        score: Mean probability of the class over the region's pixels.
        rle: The pixels.
    """

    label: int
    score: float
    rle: RLE


class Frame(NamedTuple):
    """One picture of a video.

    Attributes:
        time: When it appears, in seconds since the start of the file.
        regions: What sounds in it, by rising label.
    """

    time: float
    regions: tuple[Region, ...]


def find_regions(probabilities: Maps, size: tuple[int, int]) -> tuple[Region, ...]:
    """The regions of one picture, by rising label; a class without pixels has none.

    Probabilities are enlarged bilinearly before they are compared, so contours are smooth at any size. With one
    channel a pixel sounds when its probability is above 0.5; with several it gets the likeliest class, at a tie
    the lower one.

    Args:
        probabilities: (K, h, w) float32: sigmoid for K = 1, softmax with the background first for K > 1.
        size: (H, W) of the picture.
    """
    columns = probabilities.swapaxes(1, 2)  # run lengths go down the columns: each in consecutive memory
    best, masks = _loudest(columns[0], size) if len(columns) == 1 else _likeliest(columns, size)
    return tuple(_region(label, mask, best) for label, mask in masks if mask.any())


def _loudest(sounding: Maps, size: tuple[int, int]) -> _Masks:
    if sounding.max() <= 0.5:
        return np.zeros(0, np.float32), []
    probability = _enlarged(sounding, size)
    return probability, [(1, probability > 0.5)]


def _likeliest(columns: Maps, size: tuple[int, int]) -> _Masks:
    best, labels = _enlarged(columns[0], size), np.zeros(size[::-1], np.uint8)
    # A pixel's winner has at least its fair share, so a class that has it nowhere wins nowhere.
    possible = [k for k in range(1, len(columns)) if columns[k].max() >= 1 / len(columns)]
    for label in possible:
        probability = _enlarged(columns[label], size)
        labels[probability > best] = label
        np.maximum(best, probability, out=best)
    return best, [(label, labels == label) for label in possible]


def _region(label: int, mask: NDArray[np.bool_], probability: Maps) -> Region:
    """From (W, H) arrays."""
    score = float(np.dot(probability.ravel(), mask.ravel())) / int(np.count_nonzero(mask))
    return Region(label, round(score, 4), encode(mask.T))


def _enlarged(columns: Maps, size: tuple[int, int]) -> Maps:
    """(w, h) → (W, H), bilinearly, pixel centres on pixel centres; numpy, as torch's threads cost more than this."""
    return _stretched(_stretched(columns, size[0], axis=1), size[1], axis=0)


def _stretched(values: Maps, length: int, axis: int) -> Maps:
    old = values.shape[axis]
    place = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
    left = place.astype(np.intp)
    share = (place - left).astype(np.float32)
    rise: Maps = np.diff(values, axis=axis, append=values.take([old - 1], axis))
    stretched: Maps = rise.take(left, axis)
    stretched *= share if axis == 1 else share[:, None]
    stretched += values.take(left, axis)
    return stretched
