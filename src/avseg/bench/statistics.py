"""Statistics over runs of several seeds: mean and deviation, and confidence intervals of paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
"""Bootstrap samples."""


@dataclass(frozen=True)
class Summary:
    """One score over seeds.

    Attributes:
        mean: Mean over seeds.
        std: Standard deviation over seeds, with n - 1 in the denominator; None for one seed.
        values: One per seed.
    """

    mean: float
    std: float | None
    values: tuple[float, ...]


def summary(values: Sequence[float]) -> Summary:
    """Return mean and deviation of a score.

    Args:
        values: One per seed, at least one.
    """
    return Summary(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, tuple(values))


@dataclass(frozen=True)
class Difference:
    """Difference of the scores of two models.

    Attributes:
        mean: Mean of the difference over clips and seeds.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        not_better: Share of the bootstrap samples in which the difference is 0 or less.
    """

    mean: float
    low: float
    high: float
    not_better: float


def paired_bootstrap(
    ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], draws: int = DRAWS
) -> Difference:
    """Return the difference of two models scored on the same clips, with a bootstrap confidence interval.

    Clips and runs are both sampled with replacement, so that the interval covers other clips and other seeds. Runs of
    different models are independent and are sampled independently; clips are the same for both models and are sampled
    in pairs.

    Args:
        ours: For each seed, name of a clip → score.
        theirs: The same for the other model.
        draws: Number of bootstrap samples, from a fixed random state.

    Raises:
        ValueError: When the two were not scored on the same clips.
    """
    clips = sorted(ours[0])
    if any(sorted(run) != clips for run in (*ours, *theirs)):
        raise ValueError("paired scores must be of the same clips")
    a, b = _matrix(ours, clips), _matrix(theirs, clips)
    rng = np.random.default_rng(0)
    found = np.empty(draws)
    for k in range(draws):
        chosen = rng.integers(len(clips), size=len(clips))
        of_a, of_b = rng.integers(len(a), size=len(a)), rng.integers(len(b), size=len(b))
        found[k] = a[of_a].mean(0)[chosen].mean() - b[of_b].mean(0)[chosen].mean()
    low, high = np.quantile(found, (0.025, 0.975))
    return Difference(float(a.mean() - b.mean()), float(low), float(high), float((found <= 0).mean()))


def _matrix(runs: Sequence[Mapping[str, float]], clips: Sequence[str]) -> NDArray[np.float64]:
    """Return the scores as (seeds, clips)."""
    return np.array([[run[clip] for clip in clips] for run in runs])
