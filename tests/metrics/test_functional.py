"""Tests of scores of one batch against recorded releases, plain loops and worked examples."""

from math import ceil, hypot, nan
from pathlib import Path

import numpy as np
import pytest
import torch

from avseg.metrics import functional
from avseg.metrics.functional import Areas, binary_fscore, binary_iou, boundary_f, semantic_scores

GOLDEN = Path(__file__).parents[1] / "parity" / "metrics.npz"


def logit(*probabilities):
    return torch.tensor(probabilities).logit()


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


class TestAgainstTheReleases:
    def test_binary(self, golden):
        assert abs(binary_iou(golden["logits"], golden["gt"]) - golden["J"]) < 1e-6
        assert abs(binary_fscore(golden["logits"], golden["gt"]) - golden["F"]) < 1e-6

    @pytest.mark.parametrize("name", ["miou", "fscore", "miou_no_background", "fscore_no_background"])
    def test_semantic(self, golden, name):
        scores = semantic_scores(golden["sem_logits"], golden["label"].long())
        assert abs(scores[name] - golden[f"sem_{name}"]) < 1e-6

    @pytest.mark.parametrize("name", ["iou", "fscore"])
    def test_semantic_per_class(self, golden, name):
        scores = semantic_scores(golden["sem_logits"], golden["label"].long())
        torch.testing.assert_close(
            scores[f"{name}_per_class"], golden[f"sem_{name}_per_class"].double(), atol=1e-6, rtol=0
        )


def slow_iou(logits, target):
    total = 0.0
    for x, t in zip(torch.sigmoid(logits) > 0.5, target != 0, strict=True):
        if t.any():
            total += int((x & t).sum()) / (int((x | t).sum()) + 1e-7)
        else:
            total += int((~x).sum()) / (x.numel() + 1e-7)
    return total / len(target)


def slow_fscore(logits, target):
    kept = [n for n in range(len(target)) if target[n].any()]
    if not kept:
        return 0.0
    best = 0.0
    for threshold in torch.linspace(0, 1 - 1e-10, 255):
        total = 0.0
        for n in kept:
            marked, truth = torch.sigmoid(logits[n]) >= threshold, target[n] != 0
            hits = int((marked & truth).sum())
            precision, recall = hits / (int(marked.sum()) + 1e-20), hits / (int(truth.sum()) + 1e-20)
            total += 1.3 * precision * recall / (0.3 * precision + recall) if hits else 0.0
        best = max(best, total / len(kept))
    return best


def slow_semantic(logits, labels):
    """Return {class: [(iou, f) of each frame in which it is predicted or labelled]}."""
    predicted = torch.softmax(logits, 1).argmax(1)
    seen = {c: [] for c in range(logits.shape[1])}
    for p, t in zip(predicted, labels, strict=True):
        for c, values in seen.items():
            hits, marks, truth = (int(x.sum()) for x in ((p == c) & (t == c), p == c, t == c))
            if marks + truth:
                precision, recall = hits / max(marks, 1), hits / max(truth, 1)
                f = 1.3 * precision * recall / (0.3 * precision + recall) if hits else 0.0
                values.append((hits / (marks + truth - hits), f))
    return seen


