"""Bipartite matching of queries and segments, and the set loss of DETR and Mask2Former.

A segment is all pixels of one class in one frame; the background is a segment, too. Unmatched queries are trained to
predict "no object", the last class. Masks are compared at points (Cheng et al., arXiv 2112.01527, section 3.3): the
matching uses random points, the same for all queries; the loss uses mostly the points where the predicted mask is
least certain.

Differs from Mask2Former:

1. Labels at points are those of the nearest pixel instead of an interpolation, so that label 255 can be ignored.
2. Outside of training the points are a grid, so that the validation loss is deterministic.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, grid_sample, softplus
from torch.nn.utils.rnn import pad_sequence

from avseg.interface import IGNORE


@dataclass(frozen=True)
class SetLoss:
    """Weights and points of the set loss.

    Attributes:
        classes: Weight of the classification, in loss and matching cost.
        masks: Weight of the binary cross-entropy of masks.
        dice: Weight of the Dice loss of masks.
        no_object: Weight of "no object" among the classes.
        points: Points per mask.
        oversample: Ratio of candidate points to ``points``, from which the least certain are selected.
        importance: Share of the points that is selected by uncertainty.
    """

    classes: float = 2.0
    masks: float = 5.0
    dice: float = 5.0
    no_object: float = 0.1
    points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75


class Matches(NamedTuple):
    """Matched pairs of a query and a segment.

    Attributes:
        frames: (m,) in 0..n-1.
        queries: (m,) in 0..N-1.
        classes: (m,), classes of the segments.
    """

    frames: Tensor
    queries: Tensor
    classes: Tensor


def present(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes in each frame.

    Args:
        labels: (n, H, W), 255 ignored.

    Returns:
        (n, G) classes in increasing order, and (n, G) bool, False for padding of shorter rows.
    """
    found = [frame[frame != IGNORE].unique() for frame in labels]
    found.append(labels.new_zeros(0))  # pad_sequence needs at least one row
    real = [torch.ones_like(classes) for classes in found]
    return pad_sequence(found, True)[:-1], pad_sequence(real, True)[:-1].bool()


@torch.no_grad()
def match(classes: Tensor, masks: Tensor, labels: Tensor, loss: SetLoss, *, random: bool) -> Matches:
    """Match each segment to a query with the minimum total cost (Hungarian algorithm).

    Args:
        classes: Logits (n, N, K + 1).
        masks: Logits (n, N, h, w).
        labels: (n, H, W) in 0..K-1, 255 ignored.
        loss: Weights of the cost.
        random: Compare at random points, otherwise at a grid.
    """
    segments, real = present(labels)
    points = _points(len(labels), loss.points, labels.device, random=random)
    truth = _labels_at(labels, points)
    costs = _costs(classes.float(), _values_at(masks.float(), points), segments, truth, loss).cpu()
    pairs = [linear_sum_assignment(cost[:, own].numpy()) for cost, own in zip(costs, real.cpu(), strict=True)]
    triples = [(i, q, s) for i, pair in enumerate(pairs) for q, s in zip(*pair, strict=True)]
    frame, query, segment = torch.tensor(triples, dtype=torch.int64, device=labels.device).view(-1, 3).unbind(1)
    return Matches(frame, query, segments[frame, segment])


def _costs(classes: Tensor, masks: Tensor, segments: Tensor, truth: Tensor, loss: SetLoss) -> Tensor:
    """Return the costs (n, N, G) of queries and segments, from mask logits (n, N, P) and labels (n, P) at points."""
    scored = (truth != IGNORE).to(masks)[:, None]
    inside = (truth[:, None] == segments[:, :, None]).to(masks)
    cross = (softplus(masks) * scored).sum(-1, keepdim=True) - masks @ inside.mT
    found = masks.sigmoid() * scored
    either = found.sum(-1, keepdim=True) + inside.sum(-1)[:, None]
    dice = 1 - (2 * found @ inside.mT + 1) / (either + 1)
    probability = classes.softmax(-1).gather(2, segments[:, None].expand(-1, classes.shape[1], -1))
    cross = cross / scored.sum(-1, keepdim=True).clamp(min=1)
    cost = loss.masks * cross + loss.dice * dice - loss.classes * probability
    return cost.nan_to_num(nan=1e9, posinf=1e9, neginf=-1e9)


