"""Losses as plain functions over labelled frames. Pixels labelled 255 take no part."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from avseg.interface import IGNORE, Target


def labelled(logits: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """The frames that train.

    Args:
        logits: (B, T, K, H, W).
        target: Its ``labelled`` chooses: S4's first frame, MS3's five, AVSS's real ones are one code path.

    Returns:
        (n, K, H, W) logits in float32 and (n, H, W) labels; n may be 0.
    """
    return logits[target.labelled].float(), target.masks[target.labelled]


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, Eq. (8) of PCMANet, as a mean over pixels.

    Args:
        logits: (n, 1, H, W).
        labels: (n, H, W), 0 / not 0, 255 ignored.

    Returns:
        0-d; 0 (with gradient 0) when nothing is labelled.
    """
    scored = labels != IGNORE
    per_pixel = binary_cross_entropy_with_logits(logits[:, 0], (labels != 0).to(logits), reduction="none")
    return (per_pixel * scored).sum() / scored.sum().clamp(min=1)


def iou_loss(logits: Tensor, labels: Tensor, smooth: float = 0.0) -> Tensor:
    """Soft intersection over union, Eq. (9) of PCMANet, per frame, then the mean over frames.

    Args:
        logits: (n, 1, H, W).
        labels: (n, H, W), 0 / not 0, 255 ignored.
        smooth: Added to numerator and denominator; 0 in the paper, 1 in its release. With 0 a frame where
            nothing sounds always costs 1 and pulls nowhere; with 1 it pulls false positives down.

    Returns:
        0-d; 0 (with gradient 0) when nothing is labelled.
    """
    scored = (labels != IGNORE).to(logits)
    truth = (labels != 0).to(logits) * scored
    found = logits[:, 0].sigmoid() * scored
    intersection = (truth * found).sum((1, 2))
    union = (truth + found - truth * found).sum((1, 2))
    # A union of 0 is only possible where the sigmoid has underflowed: the tiny bound keeps 0 / 0 away.
    per_frame = 1 - (intersection + smooth) / (union + smooth).clamp(min=torch.finfo(union.dtype).tiny)
    return per_frame.sum() / max(len(per_frame), 1)


def semantic_ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over classes, mean over pixels.

    Args:
        logits: (n, K, H, W).
        labels: (n, H, W) in 0..K-1, 255 ignored.

    Returns:
        0-d; 0 (with gradient 0) when nothing is labelled.
    """
    total = cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)