class TestBinary:
    @pytest.mark.parametrize("seed", range(3))
    def test_equals_the_slow_loops(self, seed):
        logits, target = 2 * seeded(4, 9, 7, seed=seed), (seeded(4, 9, 7, seed=seed + 9) > 0.7).long()
        target[seed] = 0
        assert binary_iou(logits, target).item() == pytest.approx(slow_iou(logits, target), abs=1e-9)
        assert binary_fscore(logits, target).item() == pytest.approx(slow_fscore(logits, target), abs=1e-9)

    def test_iou_worked_example(self):
        logits = torch.tensor([[[1.0, 1], [-1, -1]], [[1, -1], [-1, -1]], [[0, 0], [0, 0]]])
        target = torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]])
        frames = [binary_iou(logits[n : n + 1], target[n : n + 1]).item() for n in range(3)]
        assert frames == pytest.approx([1 / 3, 3 / 4, 1.0], abs=1e-6)
        assert binary_iou(logits, target).item() == pytest.approx(0.694444, abs=1e-6)

    def test_a_probability_of_exactly_one_half_is_background(self):
        logits = torch.tensor([[[0.0, 1e-9, 1e-6]]])  # 1e-9 has probability 0.5 in float32
        assert binary_iou(logits, torch.tensor([[[0, 0, 1]]])).item() == pytest.approx(1.0, abs=1e-6)

    A = logit([[0.9, 0.6], [0.4, 0.1]]), torch.tensor([[[1, 0], [1, 0]]])
    B = logit([[0.2, 0.1], [0.1, 0.1]]), torch.tensor([[[1, 0], [0, 0]]])

    def test_fscore_worked_example_a(self):
        assert binary_fscore(*self.A).item() == pytest.approx(0.8125)
        curve = functional.threshold_areas(self.A[0].sigmoid(), self.A[1]).f()[0]
        at = {t: curve[round(t * 254)].item() for t in (0.05, 0.3, 0.5, 0.8, 0.95)}
        assert at == pytest.approx({0.05: 0.5652, 0.3: 0.7222, 0.5: 0.5, 0.8: 0.8125, 0.95: 0.0}, abs=1e-4)

    def test_fscore_worked_example_b(self):
        curve = functional.threshold_areas(self.B[0].sigmoid(), self.B[1]).f()[0]
        assert [curve[round(t * 254)].item() for t in (0.05, 0.15, 0.3)] == pytest.approx([0.3023, 1, 0], abs=1e-4)

    def test_fscore_depends_on_the_batch(self):
        together = binary_fscore(torch.cat([self.A[0], self.B[0]]), torch.cat([self.A[1], self.B[1]]))
        assert together.item() == pytest.approx((0.7222 + 1) / 2, abs=1e-4)
        assert (binary_fscore(*self.A) + binary_fscore(*self.B)).item() / 2 == pytest.approx(0.90625)

    def test_thresholds_include_both_ends(self):
        assert len(functional.thresholds()) == 255
        assert functional.thresholds()[-1] == 1.0
        assert binary_fscore(torch.full((1, 2, 2), 90.0), torch.ones(1, 2, 2)).item() == pytest.approx(1.0)
        assert binary_fscore(torch.full((1, 2, 2), -200.0), torch.ones(1, 2, 2)).item() == pytest.approx(1.0)

    def test_fscore_skips_empty_frames_and_is_0_without_others(self):
        logits, target = self.A
        more = torch.cat([logits, torch.ones(1, 2, 2)]), torch.cat([target, torch.zeros(1, 2, 2).long()])
        assert binary_fscore(*more).item() == pytest.approx(0.8125)
        assert binary_fscore(torch.ones(2, 3, 3), torch.zeros(2, 3, 3)).item() == 0.0

    @pytest.mark.parametrize("shape", [(2, 3, 1, 5, 4), (2, 3, 5, 4), (6, 1, 5, 4), (6, 5, 4)])
    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
    def test_shapes_and_types(self, shape, dtype):
        logits, target = seeded(6, 5, 4), seeded(6, 5, 4, seed=1) > 0
        scale = 1 if dtype == torch.bool else 255
        given = logits.reshape(shape), (target * scale).to(dtype)
        assert binary_iou(*given) == binary_iou(logits, target)
        assert binary_fscore(*given) == binary_fscore(logits, target)
        assert binary_iou(*given).shape == ()

    @pytest.mark.parametrize("score", [binary_iou, binary_fscore])
    def test_invalid_inputs_are_refused(self, score):
        with pytest.raises(ValueError, match="same frames"):
            score(torch.zeros(2, 3, 3), torch.zeros(3, 3, 3))
        with pytest.raises(ValueError, match="same frames"):
            score(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3))
        with pytest.raises(ValueError, match="NaN in 1 of 1"):
            score(torch.tensor([0.0] * 8 + [nan]).view(1, 3, 3), torch.ones(1, 3, 3))

    def test_non_contiguous_and_half_precision(self):
        logits, target = seeded(3, 6, 5).bfloat16(), seeded(3, 6, 5, seed=1) > 0
        turned = logits.transpose(1, 2), target.transpose(1, 2)
        assert binary_fscore(*turned).item() == pytest.approx(binary_fscore(logits.float(), target).item())
        assert binary_iou(*turned).item() == pytest.approx(binary_iou(logits.float(), target).item())


