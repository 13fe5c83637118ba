import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from avseg.media.rle import decode
from avseg.prediction.regions import find_regions
from avseg.prediction.uncertainty import pack, unpack

SIZES = [(90, 160), (61, 37), (16, 16), (5, 3), (1, 1)]


def smooth(classes):
    return interpolate(torch.rand(classes, 1, 4, 4), size=(16, 16))[:, 0]


def enlarged(probabilities, size):
    return interpolate(probabilities[None].double(), size=size, mode="bilinear")[0].numpy()


@pytest.mark.parametrize("size", SIZES)
def test_one_class_is_thresholded_after_enlarging(size):
    probabilities = smooth(1)
    expected = enlarged(probabilities, size)[0]
    regions = find_regions(probabilities.numpy(), size)
    mask = decode(regions[0].rle) if regions else np.zeros(size, bool)
    np.testing.assert_array_equal(mask, expected > 0.5)
    if regions:
        assert regions[0].label == 1
        assert regions[0].score == pytest.approx(expected[expected > 0.5].mean(), abs=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("classes", [2, 3, 12])
def test_several_classes_are_compared_after_enlarging(size, classes):
    probabilities = (4 * smooth(classes)).softmax(0)
    expected = enlarged(probabilities, size)
    labels = np.zeros(size, int)
    for region in find_regions(probabilities.numpy(), size):
        mask = decode(region.rle)
        assert not labels[mask].any()
        labels[mask] = region.label
        assert region.score == pytest.approx(expected[region.label][mask].mean(), abs=1e-4)
    np.testing.assert_array_equal(labels, expected.argmax(0))


def test_a_class_that_wins_nowhere_small_can_win_between():
    probabilities = np.float32([[0.02, 0.02], [0.5, 0.02], [0.46, 0.46], [0.02, 0.5]])[:, None]
    assert [r.label for r in find_regions(probabilities, (1, 2))] == [1, 3]
    assert [r.label for r in find_regions(probabilities, (1, 16))] == [1, 2, 3]


def test_silence_has_no_regions():
    assert find_regions(np.full((1, 8, 8), 0.5, np.float32), (90, 160)) == ()
    assert find_regions(np.float32([0.6, 0.2, 0.2])[:, None, None] * np.ones((3, 8, 8), np.float32), (90, 160)) == ()


@pytest.mark.parametrize("classes", [1, 3])
def test_a_region_has_the_mean_uncertainty_of_its_pixels(classes):
    uncertainty = pack(np.random.default_rng(0).random((5, 7), np.float32))
    probabilities = smooth(classes) if classes == 1 else (4 * smooth(classes)).softmax(0)
    plain = find_regions(probabilities.numpy(), (61, 37))
    found = find_regions(probabilities.numpy(), (61, 37), uncertainty)
    assert found
    assert [region.uncertainty for region in plain] == [None] * len(found)
    assert [region[:3] for region in plain] == [region[:3] for region in found]
    for region in found:
        values = [unpack(uncertainty, (61, 37))[y, x] for y, x in np.argwhere(decode(region.rle))]
        assert region.uncertainty == pytest.approx(sum(values) / len(values), abs=1e-4)
