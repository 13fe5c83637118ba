"""Losses as plain functions over labelled frames. Pixels labelled 255 take no part."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

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


def iou_loss(logits: Tensor, labels: Tensor, smooth: float = 0.0, *, absent: bool = True) -> Tensor:
    """Soft intersection over union, Eq. (9) of PCMANet, per frame and class, then the mean.

    Args:
        logits: (n, K, H, W).
        labels: (n, H, W); 0 / not 0 for one class, 0..K-1 for several, 255 ignored.
        smooth: Added to numerator and denominator; 0 in PCMANet's paper, 1 in its release. With 0 a frame where
            nothing sounds always costs 1 and pulls nowhere; with 1 it pulls false positives down.
        absent: Of several classes, count those that a frame does not have, too.

    Returns:
        0-d; 0 (with gradient 0) when nothing is labelled.
    """
    intersection, found, truth = _areas(logits, labels)
    # A union of 0 is only possible where the sigmoid has underflowed: the tiny bound keeps 0 / 0 away.
    union = (found + truth - intersection + smooth).clamp(min=torch.finfo(found.dtype).tiny)
    return _mean_over_classes(1 - (intersection + smooth) / union, truth, absent)


def dice_loss(logits: Tensor, labels: Tensor, smooth: float = 1.0, *, absent: bool = True) -> Tensor:
    """1 - Dice (Sørensen) coefficient of probabilities, per frame and class, then the mean.

    Args:
        logits: As for :func:`iou_loss`, as are the others.
        labels: 255 ignored.
        smooth: Added to numerator and denominator, above 0.
        absent: Count classes that a frame does not have.

    Returns:
        0-d; 0 (with gradient 0) when nothing is labelled.
    """
    intersection, found, truth = _areas(logits, labels)
    return _mean_over_classes(1 - (2 * intersection + smooth) / (found + truth + smooth), truth, absent)


def _areas(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What answer and truth share, what the answer has, what the truth has: (n, K) each, in pixels."""
    scored = (labels != IGNORE).unsqueeze(1)
    if logits.shape[1] == 1:
        found, truth = logits.sigmoid(), (labels != 0).unsqueeze(1)
    else:
        classes = torch.arange(logits.shape[1], device=labels.device)
        found, truth = logits.softmax(1), labels.unsqueeze(1) == classes[:, None, None]
    found, kept = found * scored, (truth & scored).to(logits)
    return (found * kept).sum((2, 3)), found.sum((2, 3)), kept.sum((2, 3))


def _mean_over_classes(per_class: Tensor, truth: Tensor, absent: bool) -> Tensor:
    """The mean of (n, K) over classes, then over frames; with one class all frames count."""
    counts = torch.ones_like(truth) if absent or truth.shape[1] == 1 else (truth > 0).to(truth)
    per_frame = (per_class * counts).sum(1) / counts.sum(1).clamp(min=1)
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


def info_nce(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """- log(e^p / (e^p + Σ_neg e^n)), the mean over an anchor's positives, then over anchors.

    Args:
        logits: (m, n), how near each of n is to each of m anchors, divided by the temperature.
        positive: (m, n) bool.
        negative: (m, n) bool.

    Returns:
        0-d; anchors without positives or negatives take no part; 0 (with gradient 0) when none is left.
    """
    chosen = positive.any(1) & negative.any(1)
    near, wanted = logits[chosen], positive[chosen]
    others = near.masked_fill(~negative[chosen], -torch.inf).logsumexp(1, keepdim=True)
    per_anchor = (softplus(others - near) * wanted).sum(1) / wanted.sum(1)
    # The sum over nothing keeps every parameter in the graph: processes must agree on that.
    return per_anchor.sum() / max(len(per_anchor), 1) + 0 * logits.sum()
