"""Small maps at the size of a picture: bilinear, pixel centres on pixel centres, as torch's ``interpolate`` does it."""

import numpy as np
from numpy.typing import NDArray

Columns = NDArray[np.float32]


def enlarged(columns: Columns, size: tuple[int, int]) -> Columns:
    """(w, h) → (W, H) for a ``size`` of (H, W); numpy, as torch's threads cost more than this."""
    return _stretched(_stretched(columns, size[0], axis=1), size[1], axis=0)


def _stretched(values: Columns, length: int, axis: int) -> Columns:
    old = values.shape[axis]
    place = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
    left = place.astype(np.intp)
    share = (place - left).astype(np.float32)
    rise: Columns = np.diff(values, axis=axis, append=values.take([old - 1], axis))
    stretched: Columns = rise.take(left, axis)
    stretched *= share if axis == 1 else share[:, None]
    stretched += values.take(left, axis)
    return stretched
