"""Means, deviations, and confidence intervals of simulated scores."""

import numpy as np
import pytest

from avseg.bench.statistics import paired_bootstrap, summary


def test_summary_by_hand() -> None:
    found = summary([0.2, 0.4, 0.9])
    assert found.mean == pytest.approx(0.5)
    assert found.std == pytest.approx(np.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert found.values == (0.2, 0.4, 0.9)
    assert summary([0.3]).std is None


def test_constant_difference_has_interval_of_zero_width() -> None:
    clips = {f"c{k}": k / 10 for k in range(10)}
    found = paired_bootstrap([{k: v + 0.25 for k, v in clips.items()}], [clips], draws=50)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.not_better == 0


def test_pairing_removes_variance_of_clips() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(size=100)
    ours = {str(k): hard[k] + 0.1 + 0.05 * rng.normal() for k in range(100)}
    theirs = {str(k): hard[k] for k in range(100)}
    found = paired_bootstrap([ours], [theirs], draws=1000)
    # unpaired, each mean has an uncertainty of about ± 0.2
    assert 0.08 < found.low < 0.1 < found.high < 0.12


@pytest.mark.slow
def test_interval_has_nominal_coverage() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        clips = rng.normal(size=40)
        found = paired_bootstrap(
            [{str(k): v + 0.3 + rng.normal() for k, v in enumerate(clips)}],
            [{str(k): v for k, v in enumerate(clips)}],
            draws=300,
        )
        hits += found.low <= 0.3 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_variance_of_seeds_widens_interval() -> None:
    theirs = [{str(k): 0.0 for k in range(50)}] * 3
    apart = paired_bootstrap([{str(k): v for k in range(50)} for v in (0.0, 0.1, 0.2)], theirs, draws=1000)
    assert apart.mean == pytest.approx(0.1)
    assert apart.low < 0.05
    assert apart.high > 0.15


def test_different_clips_raise() -> None:
    with pytest.raises(ValueError, match="same clips"):
        paired_bootstrap([{"a": 1.0}], [{"b": 1.0}])
