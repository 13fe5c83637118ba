"""Functions shared by models: exclude padding frames from the computation, and disable autocast.

Backbones process no padding frames, and padding frames contribute no gradient.
"""

import torch
from torch import Tensor
from torch.compiler import is_exporting


def real_frames(x: Tensor, valid: Tensor) -> Tensor:
    """Return the real frames of (B, T, ...) as (n, ...); all frames if all are padding.

    A padding frame has no variance, which would make the gradients of layer norms in a transformer overflow.
    """
    # An exported or traced graph has shapes that depend on no values and processes all frames.
    static = is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return x.flatten(0, 1) if static or not valid.any() else x[valid]


def with_padding(x: Tensor, valid: Tensor) -> Tensor:
    """Map (n, ...) of real frames to (B · T, ...), zeros for padding: the inverse of :func:`real_frames`."""
    if len(x) == valid.numel():
        return x
    out = x.new_zeros(valid.numel(), *x.shape[1:])
    out[valid.flatten()] = x
    return out


def full_precision(like: Tensor) -> torch.autocast:
    """Return a context without autocast on the device of ``like``."""
    return torch.autocast(like.device.type, enabled=False)
