"""Pixel counts of predictions and ground truth, and the ratios of counts that published AVS scores average.

All scores derive from three areas per frame and class: A, predicted and labelled; P, predicted; L, labelled.

    IoU = A / (P + L - A)        F_β = (1 + β²) A / (β² L + P)        FDR = (P - A) / P

F combines precision A / P and recall A / L. The versions of mIoU and F in papers differ only in their averages and in
their treatment of absent classes, see :mod:`avseg.metrics.protocols`.

Shape letters: N frames, H × W pixels, K classes. Counts are exact, float64, on the CPU.
"""

from functools import cache
from math import ceil, hypot
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from avseg.interface import IGNORE

BETA2 = 0.3
"""β² of F in AVS papers; precision has more weight than recall."""

_FRAMES_AT_ONCE = 4
"""Frames per histogram. With more frames, intermediate results do not fit the cache."""
_EPSILON = 1e-7
"""Added to the union by AVSBench; changes scores in the seventh digit."""


class Areas(NamedTuple):
    """Numbers of pixels, one per frame and class (or threshold).

    Attributes:
        both: A, predicted and labelled.
        predicted: P.
        labelled: L.
    """

    both: Tensor
    predicted: Tensor
    labelled: Tensor

    @property
    def union(self) -> Tensor:
        """Return the area that is predicted or labelled."""
        return self.predicted + self.labelled - self.both

    @property
    def iou(self) -> Tensor:
        """Return the intersection over union; NaN where the class is neither predicted nor labelled."""
        return self.both / self.union

    @property
    def fdr(self) -> Tensor:
        """Return the false discovery rate, the wrong share of the predicted area; NaN where nothing is predicted."""
        return (self.predicted - self.both) / self.predicted

    def f(self, beta2: float = BETA2) -> Tensor:
        """Return the F score; NaN where the class is neither predicted nor labelled."""
        return (1 + beta2) * self.both / (beta2 * self.labelled + self.predicted)

    def total(self) -> "Areas":
        """Return the sums over frames."""
        return Areas(self.both.sum(0), self.predicted.sum(0), self.labelled.sum(0))


def class_areas(predicted: Tensor, labels: Tensor, classes: int) -> Areas:
    """Return the areas of each class in each frame.

    Args:
        predicted: (N, H, W) int64, 0..K-1.
        labels: (N, H, W) int64, 0..K-1; pixels labelled 255 are not counted.
        classes: K.

    Returns:
        Areas of (N, K).

    Raises:
        ValueError: When a label is neither below K nor 255.
    """
    counted = labels != IGNORE
    wrong = counted & ((labels < 0) | (labels >= classes))
    if wrong.any():
        raise ValueError(f"labels must be 0..{classes - 1} or {IGNORE}, got {int(labels[wrong][0])}")
    frame = torch.arange(len(labels), device=labels.device).view(-1, 1, 1)
    pairs = ((frame * classes + labels) * classes + predicted)[counted]
    confusion = torch.bincount(pairs, minlength=len(labels) * classes**2).view(-1, classes, classes).cpu().double()
    return Areas(confusion.diagonal(dim1=1, dim2=2), confusion.sum(1), confusion.sum(2))


@cache
def thresholds() -> Tensor:
    """Return 255 float32 thresholds from 0 to 1, as in AVSBench. The last is 1 - 1e-10 there, which rounds to 1."""
    return torch.linspace(0, 1 - 1e-10, 255)


def threshold_areas(probability: Tensor, labels: Tensor) -> Areas:
    """Return the areas of the foreground in each frame for each threshold of :func:`thresholds`.

    The areas of all thresholds are the cumulative sums of a histogram of the probabilities.

    Args:
        probability: (N, H, W) float32.
        labels: (N, H, W) int64: 0, 1, or 255 for pixels that are not counted.

    Returns:
        Areas of (N, 255).
    """
    pieces = zip(probability.split(_FRAMES_AT_ONCE), labels.split(_FRAMES_AT_ONCE), strict=True)
    histogram = torch.cat([_histogram(p, truth) for p, truth in pieces]).cpu().double()
    marked = histogram.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    return Areas(marked[:, 1], marked.sum(1), histogram[:, 1].sum(-1, keepdim=True).expand(marked[:, 1].shape))


