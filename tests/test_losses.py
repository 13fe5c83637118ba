import math

import pytest
import torch
from torch.nn.functional import one_hot

from avseg.interface import Target
from avseg.losses import bce, dice_loss, info_nce, iou_loss, labelled, semantic_ce


def _case(n: int = 3, h: int = 5, w: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 1, h, w, dtype=torch.float64), torch.randint(0, 2, (n, h, w))


def test_eq8_bce_is_the_mean_of_the_papers_sum() -> None:
    logits, labels = _case()
    total = 0.0
    for z, g in zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        total -= g * math.log(p) + (1 - g) * math.log(1 - p)
    assert bce(logits, labels).item() == pytest.approx(total / labels.numel())


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_eq9_iou_per_frame(smooth: float) -> None:
    logits, labels = _case()
    expected = 0.0
    for frame, truth in zip(logits[:, 0], labels, strict=True):
        above = below = smooth
        for z, g in zip(frame.flatten().tolist(), truth.flatten().tolist(), strict=True):
            p = 1 / (1 + math.exp(-z))
            above += g * p
            below += p + g - g * p
        expected += (1 - above / below) / len(labels)
    assert iou_loss(logits, labels, smooth).item() == pytest.approx(expected)


@pytest.mark.parametrize("absent", [True, False])
def test_dice_and_iou_of_several_classes_are_means_over_classes_and_frames(absent: bool) -> None:
    logits = torch.randn(3, 4, 5, 4, dtype=torch.float64)
    labels = torch.randint(0, 3, (3, 5, 4))  # the last class is in no frame
    labels[1] = 2
    labels[:, 0, 0] = 255
    dice, iou = [], []
    for p, g in zip(logits.softmax(1), labels, strict=True):
        costs = []
        for c in range(4):
            pixels = [(float(p[c, y, x]), float(g[y, x] == c)) for y in range(5) for x in range(4) if g[y, x] != 255]
            shared, found, truth = sum(a * b for a, b in pixels), sum(a for a, _ in pixels), sum(b for _, b in pixels)
            if truth or absent:
                costs.append(
                    (
                        1 - (2 * shared + 0.5) / (found + truth + 0.5),
                        1 - (shared + 0.5) / (found + truth - shared + 0.5),
                    )
                )
        dice.append(sum(d for d, _ in costs) / len(costs))
        iou.append(sum(i for _, i in costs) / len(costs))
    assert dice_loss(logits, labels, 0.5, absent=absent).item() == pytest.approx(sum(dice) / 3)
    assert iou_loss(logits, labels, 0.5, absent=absent).item() == pytest.approx(sum(iou) / 3)


def test_dice_of_one_class_counts_every_frame() -> None:
    logits = torch.zeros(2, 1, 2, 2)
    labels = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]]])
    for absent in (True, False):
        assert dice_loss(logits, labels, 1.0, absent=absent).item() == pytest.approx(((1 - 3 / 5) + (1 - 1 / 3)) / 2)


def test_semantic_ce_is_the_negative_log_probability_of_the_label() -> None:
    logits, labels = torch.randn(2, 4, 3, 3), torch.randint(0, 4, (2, 3, 3))
    picked = (logits.softmax(1) * one_hot(labels, 4).movedim(-1, 1)).sum(1)
    assert torch.allclose(semantic_ce(logits, labels), -picked.log().mean())


def test_pixels_labelled_255_are_ignored() -> None:
    logits, labels = _case()
    labels[:, 0] = 255
    changed = logits.clone()
    changed[:, :, 0] = 99.0
    for loss in (bce, iou_loss, dice_loss):
        assert torch.equal(loss(logits, labels), loss(changed, labels))
        assert torch.allclose(loss(logits, labels), loss(logits[:, :, 1:], labels[:, 1:]))
    many = torch.randn(3, 4, 5, 4)
    assert torch.allclose(semantic_ce(many, labels), semantic_ce(many[:, :, 1:], labels[:, 1:]))


def test_labels_1_to_254_are_foreground() -> None:
    logits, labels = _case()
    for loss in (bce, iou_loss, dice_loss):
        assert torch.equal(loss(logits, labels), loss(logits, labels * 7))


def test_losses_without_labels_are_zero_and_keep_the_graph() -> None:
    logits = torch.randn(1, 2, 1, 4, 4, requires_grad=True)
    pair = labelled(logits, Target(torch.zeros(1, 2, 4, 4, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.bool)))
    total = bce(*pair) + iou_loss(*pair) + dice_loss(*pair) + semantic_ce(*pair)
    total.backward()
    assert total.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_empty_frame_has_iou_gradient_only_with_smoothing() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    for smooth, pulls in ((0.0, False), (1.0, True)):
        logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
        iou_loss(logits, labels, smooth).backward()
        assert logits.grad is not None
        assert (logits.grad > 0).all().item() is pulls


def test_certain_and_empty_is_finite() -> None:
    logits = torch.full((1, 1, 2, 2), -200.0, requires_grad=True)
    loss = iou_loss(logits, torch.zeros(1, 2, 2, dtype=torch.int64))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_info_nce_equals_the_formula() -> None:
    near = 3 * torch.randn(4, 5)
    positive = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    negative = torch.tensor([[0, 0, 1, 0, 1], [1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    anchors = []
    for row, good, bad in zip(*(x[:2].tolist() for x in (near, positive, negative)), strict=True):
        below = sum(math.exp(x) for x, no in zip(row, bad, strict=True) if no)
        losses = [-math.log(math.exp(x) / (math.exp(x) + below)) for x, yes in zip(row, good, strict=True) if yes]
        anchors.append(sum(losses) / len(losses))
    assert info_nce(near, positive, negative).item() == pytest.approx(sum(anchors) / 2, rel=1e-4)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 3)])
def test_info_nce_of_no_pairs_is_0_and_stays_in_the_graph(shape: tuple[int, int]) -> None:
    near = torch.randn(shape, requires_grad=True)
    loss = info_nce(near, torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert near.grad is not None
    assert not near.grad.any()
