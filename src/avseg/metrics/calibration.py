"""Per-pixel calibration of probabilities, and detection of errors by uncertainty.

*Calibration*: pixels are binned by probability, and the mean probability of a bin is compared with the share of
positive pixels. The expected calibration error (Guo et al., arXiv 1706.04599) is the mean over pixels of the difference
in their bin. With one class the probability is that of the foreground and positives are sounding pixels; with several
classes it is that of the predicted label and positives are correct pixels.

*Uncertainty against error*: the same bins for the uncertainty of a model (the vacuity U of an evidential head) and the
share of wrong pixels, and the area under the ROC curve (AUROC) of U as a detector of wrong pixels: the probability that
a random wrong pixel is more uncertain than a random correct pixel. ``1 - confidence`` is an uncertainty that every
model has, which allows comparing models with and without U.

Counts are summed over clips in constant memory. Shape letters: N frames, K channels, H × W pixels.
"""

from math import isnan

import torch
from torch import Tensor

from avseg.interface import IGNORE

BINS = 15
"""Default number of bins of probability, as in most papers."""
_LARGEST_LOGIT = 16.0
"""Bound of the logit of scores; those beyond it are ties."""
_STEPS = 4096
"""Number of distinct scores, evenly spaced in their logit."""


class BinnedCalibration:
    """Histogram of values in 0..1 in bins of equal width, with the share of positives in each bin.

    Args:
        bins: Number of bins.

    Attributes:
        counts: (bins,) int64, values in each bin.
        sums: (bins,) float64, sum of the values in each bin.
        positives: (bins,) int64, positives in each bin.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.counts = torch.zeros(bins, dtype=torch.int64)
        self.sums = torch.zeros(bins, dtype=torch.float64)
        self.positives = torch.zeros(bins, dtype=torch.int64)

    def update(self, values: Tensor, positive: Tensor) -> None:
        """Count values in their bins.

        Args:
            values: Values in 0..1, of any shape.
            positive: bool of the same shape.
        """
        bins = len(self.counts)
        place = (values * bins).long().clamp(0, bins - 1).flatten()
        self.counts += torch.bincount(place, minlength=bins).cpu()
        self.sums += torch.bincount(place, values.flatten().double(), minlength=bins).cpu()
        self.positives += torch.bincount(place[positive.flatten()], minlength=bins).cpu()

    def __add__(self, other: "BinnedCalibration") -> "BinnedCalibration":
        """Return the sum of two histograms with the same bins."""
        both = BinnedCalibration(len(self.counts))
        both.counts, both.sums = self.counts + other.counts, self.sums + other.sums
        both.positives = self.positives + other.positives
        return both

    @property
    def mean(self) -> Tensor:
        """Return the mean value in each bin, (bins,) float64; NaN for empty bins."""
        return self.sums / self.counts

    @property
    def share(self) -> Tensor:
        """Return the share of positives in each bin, (bins,) float64; NaN for empty bins."""
        return self.positives / self.counts.double()

    @property
    def average(self) -> float:
        """Return the mean of all values; NaN if there is none."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def ece(self) -> float:
        """Return the expected calibration error: |mean - share| averaged over all values; NaN if there is none."""
        return float((self.sums - self.positives).abs().sum() / self.counts.sum())

    def as_dict(self) -> dict[str, list[float | None]]:
        """Return counts, means and shares as lists for JSON, None for empty bins."""
        columns = {"counts": self.counts, "mean": self.mean, "share": self.share}
        return {name: [None if isnan(v) else v for v in column.tolist()] for name, column in columns.items()}


class BinnedAUROC:
    """Area under the ROC curve (AUROC) of scores in 0..1 that detect positives, such as wrong pixels.

    Scores are rounded to steps of their logit, which are small at both ends; ties count half.

    Attributes:
        negatives: (steps,) int64, negatives at each step of the score.
        positives: (steps,) int64, positives at each step of the score.
    """

    def __init__(self) -> None:
        self.negatives = torch.zeros(_STEPS, dtype=torch.int64)
        self.positives = torch.zeros(_STEPS, dtype=torch.int64)

    def update(self, scores: Tensor, positive: Tensor) -> None:
        """Count scores.

        Args:
            scores: Scores in 0..1, of any shape.
            positive: bool of the same shape.
        """
        logits = scores.double().logit().clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT).flatten()
        step = ((logits / _LARGEST_LOGIT + 1) / 2 * (_STEPS - 1)).round().long()
        self.negatives += torch.bincount(step[~positive.flatten()], minlength=_STEPS).cpu()
        self.positives += torch.bincount(step[positive.flatten()], minlength=_STEPS).cpu()

    @property
    def auroc(self) -> float:
        """Return the AUROC: 0.5 at chance, 1 for a perfect detector; NaN without both positives and negatives."""
        negatives, positives = self.negatives.double(), self.positives.double()
        ordered = (positives * (negatives.cumsum(0) - negatives / 2)).sum()
        return float(ordered / (negatives.sum() * positives.sum()))


class Calibration:
    """Calibration of probabilities, and detection of errors by uncertainty, over a group of frames.

    Args:
        classes: K of the model: 1, or background and classes.
        bins: Bins of probability and of uncertainty.

    Attributes:
        probability_bins: K = 1: foreground probability → share of sounding pixels. K > 1: confidence → share of correct
            pixels.
        confidence_ranking: AUROC of 1 - confidence for wrong pixels.
        uncertainty_bins: Uncertainty of the model → share of wrong pixels; empty for a model without uncertainty.
        uncertainty_ranking: AUROC of the uncertainty of the model for wrong pixels; empty for a model without
            uncertainty.
    """

    def __init__(self, classes: int, bins: int = BINS) -> None:
        self.classes = classes
        self.probability_bins = BinnedCalibration(bins)
        self.confidence_ranking = BinnedAUROC()
        self.uncertainty_bins = BinnedCalibration(bins)
        self.uncertainty_ranking = BinnedAUROC()

    def update(self, probabilities: Tensor, labels: Tensor, uncertainty: Tensor | None = None) -> None:
        """Count frames; pixels labelled 255 are ignored.

        Args:
            probabilities: (N, K, H, W).
            labels: (N, H, W) int64; with K = 1, labels other than 0 are sounding.
            uncertainty: (N, H, W) in 0..1, for models that predict it.

        Raises:
            ValueError: When shapes do not agree.
        """
        (n, k, *size), shapes = probabilities.shape, [labels.shape]
        shapes += [uncertainty.shape] if uncertainty is not None else []
        if k != self.classes or any(tuple(shape) != (n, *size) for shape in shapes):
            raise ValueError(
                f"expected probabilities (N, {self.classes}, H, W), labels and uncertainty (N, H, W), "
                f"got {tuple(probabilities.shape)} and {', '.join(str(tuple(s)) for s in shapes)}"
            )
        scored = labels != IGNORE
        top, chosen = (found[scored] for found in probabilities.max(1))
        if self.classes == 1:
            sounds = labels[scored] != 0
            wrong = (top > 0.5) != sounds
            self.probability_bins.update(top, sounds)
            # Smaller than 1 - p for p < 0.5, without the rounding error of 1 - (1 - p).
            self.confidence_ranking.update(torch.minimum(top, 1 - top), wrong)
        else:
            wrong = chosen != labels[scored]
            self.probability_bins.update(top, ~wrong)
            self.confidence_ranking.update(1 - top, wrong)
        if uncertainty is not None:
            self.uncertainty_bins.update(uncertainty[scored], wrong)
            self.uncertainty_ranking.update(uncertainty[scored], wrong)