def _histogram(probability: Tensor, labels: Tensor) -> Tensor:
    """Count pixels by label, 0 or 1, and by how many thresholds are ≤ their probability: (n, 2, 256)."""
    edges = thresholds().to(probability.device)
    # Thresholds are equidistant: one comparison with the nearest replaces a search among all.
    nearest = (probability * (len(edges) - 1)).round_().clamp_(0, len(edges) - 1).int()
    bins = len(edges) + 1
    group = labels.clamp(max=2).int() + 3 * torch.arange(len(labels), dtype=torch.int32, device=labels.device).view(
        -1, 1, 1
    )
    index = nearest + (probability >= edges[nearest]) + group * bins
    return torch.bincount(index.flatten(), minlength=len(labels) * 3 * bins).view(-1, 3, bins)[:, :2]


def frame_iou(areas: Areas) -> Tensor:
    """Return J of each frame as in AVSBench; the score of an empty frame is the share of background predictions.

    Args:
        areas: (N, 2), background and foreground.

    Returns:
        (N,).
    """
    empty = areas.labelled[:, 1] == 0
    both = torch.where(empty, areas.both[:, 0], areas.both[:, 1])
    return both / (torch.where(empty, areas.labelled[:, 0], areas.union[:, 1]) + _EPSILON)


def best_f(areas: Areas) -> Tensor:
    """Return F of a batch as in AVSBench: the maximum of the mean curve of non-empty frames; 0 if all are empty.

    Args:
        areas: (N, 255) from :func:`threshold_areas`.

    Returns:
        0-d.
    """
    curves = areas.f()[areas.labelled[:, 0] > 0]
    return curves.mean(0).max() if len(curves) else areas.both.new_zeros(())


def binary_iou(logits: Tensor, target: Tensor) -> Tensor:
    """Return J of one batch of frames, as in AVSBench, PCMANet and AVSegFormer.

    Pixels with sigmoid(logit) > 0.5 are foreground. The score of an empty frame is the share of background
    predictions; J is the mean over frames.

    Args:
        logits: (N, H, W), or with any leading sizes: (B, T, 1, H, W), (B, T, H, W).
        target: Ground truth of the same frames, of any type; values other than 0 are foreground.

    Returns:
        0-d float64.

    Raises:
        ValueError: When shapes do not agree or a logit is NaN.
    """
    logits, labels = _binary_frames(logits, target)
    return frame_iou(class_areas((logits.sigmoid() > 0.5).long(), labels, 2)).mean()


def binary_fscore(logits: Tensor, target: Tensor) -> Tensor:
    """Return F (β² = 0.3) of one batch of frames, as in AVSBench, PCMANet and AVSegFormer.

    The curve of F over 255 thresholds is averaged over the non-empty frames; F is its maximum. The best threshold is
    selected on the ground truth for each batch, so the same frames in smaller batches score higher. Papers report the
    mean over batches of one clip.

    Args:
        logits: (N, H, W), or with any leading sizes: (B, T, 1, H, W), (B, T, H, W).
        target: Ground truth of the same frames, of any type; values other than 0 are foreground.

    Returns:
        0-d float64; 0 when all frames are empty.

    Raises:
        ValueError: When shapes do not agree or a logit is NaN.
    """
    logits, labels = _binary_frames(logits, target)
    return best_f(threshold_areas(logits.sigmoid(), labels))


