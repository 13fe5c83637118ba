"""Losses as plain functions over labelled frames. Pixels labelled 255 are ignored."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

from avseg.interface import IGNORE, Target


def labelled(logits: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Select the labelled frames.

    Args:
        logits: (B, T, K, H, W).
        target: Ground truth; ``target.labelled`` selects the frames, such as the first frame of S4.

    Returns:
        (n, K, H, W) logits in float32 and (n, H, W) labels; n may be 0.
    """
    return logits[target.labelled].float(), target.masks[target.labelled]


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the binary cross-entropy, Eq. (8) of PCMANet, averaged over pixels.

    Args:
        logits: (n, 1, H, W).
        labels: (n, H, W), 0 / not 0, 255 ignored.

    Returns:
        0-d; 0 with gradient 0 when no pixel is labelled.
    """
    scored = labels != IGNORE
    per_pixel = binary_cross_entropy_with_logits(logits[:, 0], (labels != 0).to(logits), reduction="none")
    return (per_pixel * scored).sum() / scored.sum().clamp(min=1)


def iou_loss(logits: Tensor, labels: Tensor, smooth: float = 0.0, *, absent: bool = True) -> Tensor:
    """Compute 1 - soft IoU, Eq. (9) of PCMANet, per frame and class, and average.

    Args:
        logits: (n, K, H, W).
        labels: (n, H, W); 0 / not 0 for one class, 0..K-1 for several, 255 ignored.
        smooth: Constant added to numerator and denominator; 0 in PCMANet's paper, 1 in its release. With 0 the loss of
            a frame without foreground is 1 with gradient 0; with 1 it reduces false positives.
        absent: With several classes, include classes that are absent from a frame.

    Returns:
        0-d; 0 with gradient 0 when no frame is given.
    """
    intersection, found, truth = _areas(logits, labels)
    # The union is 0 only when the sigmoid underflows; the bound avoids 0 / 0.
    union = (found + truth - intersection + smooth).clamp(min=torch.finfo(found.dtype).tiny)
    return _mean_over_classes(1 - (intersection + smooth) / union, truth, absent)


def dice_loss(logits: Tensor, labels: Tensor, smooth: float = 1.0, *, absent: bool = True) -> Tensor:
    """Compute 1 - the Dice (Sørensen) coefficient of probabilities, per frame and class, and average.

    Args:
        logits: (n, K, H, W).
        labels: (n, H, W); 0 / not 0 for one class, 0..K-1 for several, 255 ignored.
        smooth: Constant added to numerator and denominator, above 0.
        absent: With several classes, include classes that are absent from a frame.

    Returns:
        0-d; 0 with gradient 0 when no frame is given.
    """
    intersection, found, truth = _areas(logits, labels)
    return _mean_over_classes(1 - (2 * intersection + smooth) / (found + truth + smooth), truth, absent)


def _areas(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the soft areas of intersection, prediction and ground truth in pixels, (n, K) each."""
    scored = (labels != IGNORE).unsqueeze(1)
    if logits.shape[1] == 1:
        found, truth = logits.sigmoid(), (labels != 0).unsqueeze(1)
    else:
        classes = torch.arange(logits.shape[1], device=labels.device)
        found, truth = logits.softmax(1), labels.unsqueeze(1) == classes[:, None, None]
    found, kept = found * scored, (truth & scored).to(logits)
    return (found * kept).sum((2, 3)), found.sum((2, 3)), kept.sum((2, 3))


def _mean_over_classes(per_class: Tensor, truth: Tensor, absent: bool) -> Tensor:
    """Average (n, K) over classes, then over frames; with one class all frames are included."""
    counts = torch.ones_like(truth) if absent or truth.shape[1] == 1 else (truth > 0).to(truth)
    per_frame = (per_class * counts).sum(1) / counts.sum(1).clamp(min=1)
    return per_frame.sum() / max(len(per_frame), 1)


def semantic_ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the cross-entropy over classes, averaged over pixels.

    Args:
        logits: (n, K, H, W).
        labels: (n, H, W) in 0..K-1, 255 ignored.

    Returns:
        0-d; 0 with gradient 0 when no pixel is labelled.
    """
    total = cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def info_nce(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Compute - log(e^p / (e^p + Σ_neg e^n)), averaged over the positives of an anchor, then over anchors.

    Args:
        logits: (m, n), similarities of m anchors and n samples, divided by the temperature.
        positive: (m, n) bool.
        negative: (m, n) bool.

    Returns:
        0-d; anchors without positives or negatives are ignored; 0 with gradient 0 when no anchor is left.
    """
    chosen = positive.any(1) & negative.any(1)
    similarity, positives = logits[chosen], positive[chosen]
    negatives = similarity.masked_fill(~negative[chosen], -torch.inf).logsumexp(1, keepdim=True)
    per_anchor = (softplus(negatives - similarity) * positives).sum(1) / positives.sum(1)
    # The zero term keeps every parameter in the graph, which distributed training needs.
    return per_anchor.sum() / max(len(per_anchor), 1) + 0 * logits.sum()
