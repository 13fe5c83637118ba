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
    return x.flatten(0, 1) if _static() or valid.all() or not valid.any() else x[valid]


def has_padding(valid: Tensor) -> bool:
    """Return whether a frame may be padding; True in a graph, which serves all values."""
    return _static() or not bool(valid.all())


def _static() -> bool:
    """Return whether a graph is exported or traced, whose shapes depend on no values and which processes all frames."""
    return is_exporting() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


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