def set_loss(
    classes: Tensor, masks: Tensor, labels: Tensor, matches: Matches, loss: SetLoss, *, random: bool
) -> dict[str, Tensor]:
    """Compute the loss of matched and unmatched queries.

    Args:
        classes: Logits (n, N, K + 1), the last for "no object".
        masks: Logits (n, N, h, w).
        labels: (n, H, W), 255 ignored; frames without any other label are ignored.
        matches: Result of :func:`match`, or another assignment.
        loss: Weights.
        random: Compare at random points, otherwise at a grid.

    Returns:
        ``classes``, ``masks``, ``dice``: 0-d, weighted; 0 with gradient 0 when no pixel is labelled.
    """
    no_object = classes.shape[-1] - 1
    target = torch.full(classes.shape[:2], no_object, device=classes.device)
    target[matches.frames, matches.queries] = matches.classes
    target[(labels == IGNORE).flatten(1).all(1)] = IGNORE
    weight = torch.ones(no_object + 1, device=classes.device)
    weight[no_object] = loss.no_object
    total = cross_entropy(classes.float().mT, target, weight, ignore_index=IGNORE, reduction="sum")
    scored = target[target != IGNORE]
    matched = masks[matches.frames, matches.queries].float()
    cross, dice = _mask_losses(matched, labels, matches, loss, random=random)
    return {
        "classes": loss.classes * total / weight[scored].sum().clamp(min=1),
        "masks": loss.masks * cross,
        "dice": loss.dice * dice,
    }


def _mask_losses(
    masks: Tensor, labels: Tensor, matches: Matches, loss: SetLoss, *, random: bool
) -> tuple[Tensor, Tensor]:
    """Return binary cross-entropy and Dice loss of (m, h, w) logits, averaged over masks."""
    if random:
        points = _uncertain_points(masks.detach(), labels[matches.frames], loss)
    else:
        points = _points(len(masks), loss.points, masks.device, random=False)
    logits = _values_at(masks[:, None], points)[:, 0]
    truth = _labels_at(labels[matches.frames], points)
    scored = (truth != IGNORE).to(logits)
    inside = (truth == matches.classes[:, None]).to(logits)
    cross = (binary_cross_entropy_with_logits(logits, inside, reduction="none") * scored).sum(1)
    found = logits.sigmoid() * scored
    dice = 1 - (2 * (found * inside).sum(1) + 1) / ((found + inside).sum(1) + 1)
    count = max(len(masks), 1)
    return (cross / scored.sum(1).clamp(min=1)).sum() / count, dice.sum() / count


def _points(count: int, points: int, device: torch.device, *, random: bool) -> Tensor:
    """Return points (count, P, 2) in -1..1, random or the same grid for all frames."""
    if random:
        return 2 * torch.rand(count, points, 2, device=device) - 1
    side = max(1, round(points**0.5))
    line = (2 * torch.arange(side, device=device) + 1) / side - 1
    return torch.cartesian_prod(line, line).expand(count, -1, -1)


def _uncertain_points(masks: Tensor, labels: Tensor, loss: SetLoss) -> Tensor:
    """Return random points (m, P, 2), most of them the candidates with the labelled logits nearest to 0."""
    chosen = int(loss.importance * loss.points)
    many = _points(len(masks), int(loss.oversample * loss.points), masks.device, random=True)
    certainty = _values_at(masks[:, None], many)[:, 0].abs()
    certainty = certainty.masked_fill(_labels_at(labels, many) == IGNORE, torch.inf)
    least = certainty.topk(chosen, 1, largest=False).indices
    some = many.gather(1, least[..., None].expand(-1, -1, 2))
    return torch.cat([some, _points(len(masks), loss.points - chosen, masks.device, random=True)], 1)


def _values_at(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps (n, C, h, w) at points (n, P, 2) bilinearly, (n, C, P)."""
    return grid_sample(maps, points[:, :, None], align_corners=False)[..., 0]


def _labels_at(labels: Tensor, points: Tensor) -> Tensor:
    """Sample labels (n, H, W) at points (n, P, 2), nearest neighbour, (n, P)."""
    found = grid_sample(labels[:, None].float(), points[:, :, None], mode="nearest", align_corners=False)
    return found[:, 0, :, 0].long()
