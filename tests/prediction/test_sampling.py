"""The input that predict gives a model, for any stretch of a video."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import avseg
from avseg.errors import ConfigError, MediaError
from avseg.interface import Clip


@pytest.fixture(scope="module")
def video(make_shared_video: Callable) -> Path:
    """Return a video of 4.4 s at 25 fps, 96 × 128, whose pictures and sound change all the time."""

    def picture(index: int, size: tuple[int, int]) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 256, (*size, 3)).astype(np.uint8)

    wave = np.cumsum(np.random.default_rng(0).normal(0, 0.01, (1, 5 * 44_100)), 1).clip(-1, 1).astype(np.float32)
    times = [k / 25 for k in range(110)]
    return make_shared_video(
        "noise.mkv", times=times, size=(96, 128), picture=picture, sound=wave, rate=44_100, sound_start=0.3
    )


def inputs_of_predict(video: Path, ear: avseg.AVSModel, **options: object) -> Clip:
    """Return all clips that predict feeds to a recording model, joined."""
    ear.clips.clear()
    avseg.predict(video, ear, **options)
    return Clip(torch.cat([c.frames for c in ear.clips], 1), torch.cat([c.audio for c in ear.clips], 1))


@pytest.mark.parametrize("fps", [1.0, 2.5])
def test_clip_of_a_whole_video_equals_the_inputs_of_predict(video: Path, ear: avseg.AVSModel, fps: float) -> None:
    expected = inputs_of_predict(video, ear, fps=fps)
    clip = avseg.clip_from_video(video, fps=fps, size=16)
    assert clip.frames.shape == (1, {1.0: 5, 2.5: 11}[fps], 3, 16, 16)
    assert torch.equal(clip.frames, expected.frames)
    assert torch.equal(clip.audio, expected.audio)
    assert clip.audio.std() > 0.1
    assert clip.valid.all()


def test_clip_of_a_stretch_equals_the_inputs_of_predict_in_it(video: Path, ear: avseg.AVSModel) -> None:
    expected = inputs_of_predict(video, ear)
    clip = avseg.clip_from_video(str(video), 1, 2, size=(16, 16))
    assert torch.equal(clip.frames, expected.frames[:, 1:3])
    assert torch.equal(clip.audio, expected.audio[:, 1:3])


def test_clip_fits_a_model(video: Path) -> None:
    model = avseg.load("small")
    prediction = model(avseg.clip_from_video(video, start=1, seconds=2, size=96))
    assert prediction.masks.shape == (1, 2, 96, 96)


def test_samples_start_with_the_stretch(video: Path, ear: avseg.AVSModel) -> None:
    clip = avseg.clip_from_video(video, start=0.5, seconds=2, size=16)
    expected = inputs_of_predict(video, ear, fps=2)  # at 0.25, 0.75, 1.25 ...
    other = avseg.clip_from_video(video, start=0.25, seconds=1, size=16)  # at 0.75
    assert clip.frames.shape[1] == 2
    assert torch.equal(other.frames, expected.frames[:, 1:2])
    assert torch.equal(other.audio, expected.audio[:, 1:2])


def test_last_picture_is_a_sample_if_the_video_ends_late(make_video: Callable, make_beep: Callable) -> None:
    video = make_video("late.mkv", times=[k / 10 for k in range(38)], sound=make_beep(4, 0, 4))
    assert avseg.clip_from_video(video, size=16).frames.shape[1] == 4
    short = make_video("short.mkv", times=[k / 10 for k in range(3)], sound=make_beep(1, 0, 1))
    assert avseg.clip_from_video(short, size=16).frames.shape[1] == 1


def test_still_picture_gives_a_sample_per_step(make_video: Callable, make_beep: Callable) -> None:
    video = make_video("still.mkv", times=[0.0, 6.0], sound=make_beep(6, 2, 3))
    clip = avseg.clip_from_video(video, seconds=5, size=16)
    assert clip.frames.shape[1] == 5
    assert torch.equal(clip.frames, clip.frames[:, :1].expand_as(clip.frames))
    assert clip.audio.mean((0, 2, 3, 4)).argmax() == 2


def test_silence_is_used_only_when_allowed(make_video: Callable) -> None:
    video = make_video("mute.mkv")
    with pytest.raises(MediaError, match=r"no sound track: give a video with sound, or use silence"):
        avseg.clip_from_video(video)
    clip = avseg.clip_from_video(video, missing_audio="silence")
    torch.testing.assert_close(clip.audio, torch.full_like(clip.audio, -4.6052), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": -1}, "start must be a number of seconds, 0 or more, got -1"),
        ({"start": "1"}, "start must be a number of seconds, 0 or more, got '1'"),
        ({"seconds": 0}, "seconds must be a number above 0, or None, got 0"),
        ({"seconds": float("inf")}, "seconds must be a number above 0, or None, got inf"),
        ({"fps": "4"}, "fps must be a number above 0, got '4'"),
        ({"fps": True}, "fps must be a number above 0, got True"),
        ({"missing_audio": "noise"}, "unknown missing_audio 'noise'"),
    ],
)
def test_wrong_settings_are_refused(video: Path, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        avseg.clip_from_video(video, **settings)


def test_start_after_the_end_is_refused(video: Path) -> None:
    with pytest.raises(MediaError, match=r"no picture in the stretch that starts at 9 s"):
        avseg.clip_from_video(video, start=9)


@pytest.mark.parametrize("wrong", [b"RIFF", None, np.zeros(3), 7, ["a.mp4"]], ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("function", [avseg.predict, avseg.stream, avseg.clip_from_video])
def test_anything_but_a_path_is_refused(function: Callable, wrong: object) -> None:
    with pytest.raises(MediaError, match=f"must be the path of a file, as str or Path, got {type(wrong).__name__}"):
        function(wrong)