def maps(*predicted, classes):
    """Return logits with a given argmax."""
    return torch.nn.functional.one_hot(torch.tensor(predicted), classes).movedim(-1, 1).float()


EXAMPLE = maps([[0, 0], [1, 1]], [[0, 0], [0, 2]], classes=4), torch.tensor([[[0, 0], [0, 1]], [[0, 0], [0, 0]]])


class TestSemantic:
    def test_worked_example(self):
        scores = semantic_scores(*EXAMPLE)
        assert scores["iou_per_class"].tolist() == pytest.approx([0.70833, 0.5, 0, 0], abs=1e-5)
        assert scores["fscore_per_class"].tolist() == pytest.approx([0.9126, 0.5652, 0, 0], abs=1e-4)
        assert scores["frames_per_class"].tolist() == [2, 1, 1, 0]
        named = ["miou", "miou_no_background", "miou_foreground", "miou_present", "fscore"]
        assert [scores[n].item() for n in named] == pytest.approx(
            [0.30208, 0.40278, 0.16667, 0.40278, 0.36944], abs=1e-5
        )

    @pytest.mark.parametrize("seed", range(3))
    def test_equals_the_slow_loop(self, seed):
        logits, labels = seeded(3, 5, 6, 7, seed=seed), seeded(3, 6, 7, seed=seed + 9).abs().mul(2).long().clamp(max=3)
        seen, scores = slow_semantic(logits, labels), semantic_scores(logits, labels)
        for column, name in enumerate(("iou", "fscore")):
            means = [np.mean([v[column] for v in values]) if values else 0.0 for values in seen.values()]
            assert scores[f"{name}_per_class"].tolist() == pytest.approx(means)
            short = {"iou": "miou"}.get(name, name)
            assert scores[short].item() == pytest.approx(np.mean(means))
            assert scores[f"{short}_no_background"].item() == pytest.approx(np.mean(means[:-1]))
            assert scores[f"{short}_foreground"].item() == pytest.approx(np.mean(means[1:]))
            assert scores[f"{short}_present"].item() == pytest.approx(
                np.mean([m for m, v in zip(means, seen.values(), strict=True) if v])
            )

    def test_ignored_pixels_are_not_counted(self):
        logits, labels = seeded(2, 4, 6, 6), seeded(2, 6, 6, seed=1).abs().long().clamp(max=3)
        labels[:, 3:] = 255
        whole, part = semantic_scores(logits, labels), semantic_scores(logits[:, :, :3], labels[:, :3])
        for name in whole:
            torch.testing.assert_close(whole[name], part[name])

    def test_clips_are_frames(self):
        logits, labels = seeded(6, 4, 5, 3), seeded(6, 5, 3, seed=1).abs().long().clamp(max=3)
        clips = semantic_scores(logits.view(2, 3, 4, 5, 3), labels.view(2, 3, 5, 3))
        assert clips["miou"] == semantic_scores(logits, labels)["miou"]

    @pytest.mark.parametrize("label", [-1, 4, 254])
    def test_labels_out_of_range_are_refused(self, label):
        with pytest.raises(ValueError, match=rf"0\.\.3 or 255, got {label}"):
            semantic_scores(torch.zeros(1, 4, 2, 2), torch.full((1, 2, 2), label))

    def test_refuses_nan_and_wrong_shapes(self):
        with pytest.raises(ValueError, match="NaN"):
            semantic_scores(torch.full((1, 4, 2, 2), nan), torch.zeros(1, 2, 2).long())
        with pytest.raises(ValueError, match="same frames"):
            semantic_scores(torch.zeros(2, 4, 2, 2), torch.zeros(1, 2, 2).long())


