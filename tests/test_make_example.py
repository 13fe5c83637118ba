"""The example video is what its script makes; the speech, which needs espeak-ng, is not made again."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avseg.media.sound import read_sound
from avseg.media.video import pictures, probe
from avseg.mel import SAMPLE_RATE

EXAMPLES = Path(__file__).parents[1] / "examples"
VIDEO = EXAMPLES / "portrait_and_cat.mp4"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / "make_example.py"))


def levels(sound: np.ndarray) -> np.ndarray:
    """Return the level of each half second, in dBFS."""
    halves = np.asarray(sound, float)[: 10 * SAMPLE_RATE].reshape(20, -1)
    return 10 * np.log10(np.square(halves).mean(1) + 1e-12)


def test_video_is_small_and_of_the_documented_format() -> None:
    info = probe(VIDEO)
    assert VIDEO.stat().st_size < 400_000
    assert (info.size, info.rate, info.sample_rate, info.channels) == ((360, 640), 25, 16_000, 1)
    assert info.duration == pytest.approx(10.0)


@pytest.mark.slow
def test_frames_are_those_of_the_script(script: dict[str, Any]) -> None:
    count = 0
    for made, shown in zip(script["frames"](), pictures(VIDEO), strict=True):
        if count % 50 == 0:
            error = np.square(made.astype(float) - shown.rgb()).mean()
            assert 10 * np.log10(255**2 / error) > 30
        count += 1
    assert count == 250


def test_sound_is_that_of_the_script(script: dict[str, Any]) -> None:
    sound = read_sound(VIDEO)
    speech = [sound[1 * SAMPLE_RATE : 3 * SAMPLE_RATE], sound[8 * SAMPLE_RATE : 10 * SAMPLE_RATE]]
    made = script["soundtrack"](speech)
    second = slice(4 * SAMPLE_RATE, 8 * SAMPLE_RATE)  # meows and bell
    assert np.corrcoef(made[second], sound[second])[0, 1] > 0.95
    measured = levels(sound)
    assert measured[[0, 6, 7]].max() < -60
    assert measured[[2, 3, 4, *range(8, 20)]].min() > -45


def test_sound_is_cut_after_two_seconds_and_scaled(script: dict[str, Any]) -> None:
    track = script["soundtrack"]([np.ones(5 * SAMPLE_RATE), np.zeros(10) + 1e-3])
    assert track[SAMPLE_RATE] == pytest.approx(0.5)
    assert not track[3 * SAMPLE_RATE : 4 * SAMPLE_RATE].any()
    assert np.abs(track).max() <= 0.7
