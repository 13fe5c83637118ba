"""Convert the probabilities of a model to the regions of one frame, at the size of the frame."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avseg.media.images import enlarged
from avseg.media.rle import RLE, encode
from avseg.prediction.grey_maps import GreyMap
from avseg.prediction.objects import NamedObject
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
        probability: Probability that a pixel belongs to a sounding class, before the threshold; None if not kept.
        objects: Kinds of objects with the highest scores, of a model that scores them.
    """

    time: float
    regions: tuple[Region, ...]
    uncertainty: UncertaintyMap | None = None
    probability: GreyMap | None = None
    objects: tuple[NamedObject, ...] = ()


def find_regions(
    probabilities: Maps,
    size: tuple[int, int],
    uncertainty: UncertaintyMap | None = None,
    *,
    threshold: float = 0.5,
    labels: Sequence[int] | None = None,
) -> tuple[Region, ...]:
    """Return the regions of one frame, sorted by label; a class without pixels has none.

    Probabilities are enlarged bilinearly before they are compared, so that contours are smooth at any size. With one
    channel, a pixel is foreground if its probability is above the threshold; with several, it gets the class of the
    highest probability, at a tie the lower label. In the comparison, the probability of the background is multiplied
    by ``threshold / (1 - threshold)``.

    Args:
        probabilities: (K, h, w) float32: sigmoid for K = 1, softmax with the background first for K > 1.
        size: (H, W) of the frame.
        uncertainty: Uncertainty of the frame, to average over the regions.
        threshold: Above 0, below 1.
        labels: Class of each channel, from :func:`possible_labels`; by default, the channels are all classes.
    """
    columns = probabilities.swapaxes(1, 2)  # run lengths go down the columns: each in consecutive memory
    if len(columns) == 1 and labels is None:
        best, masks = _binary(columns[0], size, threshold)
    else:
        if labels is None:
            labels = possible_labels(probabilities, threshold)
            columns = columns[labels]
        best, masks = _semantic(columns, size, threshold, labels)
    found = [(label, mask) for label, mask in masks if mask.any()]
    values = unpack(uncertainty, size).T if uncertainty and found else None
    return tuple(_region(label, mask, best, values) for label, mask in found)


def possible_labels(probabilities: Maps, threshold: float = 0.5) -> list[int]:
    """Return 0 and the classes of a softmax (K, h, w) that can be predicted for some pixel, at any size.

    The predicted class has the highest of K probabilities whose sum is 1, that of the background being scaled by the
    threshold, so it is above a bound: 1 / K for the threshold 0.5.
    """
    least = 1 / ((1 - threshold) / threshold + len(probabilities) - 1)
    return [0, *(k for k in range(1, len(probabilities)) if probabilities[k].max() >= least)]


def _binary(foreground: Maps, size: tuple[int, int], threshold: float) -> _Masks:
    if foreground.max() <= threshold:
        return np.zeros(0, np.float32), []
    probability = enlarged(foreground, size)
    return probability, [(1, probability > threshold)]


def _semantic(columns: Maps, size: tuple[int, int], threshold: float, classes: Sequence[int]) -> _Masks:
    best, labels = enlarged(columns[0], size), np.zeros(size[::-1], np.uint8)
    if threshold != 0.5:
        best *= np.float32(threshold / (1 - threshold))
    for label, column in zip(classes[1:], columns[1:], strict=True):
        probability = enlarged(column, size)
        labels[probability > best] = label
        np.maximum(best, probability, out=best)
    return best, [(label, labels == label) for label in classes[1:]]


def _region(label: int, mask: NDArray[np.bool_], probability: Maps, uncertainty: Maps | None) -> Region:
    """Return the region of a mask; all arrays are (W, H)."""
    mean = None if uncertainty is None else _mean(uncertainty, mask)
    return Region(label, _mean(probability, mask), encode(mask.T), mean)


def _mean(values: Maps, mask: NDArray[np.bool_]) -> float:
    return round(float(np.dot(values.ravel(), mask.ravel())) / int(np.count_nonzero(mask)), 4)