def test_ratios_of_empty_areas_are_nan():
    nothing = Areas(*torch.zeros(3, 1))
    assert nothing.iou.isnan()
    assert nothing.f().isnan()
    assert nothing.fdr.isnan()


def square(size, top, left, side):
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, top : top + side, left : left + side] = True
    return mask


def slow_boundary_f(predicted, truth, tolerance=0.008):
    def contour(mask):
        h, w = mask.shape
        near = [(0, 1), (1, 0), (1, 1)]
        return [
            (y, x)
            for y in range(h)
            for x in range(w)
            if any(mask[y, x] != mask[min(y + dy, h - 1), min(x + dx, w - 1)] for dy, dx in near)
        ]

    radius = ceil(tolerance * hypot(*truth.shape))
    ours, theirs = contour(predicted), contour(truth)
    if not ours or not theirs:
        return float(not ours and not theirs)

    def share(some, others):
        return np.mean([any(hypot(y - v, x - u) <= radius for v, u in others) for y, x in some])

    precision, recall = share(ours, theirs), share(theirs, ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


class TestBoundary:
    def test_boundary_f_is_1_for_equal_and_0_for_missing_contours(self):
        mask, empty = square(40, 10, 10, 15), torch.zeros(1, 40, 40, dtype=torch.bool)
        values = [boundary_f(*pair).item() for pair in ((mask, mask), (empty, mask), (mask, empty), (empty, empty))]
        assert values == [1.0, 0.0, 0.0, 1.0]

    def test_tolerance_is_a_share_of_the_diagonal(self):
        near, far = square(100, 42, 40, 20), square(100, 43, 40, 20)  # 0.008 * 141.4, rounded up: 2 pixels
        truth = square(100, 40, 40, 20)
        assert boundary_f(near, truth).item() == 1.0
        assert boundary_f(far, truth).item() < 1.0

    @pytest.mark.parametrize("seed", range(4))
    def test_equals_the_slow_loop(self, seed):
        fields = torch.nn.functional.avg_pool2d(seeded(2, 1, 34, 30, seed=seed), 9, 1, 4)[:, 0]
        predicted, truth = fields[:1] > 0, fields[1:] > 0.05
        expected = slow_boundary_f(predicted[0].numpy(), truth[0].numpy(), tolerance=0.03)
        assert boundary_f(predicted, truth, tolerance=0.03).item() == pytest.approx(expected)


class TestThresholdAreas:
    def test_equals_comparisons_at_and_next_to_every_threshold(self):
        edges = functional.thresholds()
        zero, one = torch.zeros_like(edges), torch.ones_like(edges)
        near = torch.cat([edges, edges.nextafter(zero), edges.nextafter(one), edges + 1 / 508]).clamp(0, 1)
        probability = near[torch.randperm(len(near), generator=torch.Generator().manual_seed(0))].view(5, 12, 17)
        labels = torch.arange(probability.numel()).view(5, 12, 17) % 2
        labels[:, 3] = 255
        areas = functional.threshold_areas(probability, labels)
        for k, edge in enumerate(edges):
            passed = (probability >= edge) & (labels != 255)
            assert torch.equal(areas.predicted[:, k], passed.sum((1, 2)).double())
            assert torch.equal(areas.both[:, k], (passed & (labels == 1)).sum((1, 2)).double())
        assert torch.equal(areas.labelled[:, 0], (labels == 1).sum((1, 2)).double())
