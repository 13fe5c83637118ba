from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from avseg.errors import ConfigError
from avseg.interface import Prediction
from avseg.prediction.grey_maps import quantised
from avseg.prediction.uncertainty import LONGEST, pack, predicted_maps, unpack

LOGITS = torch.zeros(1, 3, 1, 8, 8)


def levels(kept):
    with Image.open(BytesIO(kept.png)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.asarray(image)


def test_small_maps_are_kept_level_by_level():
    values = np.arange(256, dtype=np.float32).reshape(4, 64) / 255
    kept = pack(values)
    assert kept.size == (4, 64)
    assert kept.mean == 0.5
    np.testing.assert_array_equal(levels(kept), np.arange(256).reshape(4, 64))
    np.testing.assert_array_equal(unpack(kept, (4, 64)), values)


def test_values_between_levels_go_to_the_nearer():
    values = np.random.default_rng(0).random((20, 30), np.float32)
    assert np.abs(unpack(pack(values), (20, 30)) - values).max() <= 0.5 / 255 + 1e-6
    beyond = np.float32([[-0.0009, 1.0009]])  # as far as rounding may take them
    np.testing.assert_array_equal(levels(pack(beyond)), [[0, 255]])


def test_large_maps_are_averaged_by_area():
    values = np.random.default_rng(0).random((3 * 40, 3 * LONGEST), np.float32)
    kept = pack(values)
    assert kept.size == (40, LONGEST)
    for y, x in ((0, 0), (17, 31), (39, LONGEST - 1)):
        area = [values[3 * y + i, 3 * x + j] for i in range(3) for j in range(3)]
        assert levels(kept)[y, x] == round(255 * sum(area) / 9)
    assert kept.mean == pytest.approx(values.mean(), abs=1 / 255)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 1), (1, 1)), ((64, 64), (64, 64)), ((224, 224), (64, 64)), ((36, 640), (4, 64)), ((500, 1), (64, 1))],
)
def test_no_side_is_longer_than_the_limit(size, expected):
    kept = pack(np.full(size, 0.2, np.float32))
    assert kept.size == expected
    np.testing.assert_allclose(unpack(kept, (30, 50)), 0.2, atol=1e-6)


def test_a_picture_costs_a_few_kilobytes():
    noise = pack(np.random.default_rng(0).random((720, 1280), np.float32))
    assert len(noise.png) < 3000
    square = pack(np.random.default_rng(0).random((LONGEST, LONGEST), np.float32))
    assert len(square.png) < 4500


@pytest.mark.parametrize("size", [(90, 160), (61, 37), (6, 8), (3, 2), (1, 1)])
def test_enlarging_is_bilinear(size):
    values = np.random.default_rng(0).integers(0, 256, (6, 8)).astype(np.float32) / 255
    expected = interpolate(torch.from_numpy(values)[None, None], size=size, mode="bilinear")[0, 0]
    found = unpack(pack(values), size)
    assert (found.shape, found.dtype) == (size, np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_quantised_rounds():
    np.testing.assert_array_equal(quantised(np.float32([0, 0.4 / 255, 0.6 / 255, 1])), [0, 0, 1, 255])


def test_the_map_of_a_prediction():
    maps = torch.rand(1, 3, 1, 4, 5)
    maps[0, 0, 0, 0, :2] = torch.tensor([-0.0005, 1.0005])
    values = predicted_maps(Prediction(LOGITS, maps={"uncertainty": maps.to(torch.float64)}), "it")
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, maps[0, :, 0])


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({}, r"this model \(it\) does not estimate its uncertainty: train ama_ue with uncertainty on"),
        ({"mask/4": LOGITS, "mask/3": LOGITS}, r"does not estimate its uncertainty: train ama_ue .*or show masks"),
        ({"uncertainty": LOGITS[0]}, r"must be \(B, T, 1, h, w\), here \(1, 3, 1\), got \(3, 1, 8, 8\)"),
        ({"uncertainty": LOGITS[:, :2]}, r"got \(1, 2, 1, 8, 8\)"),
        ({"uncertainty": LOGITS.expand(1, 3, 2, 8, 8)}, r"got \(1, 3, 2, 8, 8\)"),
        ({"uncertainty": LOGITS - 0.5}, r"must be 0..1, got -0.5..-0.5"),
        ({"uncertainty": LOGITS + 1.5}, r"must be 0..1, got 1.5..1.5"),
        ({"uncertainty": LOGITS * torch.nan}, r"must be 0..1, got nan..nan"),
    ],
)
def test_predictions_without_a_usable_map_are_refused(maps, message):
    with pytest.raises(ConfigError, match=message) as caught:
        predicted_maps(Prediction(LOGITS, maps=maps), "it")
    assert "\n" not in str(caught.value)
