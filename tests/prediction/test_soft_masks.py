import dataclasses
import pickle

import numpy as np
import pytest
import torch

from avseg.errors import ConfigError, MediaError
from avseg.interface import Prediction
from avseg.pipeline.predict import predict
from avseg.pipeline.result import Result


@pytest.fixture
def video(make_video, make_beep):
    """1 s at 10 fps, variable steps: a bright rectangle, darker in each frame."""

    def picture(index, size):
        image = np.full((*size, 3), 40, np.uint8)
        image[30:70, 20:90] = 230 - 10 * index
        return image

    times = [k / 10 + 0.03 * (k % 2) for k in range(10)]
    options = {"codec": "ffv1", "pix_fmt": "bgr0", "picture": picture}
    return make_video("soft.mkv", times=times, size=(96, 128), sound=make_beep(1, 0, 1), **options)


@pytest.fixture
def blob(ear):
    """A model that predicts the rectangle at a quarter of the size, blurred by one pixel."""
    grid = torch.zeros(16, 16)
    grid[5:12, 2:11] = 0.9
    blurred = torch.nn.functional.avg_pool2d(grid[None, None], 3, 1, 1)[0, 0].clamp(1e-4, 1 - 1e-4)
    ear.forward = lambda clip, **_: Prediction(torch.logit(blurred).expand(1, clip.frames.shape[1], 1, 16, 16))
    return ear


@pytest.mark.parametrize("upsampling", ["guided", "bilinear"])
@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_masks_are_probabilities_above_the_threshold(video, blob, upsampling, threshold):
    result = predict(video, blob, upsampling=upsampling, threshold=threshold)
    assert result.probabilities.shape == (10, 96, 128)
    for probability, mask in zip(result.probabilities, result.masks, strict=True):
        assert probability.dtype == np.float32
        clear = np.abs(probability - threshold) > 1 / 255
        np.testing.assert_array_equal((probability > threshold)[clear], mask[clear])
    np.testing.assert_array_equal(result.probabilities[7], result.probabilities[5:8][2])
    lazy = result.probabilities
    first = lazy[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy))[0], first)


def test_a_lower_threshold_gives_larger_masks(video, blob):
    areas = [predict(video, blob, threshold=t, upsampling="bilinear").areas.sum() for t in (0.2, 0.5, 0.8)]
    assert areas[0] > areas[1] > areas[2]


def test_probabilities_are_loaded_with_the_result(video, blob, tmp_path):
    result = predict(video, blob)
    loaded = Result.load(result.save(tmp_path / "out", ["json"]))
    np.testing.assert_array_equal(loaded.probabilities[3], result.probabilities[3])


def test_probabilities_need_the_video_and_the_maps(video, blob):
    result = predict(video, blob)
    old = dataclasses.replace(result, frames=[frame._replace(probability=None) for frame in result.frames])
    with pytest.raises(ConfigError, match=r"soft\.mkv has no probabilities: predict the video again"):
        old.probabilities[0]
    video.unlink()
    with pytest.raises(MediaError, match="no such file"):
        result.probabilities[0]


def test_several_classes_have_the_probability_of_any(video, ear):
    logits = torch.zeros(3, 16, 16)
    logits[1, :, :8], logits[2, :, 8:] = 2.0, 1.0
    ear.classes = 3
    ear.forward = lambda clip, **_: Prediction(logits.expand(1, clip.frames.shape[1], 3, 16, 16))
    result = predict(video, ear, upsampling="bilinear")
    foreground = 1 - logits.softmax(0)[0]
    assert result.probabilities[0][:, :40] == pytest.approx(float(foreground[0, 0]), abs=1 / 255)
    assert result.probabilities[0][:, 90:] == pytest.approx(float(foreground[0, -1]), abs=1 / 255)
    assert [region.label for region in result.frames[0].regions] == [1, 2]
    strict = predict(video, ear, upsampling="bilinear", threshold=0.75)
    assert [region.label for region in strict.frames[0].regions] == [1]  # e ** 1 < 3 < e ** 2