def semantic_scores(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return IoU and F (β² = 0.3) of class maps, as in AVSBench-semantic.

    Scores per frame and class are averaged over the frames in which the class is predicted or labelled, then over
    classes; absent classes count as 0. The averages are over these classes::

        miou                 0..K-1, with the background, which is class 0
        miou_no_background   0..K-2: the official code keeps the background and drops the last class
        miou_foreground      1..K-1, without the background
        miou_present         those that are predicted or labelled in any frame; printed by the official code

    Args:
        logits: (N, K, H, W) or (B, T, K, H, W).
        labels: (N, H, W) or (B, T, H, W) int64, 0..K-1. Pixels labelled 255 are ignored (the official code
            miscounts them).

    Returns:
        0-d float64 ``miou``, ``miou_no_background``, ``miou_foreground``, ``miou_present``, and the same four of
        ``fscore``. And (K,) ``iou_per_class``, ``fscore_per_class``, ``frames_per_class``, the number of frames in
        which the class is predicted or labelled.

    Raises:
        ValueError: When shapes do not agree, a label is out of range or a logit is NaN.
    """
    classes = logits.shape[-3]
    logits = logits.reshape(-1, *logits.shape[-3:])
    labels = labels.reshape(-1, *labels.shape[-2:])
    _check_frames(logits[:, 0], labels)
    check_no_nan(logits)
    sums = semantic_sums(class_areas(logits.argmax(1), labels.long(), classes))
    iou, fscore = per_class(*sums)
    return {
        **semantic_means(*sums),
        "iou_per_class": iou,
        "fscore_per_class": fscore,
        "frames_per_class": sums[2],
    }


def semantic_sums(areas: Areas) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of AVSBench-semantic per class: IoU, F, and the frames with the class; (K,) each."""
    return areas.iou.nan_to_num(0).sum(0), areas.f().nan_to_num(0).sum(0), (areas.union > 0).double().sum(0)


def per_class(iou: Tensor, fscore: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean IoU and F of each class from :func:`semantic_sums`, 0 for absent classes, (K,) each."""
    return (iou / seen).nan_to_num(0), (fscore / seen).nan_to_num(0)


def semantic_means(iou: Tensor, fscore: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """Return the averages over classes of :func:`semantic_scores` from :func:`semantic_sums`."""
    scores = {}
    for name, values in zip(("miou", "fscore"), per_class(iou, fscore, seen), strict=True):
        scores[name] = values.mean()
        scores[f"{name}_no_background"] = values[:-1].mean()
        scores[f"{name}_foreground"] = values[1:].mean()
        scores[f"{name}_present"] = values[seen > 0].mean()
    return scores


def boundary_f(predicted: Tensor, truth: Tensor, tolerance: float = 0.008) -> Tensor:
    """Return F1 of contours, as in the DAVIS benchmark (Perazzi et al., CVPR 2016).

    A contour pixel is correct if the other contour has a pixel within ``tolerance`` × diagonal.

    Args:
        predicted: (N, H, W) bool.
        truth: (N, H, W) bool.
        tolerance: Share of the image diagonal, rounded up to whole pixels.

    Returns:
        (N,) float64; 1 if neither mask has a contour, 0 if only one has.
    """
    radius = ceil(tolerance * hypot(*truth.shape[-2:]))
    ours, theirs = _contour(predicted), _contour(truth)
    precision = (ours & _dilate(theirs, radius)).sum((1, 2)).cpu().double() / ours.sum((1, 2)).cpu()
    recall = (theirs & _dilate(ours, radius)).sum((1, 2)).cpu().double() / theirs.sum((1, 2)).cpu()
    f = (2 * precision * recall / (precision + recall)).nan_to_num(0)
    return torch.where(precision.isnan() & recall.isnan(), 1.0, f)


def _contour(mask: Tensor) -> Tensor:
    """Return the pixels that differ from their right, lower or lower right neighbour."""
    wider = pad(mask[:, None].float(), (0, 1, 0, 1), mode="replicate")[:, 0] > 0
    right, below, across = wider[:, :-1, 1:], wider[:, 1:, :-1], wider[:, 1:, 1:]
    return (mask != right) | (mask != below) | (mask != across)


def _dilate(mask: Tensor, radius: int) -> Tensor:
    """Return the pixels within ``radius`` of a pixel that is set."""
    steps = torch.arange(-radius, radius + 1, device=mask.device)
    disk = (steps[:, None] ** 2 + steps**2 <= radius**2).float()
    return conv2d(mask[:, None].float(), disk[None, None], padding=radius)[:, 0] > 0.5


def check_no_nan(logits: Tensor, scored: Tensor | None = None) -> None:
    """Raise on NaN, which comparisons would count as background.

    Args:
        logits: (N, ...).
        scored: (N,) bool, frames to check; all by default.

    Raises:
        ValueError: When a logit is NaN.
    """
    broken = logits.flatten(1).amax(1).isnan()
    if (broken if scored is None else broken & scored).any():
        raise ValueError(f"logits are NaN in {int(broken.sum())} of {len(logits)} frames")


def _binary_frames(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, H, W) float32 logits and (N, H, W) int64 labels 0, 1 of inputs with any leading sizes."""
    logits = logits.reshape(-1, *logits.shape[-2:]).float()
    labels = (target != 0).long().reshape(-1, *target.shape[-2:])
    _check_frames(logits, labels)
    check_no_nan(logits)
    return logits, labels


def _check_frames(logits: Tensor, labels: Tensor) -> None:
    if logits.shape != labels.shape or labels.numel() == 0:
        raise ValueError(f"logits and labels must be the same frames, got {tuple(logits.shape)}, {tuple(labels.shape)}")
