"""Tests of the set loss against loops over masks, all permutations, and the Mask2Former of transformers."""

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Mask2FormerConfig
from transformers.models.mask2former import modeling_mask2former as theirs

from avseg.interface import IGNORE
from avseg.nn import matching
from avseg.nn.matching import Matches, SetLoss, match, present, set_loss

SIDE = 8
KINDS = 4
LOSS = SetLoss(points=SIDE**2)
"""Loss whose points outside of training are the pixels of labels, SIDE by SIDE."""


def logits(n: int = 3, queries: int = 5, size: tuple[int, int] = (SIDE, SIDE)) -> tuple[Tensor, Tensor]:
    """Return random logits of classes and masks."""
    return 2 * torch.randn(n, queries, KINDS + 1), 3 * torch.randn(n, queries, *size)


def some_labels(n: int = 3, size: tuple[int, int] = (SIDE, SIDE), ignored: bool = True) -> Tensor:
    """Return labels of few classes per frame, with ignored pixels."""
    labels = torch.stack([torch.randint(KINDS, (KINDS - 1,))[torch.randint(KINDS - 1, size)] for _ in range(n)])
    return labels.masked_fill(torch.rand(labels.shape) < 0.2, IGNORE) if ignored else labels


def pixel_centres(size: tuple[int, int]) -> Tensor:
    """Return the positions (x, y) of all pixels in -1..1, row by row."""
    rows, columns = size
    return torch.tensor(
        [[(2 * x + 1) / columns - 1, (2 * y + 1) / rows - 1] for y in range(rows) for x in range(columns)]
    )


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor], None]:
    """Patch the matching to compare masks at given points (P, 2) in -1..1."""

    def use(points: Tensor) -> None:
        monkeypatch.setattr(matching, "_points", lambda count, *_, random: points.expand(count, -1, -1))
        monkeypatch.setattr(matching, "_uncertain_points", lambda masks, *_: points.expand(len(masks), -1, -1))

    return use


def slow_value(image: Tensor, x: float, y: float) -> float:
    """Return the value of a map at a point, bilinear, 0 outside."""
    rows, columns = image.shape
    column, row = (x + 1) * columns / 2 - 0.5, (y + 1) * rows / 2 - 0.5
    total = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < rows and 0 <= c < columns:
                total += float(image[r, c]) * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def slow_label(labels: Tensor, x: float, y: float) -> int:
    """Return the label of the nearest pixel."""
    rows, columns = labels.shape
    return int(labels[math.floor((y + 1) * rows / 2), math.floor((x + 1) * columns / 2)])


def slow_mask(mask: Tensor, labels: Tensor, kind: int, points: Tensor) -> tuple[float, float]:
    """Return cross-entropy and Dice loss of one mask for one class over labelled points."""
    crosses, both, either = [], 0.0, 0.0
    for x, y in points.tolist():
        truth = slow_label(labels, x, y)
        if truth == IGNORE:
            continue
        p = 1 / (1 + math.exp(-slow_value(mask, x, y)))
        wanted = float(truth == kind)
        crosses.append(-math.log(p if wanted else 1 - p))
        both += 2 * p * wanted
        either += p + wanted
    return sum(crosses) / max(len(crosses), 1), 1 - (both + 1) / (either + 1)


def slow_cost(classes: Tensor, mask: Tensor, labels: Tensor, kind: int, points: Tensor) -> float:
    """Return the cost of one query and one segment."""
    cross, dice = slow_mask(mask, labels, kind, points)
    certain = float(classes.softmax(0)[kind])
    return LOSS.masks * cross + LOSS.dice * dice - LOSS.classes * certain


def segments(labels: Tensor) -> list[int]:
    return sorted(set(labels.flatten().tolist()) - {IGNORE})


def slow_set_loss(classes: Tensor, masks: Tensor, labels: Tensor, matches: Matches, points: Tensor) -> dict[str, float]:
    given = {(f, q): k for f, q, k in zip(*(m.tolist() for m in matches), strict=True)}
    total = weights = cross = dice = 0.0
    for f in range(len(labels)):
        if not segments(labels[f]):
            continue
        for q in range(classes.shape[1]):
            kind = given.get((f, q), KINDS)
            weight = LOSS.no_object if kind == KINDS else 1.0
            total -= weight * float(classes[f, q].log_softmax(0)[kind])
            weights += weight
    for (f, q), kind in given.items():
        c, d = slow_mask(masks[f, q], labels[f], kind, points)
        cross, dice = cross + c / len(given), dice + d / len(given)
    return {"classes": LOSS.classes * total / weights, "masks": LOSS.masks * cross, "dice": LOSS.dice * dice}


