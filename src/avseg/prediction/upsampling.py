"""Enlarge probabilities from the grid of a model so that their contours follow the edges of the picture.

The filter is the fast guided filter of He & Sun ("Fast Guided Filter", arXiv 1505.00996) with a colour guide: in each
window, the probability is approximated by a linear function of the colour (least squares with a ridge). The
coefficients are computed at a reduced size and enlarged; the function is evaluated at the size of the guide.

If colour does not predict the probability, such as between two parts of the same texture, the fit would blur the
contour. There the bilinear value is kept: ``q = p + w (fit - p)``, ``w`` the multiple correlation of the probability
and the colour in the window.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from avseg.media.images import enlarged

Maps = NDArray[np.float32]

LONGEST = 480
"""Largest length in pixels of the longer side of a guide."""
RIDGE = 1e-4
"""Variance of the colour (0..1) in a window that shapes the probability to one half."""
WINDOW = 12.0
"""Radius of a window in pixels of the model's output: three cells of its grid, which has stride 4."""
REDUCTION = 8
"""Factor by which the coefficients are computed at a smaller size than that of the guide."""
FAINT = 0.05
"""Largest probability in a frame below which its contours are not refined: it has none that matters."""
_NOISE = 1e-4
"""Variance of the probability that counts as none."""


def guide_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of the guide for frames of a size: at most :data:`LONGEST`, same aspect ratio."""
    factor = min(1.0, LONGEST / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def refined(probabilities: Maps, guide: NDArray[np.uint8]) -> Maps:
    """Return probabilities enlarged to the size of a guide, with contours along its edges.

    Args:
        probabilities: (K, h, w) float32 in 0..1, at the size of a model's output.
        guide: (H, W, 3) RGB of the frame.

    Returns:
        (K, H, W) float32 in 0..1.
    """
    size = guide.shape[:2]
    small = max(1, size[0] // REDUCTION), max(1, size[1] // REDUCTION)
    window = [2 * max(1, round(WINDOW * n / m)) + 1 for n, m in zip(small, probabilities.shape[1:], strict=True)]
    planes = [guide[..., c].astype(np.float32) / np.float32(255) for c in range(3)]
    colours = np.stack([_resized(plane, small) for plane in planes])
    means = _means(colours, window)
    inverse = np.linalg.inv(_covariance(colours, means, window))
    result = np.empty((len(probabilities), *size), np.float32)
    for row, probability in zip(result, probabilities, strict=True):
        *slopes, offset, kept = _fit(_resized(probability, small), colours, means, inverse, window)
        row[:] = _resized(probability, size) * _resized(kept, size) + _resized(offset, size)
        for slope, plane in zip(slopes, planes, strict=True):
            row += _resized(slope, size) * plane
    return np.clip(result, 0, 1, out=result)


def without_texture(fitted: Maps, plain: Maps, threshold: float) -> Maps:
    """Return refined probabilities without the texture of the picture inside the object and outside of it.

    The deviation ``d`` from the bilinear value is replaced by ``d² / m``, ``m`` being the distance from that value to
    the threshold, 0 or 1 in the direction of ``d``. So small deviations nearly vanish, and those that cross the
    threshold, which move the contour, stay.

    Args:
        fitted: (H, W) result of :func:`refined`.
        plain: (H, W) probabilities enlarged bilinearly.
        threshold: Probability at the contour.
    """
    change, inside = fitted - plain, plain > threshold
    below, above = np.where(inside, threshold, 0), np.where(inside, 1, threshold)
    room = np.where(change < 0, plain - below, above - plain)
    share = np.clip(np.abs(change) / np.maximum(room, np.float32(1e-6)), 0, 1)
    return np.asarray(plain + change * share, np.float32)


def _covariance(colours: Maps, means: Maps, window: list[int]) -> Maps:
    """Return the covariance of the colours (3, h, w) of every window, with the ridge: (h, w, 3, 3)."""
    covariance = np.empty((*colours.shape[1:], 3, 3), np.float32)
    for i in range(3):
        for j in range(i, 3):
            product = _means(colours[None, i] * colours[j], window)[0]
            covariance[..., i, j] = covariance[..., j, i] = product - means[i] * means[j]
    covariance += np.float32(RIDGE) * np.eye(3, dtype=np.float32)
    return covariance


def _fit(probability: Maps, colours: Maps, means: Maps, inverse: Maps, window: list[int]) -> Maps:
    """Return the coefficients of every pixel, means over all windows that hold it: (5, h, w).

    They are the slope of each colour and the offset, times the weight ``w``, and ``1 - w``.
    """
    mean, square = _means(np.stack([probability, probability * probability]), window)
    covariance = _means(colours * probability, window) - means * mean
    slopes = np.einsum("hwij,jhw->ihw", inverse, covariance)
    explained = (slopes * covariance).sum(0) / (np.maximum(square - mean * mean, 0) + np.float32(_NOISE))
    weight = np.sqrt(np.clip(explained, 0, 1))
    offset = mean - (slopes * means).sum(0)
    return _means(np.stack([*(slopes * weight), offset * weight, 1 - weight]), window)


def _means(values: Maps, window: list[int]) -> Maps:
    """Return the mean of (C, h, w) over a window around every pixel."""
    means: Maps = uniform_filter(values, [1, *window], mode="nearest")
    return means


def _resized(values: Maps, size: tuple[int, int]) -> Maps:
    """Resize (h, w) bilinearly to (H, W)."""
    return enlarged(values, size[::-1])
