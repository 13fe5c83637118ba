"""Functions that several models share: padding frames left out of the computation, and full precision.

No backbone processes a padding frame, and no gradient comes from one.
"""

import torch
from torch import Tensor
from torch.compiler import is_exporting


def real_frames(x: Tensor, valid: Tensor) -> Tensor:
    """The frames of (B, T, ...) that are none of the padding, (n, ...); all of them if there is nothing but padding.

    A grey frame has no variance: the layer norms of a transformer would multiply its gradient beyond all numbers.
    """
    # An exported graph has fixed shapes: it looks at all frames.
    return x.flatten(0, 1) if is_exporting() or not valid.any() else x[valid]


def with_padding(x: Tensor, valid: Tensor) -> Tensor:
    """The inverse: (n, ...) → (B · T, ...), zeros for padding."""
    if len(x) == valid.numel():
        return x
    out = x.new_zeros(valid.numel(), *x.shape[1:])
    out[valid.flatten()] = x
    return out


def full_precision(like: Tensor) -> torch.autocast:
    """A context in which nothing is computed with fewer bits than it has, on the device of a tensor."""
    return torch.autocast(like.device.type, enabled=False)