def as_numbers(terms: dict[str, Tensor]) -> dict[str, Any]:
    return {name: pytest.approx(term.item(), rel=1e-4, abs=1e-5) for name, term in terms.items()}


def test_present_returns_the_classes_of_each_frame() -> None:
    labels = torch.tensor([[[3, 1], [IGNORE, 3]], [[IGNORE] * 2] * 2, [[0, 2], [1, 0]]])
    classes, real = present(labels)
    assert classes[real].tolist() == [1, 3, 0, 1, 2]
    assert real.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert [rows.shape for rows in present(labels[:0])] == [(0, 0), (0, 0)]
    assert [rows.shape for rows in present(labels[1:2])] == [(1, 0), (1, 0)]


def test_costs_equal_loops() -> None:
    classes, masks = logits()
    labels = some_labels()
    wanted, real = present(labels)
    costs = matching._costs(classes, masks.flatten(2), wanted, labels.flatten(1), LOSS)
    points = pixel_centres((SIDE, SIDE))
    for f in range(3):
        for q in range(5):
            slow = [slow_cost(classes[f, q], masks[f, q], labels[f], k, points) for k in segments(labels[f])]
            assert costs[f, q, real[f]].tolist() == pytest.approx(slow, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("random", [True, False])
def test_matches_and_losses_equal_loops(random: bool, at: Callable[[Tensor], None]) -> None:
    """Use points between pixels, and masks of other sizes than the labels."""
    points = 2 * torch.rand(23, 2) - 1
    at(points)
    classes, masks = logits(size=(5, 7))
    labels = some_labels(size=(10, 16))
    matches = match(classes, masks, labels, LOSS, random=random)
    for f in range(3):
        kinds = segments(labels[f])
        cost = [[slow_cost(classes[f, q], masks[f, q], labels[f], k, points) for k in kinds] for q in range(5)]
        least = min(sum(cost[q][s] for s, q in enumerate(p)) for p in permutations(range(5), len(kinds)))
        own = matches.frames == f
        assert sorted(matches.classes[own].tolist()) == kinds
        assert len(set(matches.queries[own].tolist())) == len(kinds)
        pairs = zip(matches.queries[own].tolist(), matches.classes[own].tolist(), strict=True)
        assert sum(cost[q][kinds.index(k)] for q, k in pairs) == pytest.approx(least, rel=1e-4)
    terms = set_loss(classes, masks, labels, matches, LOSS, random=random)
    assert slow_set_loss(classes, masks, labels, matches, points) == as_numbers(terms)


def test_evaluation_grid_is_every_pixel() -> None:
    classes, masks = logits()
    labels = some_labels()
    matches = match(classes, masks, labels, LOSS, random=False)
    terms = set_loss(classes, masks, labels, matches, LOSS, random=False)
    assert slow_set_loss(classes, masks, labels, matches, pixel_centres((SIDE, SIDE))) == as_numbers(terms)


def test_losses_equal_transformers(at: Callable[[Tensor], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare without ignored pixels at pixel centres, where interpolated labels are exact."""
    size = (6, 9)
    points = pixel_centres(size)
    at(points)
    sample = theirs.sample_point
    monkeypatch.setattr(
        theirs, "sample_point", lambda maps, _, **how: sample(maps, ((points + 1) / 2).expand(len(maps), -1, -1), **how)
    )
    classes, masks = logits(size=size)
    labels = some_labels(size=size, ignored=False)
    kinds = [torch.tensor(segments(frame)) for frame in labels]
    drawn = [(frame == k[:, None, None]).float() for frame, k in zip(labels, kinds, strict=True)]
    config = Mask2FormerConfig(
        num_labels=KINDS,
        train_num_points=len(points),
        class_weight=LOSS.classes,
        mask_weight=LOSS.masks,
        dice_weight=LOSS.dice,
        no_object_weight=LOSS.no_object,
    )
    criterion = theirs.Mask2FormerLoss(config, {})
    matches = match(classes, masks, labels, LOSS, random=True)
    pairs = criterion.matcher(masks, classes, drawn, kinds)
    assert matches.frames.tolist() == [f for f, (q, _) in enumerate(pairs) for _ in q]
    assert matches.queries.tolist() == torch.cat([q for q, _ in pairs]).tolist()
    assert matches.classes.tolist() == torch.cat([k[s] for k, (_, s) in zip(kinds, pairs, strict=True)]).tolist()
    expected = criterion(masks, classes, drawn, kinds)
    terms = set_loss(classes, masks, labels, matches, LOSS, random=True)
    torch.testing.assert_close(terms["classes"], LOSS.classes * expected["loss_cross_entropy"])
    torch.testing.assert_close(terms["masks"], LOSS.masks * expected["loss_mask"])
    torch.testing.assert_close(terms["dice"], LOSS.dice * expected["loss_dice"])


def test_most_points_are_the_least_certain_candidates() -> None:
    loss = SetLoss(points=40, oversample=3.0, importance=0.75)
    masks = torch.randn(2, 6, 6)
    labels = torch.zeros(2, 12, 12, dtype=torch.int64)
    labels[0, :, :6] = IGNORE
    torch.manual_seed(1)
    points = matching._uncertain_points(masks, labels, loss)
    assert points.shape == (2, 40, 2)
    assert points.abs().max() <= 1
    torch.manual_seed(1)
    many = 2 * torch.rand(2, 120, 2) - 1
    for m in range(2):
        seen = [p for p in many[m].tolist() if slow_label(labels[m], *p) != IGNORE]
        least = sorted(seen, key=lambda p: abs(slow_value(masks[m], *p)))[:30]
        assert sorted(points[m, :30].tolist()) == sorted(least)


@pytest.mark.parametrize("random", [True, False])
def test_masks_on_ignored_pixels_do_not_matter(random: bool) -> None:
    """Change masks at ignored pixels, except for a margin of one pixel that interpolation reaches."""
    classes, masks = logits(n=2, size=(16, 16))
    labels = some_labels(n=2, size=(16, 16), ignored=False)
    labels[0, :, 4:] = IGNORE
    loss = SetLoss(points=256)

    def found(masks: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        torch.manual_seed(1)
        matches = match(classes, masks, labels, loss, random=random)
        return [*matches], [*set_loss(classes, masks, labels, matches, loss, random=random).values()]

    other = masks.clone()
    other[0, :, :, 5:] = 0.01 * torch.randn(5, 16, 11)  # nowhere else is a mask so uncertain
    before, after = found(masks), found(other)
    for one, two in zip(before[0] + before[1], after[0] + after[1], strict=True):
        assert torch.equal(one, two)
    other[0, :, :, :4] += 1
    assert not torch.equal(found(other)[1][1], before[1][1])


@pytest.mark.parametrize("random", [True, False])
def test_frame_without_labels_has_no_loss(random: bool) -> None:
    classes, masks = (x.requires_grad_() for x in logits())
    labels = some_labels()
    labels[1] = IGNORE
    others = [0, 2]

    def found(chosen: list[int]) -> dict[str, Tensor]:
        parts = classes[chosen], masks[chosen], labels[chosen]
        matches = match(*parts, LOSS, random=False)
        torch.manual_seed(1)
        return set_loss(*parts, matches, LOSS, random=random)

    terms = found([0, 1, 2])
    assert as_numbers(found(others)) == {name: term.item() for name, term in terms.items()}
    for gradient in torch.autograd.grad(torch.stack([*terms.values()]).sum(), [classes, masks]):
        assert torch.isfinite(gradient).all()
        assert not gradient[1].any()
        assert gradient[others].flatten(1).any(1).all()


@pytest.mark.parametrize("random", [True, False])
@pytest.mark.parametrize("frames", [0, 2])
def test_batch_without_labels_has_zero_loss(frames: int, random: bool) -> None:
    classes, masks = (x.requires_grad_() for x in logits(n=frames))
    labels = torch.full((frames, SIDE, SIDE), IGNORE)
    matches = match(classes, masks, labels, LOSS, random=random)
    assert [m.shape for m in matches] == [(0,)] * 3
    assert all(m.dtype == torch.int64 for m in matches)
    terms = set_loss(classes, masks, labels, matches, LOSS, random=random)
    assert {name: term.item() for name, term in terms.items()} == {"classes": 0, "masks": 0, "dice": 0}
    for gradient in torch.autograd.grad(torch.stack([*terms.values()]).sum(), [classes, masks]):
        assert not gradient.any()


def test_frame_of_background_is_one_segment() -> None:
    classes, masks = logits(n=1)
    labels = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    matches = match(classes, masks, labels, LOSS, random=False)
    assert matches.classes.tolist() == [0]
    cost = [slow_cost(classes[0, q], masks[0, q], labels[0], 0, pixel_centres((SIDE, SIDE))) for q in range(5)]
    assert matches.queries.tolist() == [cost.index(min(cost))]
    terms = set_loss(classes, masks, labels, matches, LOSS, random=False)
    assert slow_set_loss(classes, masks, labels, matches, pixel_centres((SIDE, SIDE))) == as_numbers(terms)


def test_more_segments_than_queries() -> None:
    """Check that every query is matched and that the segments of least total cost are chosen."""
    classes, masks = logits(n=1, queries=2)
    labels = torch.arange(KINDS).repeat_interleave(2 * SIDE).view(1, SIDE, SIDE)
    matches = match(classes, masks, labels, LOSS, random=False)
    points = pixel_centres((SIDE, SIDE))
    cost = [[slow_cost(classes[0, q], masks[0, q], labels[0], k, points) for k in range(KINDS)] for q in range(2)]
    least = min(permutations(range(KINDS), 2), key=lambda p: cost[0][p[0]] + cost[1][p[1]])
    assert matches.queries.tolist() == [0, 1]
    assert tuple(matches.classes.tolist()) == least
    assert all(torch.isfinite(t) for t in set_loss(classes, masks, labels, matches, LOSS, random=True).values())


def test_infinite_logits_are_matched_last() -> None:
    classes, masks = logits(n=1)
    masks[0, :2] = torch.tensor([torch.nan, torch.inf])[:, None, None]
    labels = torch.arange(3).repeat_interleave(22)[: SIDE**2].view(1, SIDE, SIDE)
    assert set(match(classes, masks, labels, LOSS, random=False).queries.tolist()) == {2, 3, 4}


def test_gradients_reach_matched_masks_only() -> None:
    classes, masks = (x.requires_grad_() for x in logits())
    labels = some_labels()
    matches = match(classes, masks, labels, LOSS, random=True)
    terms = set_loss(classes, masks, labels, matches, LOSS, random=True)
    matched = torch.zeros(3, 5, dtype=torch.bool)
    matched[matches.frames, matches.queries] = True
    for name in ("masks", "dice"):
        (gradient,) = torch.autograd.grad(terms[name], masks, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert torch.equal(gradient.flatten(2).any(2), matched)
    (gradient,) = torch.autograd.grad(terms["classes"], classes)
    assert torch.isfinite(gradient).all()
    assert gradient.any(-1).all()  # "no object" is a prediction, too


def test_unmatched_queries_have_no_object_weight() -> None:
    classes, masks = logits(n=1)
    classes.requires_grad_()
    labels = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    matches = match(classes, masks, labels, LOSS, random=False)
    matched = classes.log_softmax(-1)[0, matches.queries, 0].sum()
    free = classes.log_softmax(-1)[0, :, KINDS].sum() - classes.log_softmax(-1)[0, matches.queries, KINDS].sum()
    for weight in (0.0, 0.1, 1.0):
        loss = SetLoss(no_object=weight, classes=3.0, points=SIDE**2)
        term = set_loss(classes, masks, labels, matches, loss, random=False)["classes"]
        torch.testing.assert_close(term, -3 * (matched + weight * free) / (1 + 4 * weight))
    alone = set_loss(classes, masks, labels, matches, SetLoss(no_object=0.0, points=4), random=False)["classes"]
    (gradient,) = torch.autograd.grad(alone, classes)
    assert gradient.any(-1).flatten().nonzero().flatten().tolist() == matches.queries.tolist()


def test_evaluation_is_deterministic() -> None:
    classes, masks = logits(size=(5, 6))
    labels = some_labels(size=(20, 24))
    loss = SetLoss(points=50)

    def found(random: bool) -> list[Tensor]:
        matches = match(classes, masks, labels, loss, random=random)
        return [*matches, *set_loss(classes, masks, labels, matches, loss, random=random).values()]

    assert all(torch.equal(a, b) for a, b in zip(found(False), found(False), strict=True))
    first, second = (set_loss(classes, masks, labels, Matches(*found(False)[:3]), loss, random=True) for _ in "12")
    assert first["masks"] != second["masks"]
