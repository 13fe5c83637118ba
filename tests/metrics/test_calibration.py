import json
import math

import pytest
import torch
from torchmetrics.classification import BinaryAUROC, BinaryCalibrationError

from avseg.metrics.calibration import BINS, BinnedAUROC, BinnedCalibration, Calibration


def slow_reliability(numbers, happened, bins):
    """Return (count, mean, share) of each non-empty bin and the expected calibration error, in loops."""
    inside = [[] for _ in range(bins)]
    for number, did in zip(numbers, happened, strict=True):
        inside[min(int(number * bins), bins - 1)].append((number, did))
    rows = [(len(b), sum(n for n, _ in b) / len(b), sum(d for _, d in b) / len(b)) if b else None for b in inside]
    ece = sum(row[0] * abs(row[1] - row[2]) for row in rows if row) / len(numbers)
    return rows, ece


def slow_auroc(uncertainty, wrong):
    """Compute the AUROC over all pairs of a wrong and a correct pixel."""
    pairs = [
        (w, r)
        for w, bad in zip(uncertainty, wrong, strict=True)
        if bad
        for r, b in zip(uncertainty, wrong, strict=True)
        if not b
    ]
    return sum(1.0 if w > r else 0.5 * (w == r) for w, r in pairs) / len(pairs)


def test_reliability_equals_loops():
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand(5, 7, 9, generator=generator, dtype=torch.float64) ** 3
    happened = torch.rand(5, 7, 9, generator=generator) < 0.4
    ours = BinnedCalibration(10)
    ours.update(numbers, happened)
    rows, ece = slow_reliability(numbers.flatten().tolist(), happened.flatten().tolist(), 10)
    for k, row in enumerate(rows):
        count, mean, share = row or (0, math.nan, math.nan)
        assert ours.counts[k] == count
        assert ours.mean[k].item() == pytest.approx(mean, nan_ok=True)
        assert ours.share[k].item() == pytest.approx(share, nan_ok=True)
    assert ours.ece == pytest.approx(ece)
    assert ours.average == pytest.approx(numbers.mean().item())


def test_ece_equals_torchmetrics():
    """BinaryCalibrationError keeps every pixel in memory, so that it cannot replace BinnedCalibration on a test set."""
    numbers, happened = torch.rand(3, 500) ** 2, torch.rand(3, 500) < 0.4
    ours, theirs = BinnedCalibration(15), BinaryCalibrationError(n_bins=15, norm="l1")
    for row in range(3):
        ours.update(numbers[row], happened[row])
        theirs.update(numbers[row], happened[row].long())
    assert ours.ece == pytest.approx(theirs.compute().item(), abs=1e-6)


def test_auroc_equals_torchmetrics():
    """BinaryAUROC with 4096 thresholds takes 250 times as long per frame."""
    uncertainty = torch.rand(5000) ** 6
    wrong = torch.rand(5000) < 0.3 * uncertainty + 0.02
    ours, theirs = BinnedAUROC(), BinaryAUROC(thresholds=None)
    ours.update(uncertainty, wrong)
    theirs.update(uncertainty, wrong.long())
    assert ours.auroc == pytest.approx(theirs.compute().item(), abs=1e-3)


def test_reliability_by_hand():
    ours = BinnedCalibration(4)
    ours.update(torch.tensor([0.1, 0.2, 0.25, 1.0, 0.9, 0.8]), torch.tensor([0, 1, 0, 1, 1, 0]).bool())
    assert ours.counts.tolist() == [2, 1, 0, 3]  # 0.25 begins the second, 1 ends the last
    assert ours.share.tolist()[:2] == [0.5, 0.0]
    assert ours.share[3].item() == pytest.approx(2 / 3)
    assert ours.mean[3].item() == pytest.approx(0.9)
    assert ours.ece == pytest.approx((2 * 0.35 + 0.25 + 3 * (0.9 - 2 / 3)) / 6)
    plain = ours.as_dict()
    assert plain["counts"] == [2, 1, 0, 3]
    assert plain["mean"][2] is plain["share"][2] is None
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_correct_half_of_the_time_at_one_half_is_calibrated():
    ours = BinnedCalibration()
    ours.update(torch.full((10, 10), 0.5), torch.arange(100).view(10, 10) % 2 == 0)
    assert ours.ece == 0.0
    ours.update(torch.ones(100), torch.zeros(100).bool())
    assert ours.ece == 0.5


def test_sum_of_parts_equals_the_whole():
    numbers, happened = torch.rand(4, 50), torch.rand(4, 50) < 0.5
    whole, streamed, first, second = BinnedCalibration(), BinnedCalibration(), BinnedCalibration(), BinnedCalibration()
    whole.update(numbers, happened)
    for row in range(4):
        streamed.update(numbers[row], happened[row])
        (first if row < 1 else second).update(numbers[row], happened[row])
    for other in (streamed, first + second):
        assert (other.counts == whole.counts).all()
        assert (other.positives == whole.positives).all()
        assert other.sums.tolist() == pytest.approx(whole.sums.tolist())
    assert first.counts.sum() == 50  # adding leaves the parts as they are


def test_ranking_equals_loops():
    generator = torch.Generator().manual_seed(1)
    # Apart by more than a step, some of them equal, some at the very ends.
    uncertainty = torch.tensor([1e-7, 1e-5, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999, 0.99999])
    uncertainty = uncertainty[torch.randint(9, (120,), generator=generator)]
    wrong = torch.rand(120, generator=generator) < uncertainty.clamp(0.1, 0.8)
    ours = BinnedAUROC()
    for part in range(0, 120, 40):
        ours.update(uncertainty[part : part + 40], wrong[part : part + 40])
    assert ours.auroc == pytest.approx(slow_auroc(uncertainty.tolist(), wrong.tolist()))


