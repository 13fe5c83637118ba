import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from avseg.regions import find_regions
from avseg.rle import decode

SIZES = [(90, 160), (61, 37), (16, 16), (5, 3), (1, 1)]


def smooth(classes, seed=0):
    return interpolate(torch.rand(classes, 1, 4, 4, generator=torch.Generator().manual_seed(seed)), size=(16, 16))[:, 0]


@pytest.mark.parametrize("size", SIZES)
def test_one_class_is_thresholded_after_enlarging(size):
    probabilities = smooth(1)
    expected = interpolate(probabilities[None], size=size, mode="bilinear")[0, 0].numpy()
    regions = find_regions(probabilities, size)
    mask = decode(regions[0].rle) if regions else np.zeros(size, bool)
    np.testing.assert_array_equal(mask, expected > 0.5)
    if regions:
        assert regions[0].label == 1
        assert regions[0].score == pytest.approx(expected[expected > 0.5].mean(), abs=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("classes", [2, 3, 12])
def test_several_classes_are_compared_after_enlarging(size, classes):
    probabilities = (4 * smooth(classes)).softmax(0)
    enlarged = interpolate(probabilities[None], size=size, mode="bilinear")[0].numpy()
    labels = np.zeros(size, int)
    for region in find_regions(probabilities, size):
        mask = decode(region.rle)
        assert not labels[mask].any()
        labels[mask] = region.label
        assert region.score == pytest.approx(enlarged[region.label][mask].mean(), abs=1e-4)
    np.testing.assert_array_equal(labels, enlarged.argmax(0))


def test_a_class_that_wins_nowhere_small_can_win_between():
    probabilities = torch.tensor([[0.02, 0.02], [0.5, 0.02], [0.46, 0.46], [0.02, 0.5]])[:, None]
    assert [r.label for r in find_regions(probabilities, (1, 2))] == [1, 3]
    assert [r.label for r in find_regions(probabilities, (1, 16))] == [1, 2, 3]


def test_silence_has_no_regions():
    assert find_regions(torch.full((1, 8, 8), 0.5), (90, 160)) == ()
    assert find_regions(torch.tensor([0.6, 0.2, 0.2])[:, None, None].expand(3, 8, 8), (90, 160)) == ()
