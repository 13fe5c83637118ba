"""Reliability diagrams of counts with given shares."""

import matplotlib.colors
import numpy as np
import pytest
import torch

from avseg.errors import ConfigError
from avseg.figures.reliability import reliability
from avseg.metrics.calibration import BinnedCalibration

BLUE, VERMILION = (np.array(matplotlib.colors.to_rgb(c)) * 255 for c in ("#0072B2", "#D55E00"))


def counted(share=0.5, count=400, bins=10):
    """Count numbers all over 0..1 with this observed share in every bin."""
    numbers = (torch.arange(bins * count) + 0.5) / (bins * count)
    ours = BinnedCalibration(bins)
    ours.update(numbers, torch.arange(bins * count) % count < share * count)
    return ours


def faint(colour):
    return 255 - 0.3 * (255 - colour)


def pixels_of(picture, colour):
    return int((np.abs(picture - colour.round()) < 4).all(-1).sum())


def test_bar_height_is_observed_share(tmp_path, pixels):
    def area(share):
        out = reliability({"a": {"g": counted(share)}}, tmp_path / "x.png", dpi=150)
        return pixels_of(pixels(out), faint(BLUE))

    whole = area(1.0)
    assert whole > 20_000
    assert area(0.5) == pytest.approx(whole / 2, rel=0.06)
    assert area(0.0) < whole / 100


def test_dots_of_calibrated_model_lie_on_diagonal(tmp_path, pixels):
    ours = BinnedCalibration(10)
    for k in range(10):
        ours.update(torch.full((100,), (k + 0.5) / 10), torch.arange(100) < 10 * k + 5)
    assert ours.ece == pytest.approx(0.0, abs=1e-6)
    picture = pixels(reliability({"a": {"g": ours}}, tmp_path / "x.png", dpi=150))
    upper = picture[60 : int(picture.shape[0] * 0.68)]  # without legend and histogram
    y, x = np.nonzero((np.abs(upper - BLUE.round()) < 4).all(-1))
    slope, _ = np.polyfit(x, y, 1)
    assert np.corrcoef(x, y)[0, 1] == pytest.approx(-1, abs=0.01)
    assert slope == pytest.approx(-1, abs=0.15)  # about square


@pytest.mark.slow
def test_groups_have_colours_and_labels_columns(tmp_path, pixels):
    def draw(labels, groups):
        diagrams = {f"model {k}": {f"group {g}": counted() for g in range(groups)} for k in range(labels)}
        return pixels(reliability(diagrams, tmp_path / "x.png", dpi=72))

    one, two, four, five = draw(1, 1), draw(1, 2), draw(4, 1), draw(5, 1)
    assert pixels_of(one, faint(VERMILION)) == 0
    assert pixels_of(two, faint(VERMILION)) == pytest.approx(pixels_of(two, faint(BLUE)), rel=0.1)
    assert one.shape[1] < four.shape[1] == five.shape[1] == 504
    assert two.shape[0] > 1.8 * one.shape[0]
    assert five.shape[0] > 1.8 * four.shape[0]


def test_rare_bins_are_drawn_and_empty_bins_are_not(tmp_path, pixels):
    ours = BinnedCalibration(10)
    ours.update(torch.tensor([0.05] * 9999 + [0.95]), torch.zeros(10_000).bool())
    picture = pixels(reliability({"a": {"g": ours}}, tmp_path / "x.png", dpi=150))
    lower = picture[int(picture.shape[0] * 0.7) :]
    columns = np.flatnonzero((np.abs(lower - BLUE.round()) < 4).all(-1).any(0))
    gap = np.diff(columns).max()
    assert gap > 0.7 * (columns[-1] - columns[0])  # two bars with eight empty bins between them


def test_no_counts_give_empty_diagram(tmp_path, pixels):
    diagrams = {"a": {"g": counted()}, "b": {"g": BinnedCalibration(10)}}
    picture = pixels(reliability(diagrams, tmp_path / "x.png", dpi=72))
    third = picture.shape[1] // 3
    assert pixels_of(picture[30:, :-third], faint(BLUE)) > 1000
    assert pixels_of(picture[30:, -third:], faint(BLUE)) == 0


@pytest.mark.parametrize(
    ("diagrams", "out", "hint"),
    [
        ({}, "x.png", "need labels with the same groups each, got {}"),
        ({"a": {}}, "x.png", r"got {'a': \[\]}"),
        (
            {"a": {"g": BinnedCalibration()}, "b": {"h": BinnedCalibration()}},
            "x.png",
            r"got {'a': \['g'\], 'b': \['h'\]}",
        ),
        ({"a": {"g": BinnedCalibration()}}, "x.bmp", "give a .png"),
    ],
)
def test_wrong_arguments_raise(diagrams, out, hint, tmp_path):
    with pytest.raises(ConfigError, match=hint):
        reliability(diagrams, tmp_path / out)
    assert not list(tmp_path.iterdir())
