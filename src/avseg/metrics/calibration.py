"""Can a model's probabilities be believed, and does it know where it is wrong? Counted pixel by pixel.

*Reliability*: of the pixels to which a model gives a probability of about 0.8, do 80 % sound? Pixels are put into bins
of probability; the expected calibration error (Guo et al., arXiv 1706.04599) is the mean over pixels of how far apart
a bin's probability and share are. With one class the probability is that of "sounds", with several that of the label
chosen, against how often it is right.

*Uncertainty against error*: the same bins of a model's own uncertainty (the vacuity U of an evidential head) against
the share of wrong pixels, and the area under the ROC curve of "wrong" for U: the chance that of two pixels, one wrong
and one right, the wrong one is the more uncertain. ``1 - confidence`` is another uncertainty, one that any model has,
so that models with and without U can be compared.

All is added up over clips in memory that does not grow. Shape letters: N frames, K channels, H × W pixels.
"""

from math import isnan

import torch
from torch import Tensor

from avseg.interface import IGNORE

BINS = 15
"""Of probability, as in most papers."""
_STEEPEST = 16.0
"""Uncertainties beyond sigmoid(± this) count as equal."""
_STEPS = 4096
"""Uncertainties that are told apart, evenly spaced in their logit."""


class Reliability:
    """Numbers of 0..1 in bins of equal width, and how often something happened there.

    Args:
        bins: How many.

    Attributes:
        counts: (bins,) int64, numbers seen in each bin.
        sums: (bins,) float64, of the numbers.
        happened: (bins,) int64, of them, how often it happened.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.counts = torch.zeros(bins, dtype=torch.int64)
        self.sums = torch.zeros(bins, dtype=torch.float64)
        self.happened = torch.zeros(bins, dtype=torch.int64)

    def update(self, numbers: Tensor, happened: Tensor) -> None:
        """Count.

        Args:
            numbers: Of 0..1, of any shape.
            happened: bool, of the same shape.
        """
        bins = len(self.counts)
        place = (numbers * bins).long().clamp(0, bins - 1).flatten()
        self.counts += torch.bincount(place, minlength=bins).cpu()
        self.sums += torch.bincount(place, numbers.flatten().double(), minlength=bins).cpu()
        self.happened += torch.bincount(place[happened.flatten()], minlength=bins).cpu()

    def __add__(self, other: "Reliability") -> "Reliability":
        """Both together; they must have the same bins."""
        both = Reliability(len(self.counts))
        both.counts, both.sums = self.counts + other.counts, self.sums + other.sums
        both.happened = self.happened + other.happened
        return both

    @property
    def mean(self) -> Tensor:
        """(bins,) float64, mean number in each bin; NaN where there is none."""
        return self.sums / self.counts

    @property
    def share(self) -> Tensor:
        """(bins,) float64, how often it happened; NaN where there is no number."""
        return self.happened / self.counts.double()

    @property
    def average(self) -> float:
        """Mean of all numbers, else NaN."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error: the distance of mean and share, averaged over all that was counted, else NaN."""
        return float((self.sums - self.happened).abs().sum() / self.counts.sum())

    def as_dict(self) -> dict[str, list[float | None]]:
        """Plain counts, means and shares; JSON-able, None where a bin is empty."""
        columns = {"counts": self.counts, "mean": self.mean, "share": self.share}
        return {name: [None if isnan(v) else v for v in column.tolist()] for name, column in columns.items()}


class Ranking:
    """How well an uncertainty tells wrong from right: the area under its ROC curve.

    Uncertainties are told apart in steps of their logit, fine at both ends; those of one step tie, which counts half.

    Attributes:
        right: (steps,) int64, how many of what is right has each uncertainty.
        wrong: (steps,) int64, of what is wrong.
    """

    def __init__(self) -> None:
        self.right = torch.zeros(_STEPS, dtype=torch.int64)
        self.wrong = torch.zeros(_STEPS, dtype=torch.int64)

    def update(self, uncertainty: Tensor, wrong: Tensor) -> None:
        """Count.

        Args:
            uncertainty: Of 0..1, of any shape.
            wrong: bool, of the same shape.
        """
        steep = uncertainty.double().logit().clamp(-_STEEPEST, _STEEPEST).flatten()
        step = ((steep / _STEEPEST + 1) / 2 * (_STEPS - 1)).round().long()
        self.right += torch.bincount(step[~wrong.flatten()], minlength=_STEPS).cpu()
        self.wrong += torch.bincount(step[wrong.flatten()], minlength=_STEPS).cpu()

    @property
    def auroc(self) -> float:
        """0.5 for an uncertainty that says nothing, 1 for one that knows every error; NaN without both kinds."""
        right, wrong = self.right.double(), self.wrong.double()
        won = (wrong * (right.cumsum(0) - right / 2)).sum()
        return float(won / (right.sum() * wrong.sum()))


class Calibration:
    """Reliability of a group of frames, and how well uncertainty finds their errors.

    Args:
        classes: K of the model: 1, or background and classes.
        bins: Of probability and of uncertainty.

    Attributes:
        reliability: K = 1: probability of "sounds" → share that sounds. Else: confidence → share that is right.
        doubt: Ranking of 1 - confidence.
        uncertain: The model's own uncertainty → share that is wrong; nothing is counted for a model without one.
        uncertainty: Ranking of the model's own uncertainty; the same.
    """

    def __init__(self, classes: int, bins: int = BINS) -> None:
        self.classes = classes
        self.reliability = Reliability(bins)
        self.doubt = Ranking()
        self.uncertain = Reliability(bins)
        self.uncertainty = Ranking()

    def update(self, probabilities: Tensor, labels: Tensor, uncertainty: Tensor | None = None) -> None:
        """Count frames; pixels labelled 255 are not.

        Args:
            probabilities: (N, K, H, W).
            labels: (N, H, W) int64; K = 1: 0 is silent, anything else sounds.
            uncertainty: (N, H, W) of 0..1, if the model has its own.

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
            self.reliability.update(top, sounds)
            # 1 - p would round what is almost 0 away.
            self.doubt.update(torch.minimum(top, 1 - top), wrong)
        else:
            wrong = chosen != labels[scored]
            self.reliability.update(top, ~wrong)
            self.doubt.update(1 - top, wrong)
        if uncertainty is not None:
            self.uncertain.update(uncertainty[scored], wrong)
            self.uncertainty.update(uncertainty[scored], wrong)