def test_ranking_of_known_distributions():
    # P(wrong > right) for densities 2u and 1 on 0..1 is the integral of 2u * u = 2/3.
    steps = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    ours = BinnedAUROC()
    ours.update(steps, torch.zeros(2000).bool())
    ours.update(steps.sqrt(), torch.ones(2000).bool())
    assert ours.auroc == pytest.approx(2 / 3, abs=2e-3)


@pytest.mark.parametrize(("flip", "area"), [(False, 1.0), (True, 0.0)])
def test_ranking_is_1_for_perfect_and_0_for_inverted(flip, area):
    wrong = torch.arange(20) % 3 == 0
    ours = BinnedAUROC()
    ours.update(torch.where(wrong != flip, 0.6, 0.4), wrong)
    assert ours.auroc == area


def test_empty_calibration_is_nan():
    assert math.isnan(BinnedCalibration().ece)
    assert math.isnan(BinnedCalibration().average)
    ours = BinnedAUROC()
    assert math.isnan(ours.auroc)
    ours.update(torch.rand(9), torch.zeros(9).bool())
    assert math.isnan(ours.auroc)


def test_one_class_uses_the_foreground_probability():
    probability = torch.tensor([[0.9, 0.8, 0.3, 0.2], [0.6, 0.1, 0.7, 0.5]])[:, None, None]
    labels = torch.tensor([[3, 0, 0, 1], [255, 0, 1, 1]])[:, None]  # 3: any category sounds
    ours = Calibration(1, bins=10)
    ours.update(probability, labels)
    assert ours.probability_bins.counts.tolist() == [0, 1, 1, 1, 0, 1, 0, 1, 1, 1]
    assert ours.probability_bins.share[[1, 2, 3, 5, 7, 8, 9]].tolist() == [0, 1, 0, 1, 1, 0, 1]
    # 0.8 on silence, 0.2 and 0.5 (which marks nothing) on sound are wrong
    wrong, doubt = [0, 1, 0, 1, 0, 0, 1], [0.1, 0.2, 0.3, 0.2, 0.1, 0.3, 0.5]
    assert ours.confidence_ranking.auroc == pytest.approx(slow_auroc(doubt, wrong))
    assert ours.uncertainty_bins.counts.sum() == 0
    assert math.isnan(ours.uncertainty_ranking.auroc)


def test_several_classes_use_the_confidence_of_the_predicted_label():
    generator = torch.Generator().manual_seed(2)
    probabilities = (3 * torch.randn(3, 4, 6, 5, generator=generator)).softmax(1)
    labels = torch.randint(0, 4, (3, 6, 5), generator=generator)
    labels[:, 0] = 255
    ours = Calibration(4)
    for frame in range(3):
        ours.update(probabilities[frame : frame + 1], labels[frame : frame + 1])
    confidence, right = [], []
    for n in range(3):
        for y in range(1, 6):
            for x in range(5):
                pixel = probabilities[n, :, y, x].tolist()
                confidence.append(max(pixel))
                right.append(pixel.index(max(pixel)) == labels[n, y, x])
    rows, ece = slow_reliability(confidence, right, BINS)
    assert ours.probability_bins.counts.tolist() == [row[0] if row else 0 for row in rows]
    assert ours.probability_bins.ece == pytest.approx(ece)
    doubt = [1 - c for c in confidence]
    assert ours.confidence_ranking.auroc == pytest.approx(slow_auroc(doubt, [not r for r in right]), abs=2e-3)


def test_uncertainty_is_compared_with_errors():
    probability = torch.tensor([0.9, 0.9, 0.1, 0.1]).view(1, 1, 1, 4)
    labels = torch.tensor([1, 0, 0, 255]).view(1, 1, 4)
    uncertainty = torch.tensor([0.25, 0.75, 0.3, 0.9]).view(1, 1, 4)
    ours = Calibration(1, bins=2)
    ours.update(probability, labels, uncertainty)
    assert ours.uncertainty_bins.counts.tolist() == [2, 1]
    assert ours.uncertainty_bins.share.tolist() == [0.0, 1.0]  # the error rate
    assert ours.uncertainty_bins.average == pytest.approx(1.3 / 3)
    assert ours.uncertainty_ranking.auroc == 1.0
    assert ours.confidence_ranking.auroc == 0.5  # 0.9 and 0.9, one of them wrong: the probability cannot separate them


def test_almost_certain_pixels_are_still_ranked():
    probability = torch.tensor([1e-6, 1e-5, 1e-4], dtype=torch.float32).view(1, 1, 1, 3)
    ours = Calibration(1)
    ours.update(probability, torch.tensor([0, 0, 1]).view(1, 1, 3))
    assert ours.confidence_ranking.auroc == 1.0


@pytest.mark.parametrize(
    ("probabilities", "labels", "uncertainty"),
    [((2, 3, 4, 4), (2, 4, 4), None), ((2, 1, 4, 4), (2, 4, 5), None), ((2, 1, 4, 4), (2, 4, 4), (2, 2, 2))],
)
def test_shapes_that_do_not_agree_are_refused(probabilities, labels, uncertainty):
    maps = None if uncertainty is None else torch.zeros(uncertainty)
    with pytest.raises(ValueError, match=r"expected probabilities \(N, 1, H, W\)"):
        Calibration(1).update(torch.zeros(probabilities), torch.zeros(labels, dtype=torch.int64), maps)
