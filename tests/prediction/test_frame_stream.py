import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch

import avseg.prediction.frame_stream
from avseg.errors import CheckpointError, ConfigError, MediaError
from avseg.interface import Prediction
from avseg.media.rle import area, decode
from avseg.media.video import Picture
from avseg.prediction.frame_stream import FrameStream, Options, _empty_samples, _peaks, sample
from avseg.prediction.uncertainty import unpack


def shown(*times, last=0.04):
    ends = [*times[1:], times[-1] + last]
    return [Picture(time, end, None) for time, end in zip(times, ends, strict=True)]


def moments(pictures, fps=1.0):
    return [(pytest.approx(time), picture.time) for time, picture in sample(iter(pictures), fps)]


def test_samples_lie_in_the_middle_of_each_second():
    pictures = shown(*(k / 25 for k in range(75)))
    assert moments(pictures) == [(0.5, 0.48), (1.5, 1.48), (2.5, 2.48)]


def test_samples_count_from_the_first_picture():
    assert moments(shown(*(7.3 + k / 10 for k in range(20)), last=0.1)) == [(7.8, 7.8), (8.8, 8.8)]


def test_denser_samples():
    assert [time for time, _ in moments(shown(0.0, 0.2, 0.4, 0.6, 0.8, last=0.2), fps=5.0)] == [0.1, 0.3, 0.5, 0.7, 0.9]


def test_a_still_is_seen_when_it_comes_and_before_it_goes():
    assert moments(shown(0.0, 4.2, last=1.0)) == [(0.5, 0.0), (3.5, 0.0), (4.5, 4.2)]
    assert len(moments(shown(0.0, 0.04, 1e9, 1e9 + 0.04))) == 3  # a broken time stamp takes no million years


@pytest.mark.parametrize("times", [(0.0,), (0.0, 0.04, 0.36), (5.0, 5.1)])
def test_a_short_video_is_seen_at_its_end(times):
    assert moments(shown(*times)) == [(times[-1], times[-1])]


@pytest.mark.parametrize("length", [0.04, 0.52, 1.0, 1.2, 1.48, 1.52, 2.0, 2.4, 7.96])
@pytest.mark.parametrize("fps", [0.5, 1.0, 2.0, 30.0])
def test_no_picture_is_further_than_half_a_step_from_a_sample(length, fps):
    pictures = shown(*np.arange(0, length, 0.04))
    times = [time for time, _ in sample(iter(pictures), fps)]
    assert all(a < b for a, b in pairwise(times))
    for picture in pictures:
        assert min(abs(picture.time - time) for time in times) <= 0.5 / fps + 1e-9


def walk(path, model, note=None, **options):
    return FrameStream(path, model, Options(**options), note or pytest.fail)


@pytest.mark.parametrize(
    "rate", [24_000 / 1001, *(pytest.param(r, marks=pytest.mark.slow) for r in (25.1, 59.94)), 12.3]
)
@pytest.mark.parametrize("late", [0.0, 0.35, 1.2])
@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4"])
def test_masks_follow_the_sound(make_video, make_beep, ear, rate, late, name):
    """The beep lasts from 1 s to 2 s after the first picture, whichever stream begins first."""
    times = [late + k / rate for k in range(int(3 * rate))]
    wave = make_beep(late + 4, late + 1.0, late + 2.0)
    frames = list(walk(make_video(name, times=times, sound=wave), ear, fps=10.0))
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-3)
    marked = [frame.time - late for frame in frames if frame.regions]
    expected = [time - late for time in times if 1.0 < time - late < 2.0]
    # Samples fall 0.05 s before and after the beep's ends; blending puts the change into their middle, the end.
    assert marked == pytest.approx(expected, abs=1e-3)


def test_masks_follow_a_sound_that_starts_late(make_video, make_beep, ear):
    wave = make_beep(2, 0.3, 0.8)
    path = make_video(times=[k / 23 for k in range(69)], sound=wave, sound_start=0.7)
    marked = [frame.time for frame in walk(path, ear, fps=10.0) if frame.regions]
    assert marked == pytest.approx([k / 23 for k in range(69) if 1.0 < k / 23 < 1.5], abs=1e-3)


def test_picture_and_sound_of_a_moment_reach_the_model_together(make_video, make_beep, ear):
    def flash(index, size):
        return np.full((*size, 3), 250 if 1.0 <= index / 25 < 2.0 else 5, np.uint8)

    path = make_video("clip.mp4", times=[k / 25 for k in range(75)], picture=flash, sound=make_beep(3, 1, 2))
    list(walk(path, ear, fps=10.0))
    bright = torch.cat([clip.frames.mean((2, 3, 4)) > 0 for clip in ear.clips], 1)
    loud = torch.cat([clip.audio[:, :, 0, 46:50].mean((2, 3)) > -4.0 for clip in ear.clips], 1)
    assert torch.equal(bright, loud)
    assert bright.sum() == 10


def test_samples_come_in_clips_of_the_trained_length(make_video, make_beep, ear):
    path = make_video(times=[k / 5 for k in range(60)], sound=make_beep(12, 0, 12))
    list(walk(path, ear))
    assert [tuple(clip.frames.shape) for clip in ear.clips] == [(1, t, 3, 16, 16) for t in (5, 5, 2)]
    assert [tuple(clip.audio.shape) for clip in ear.clips] == [(1, t, 1, 96, 64) for t in (5, 5, 2)]
    ear.card = {"data": {"size": [12, 20], "frames": 3}}
    ear.clips.clear()
    list(walk(path, ear))
    assert [tuple(clip.frames.shape[1:]) for clip in ear.clips] == [(3, 3, 12, 20)] * 4


def test_probabilities_are_blended_in_time(make_video, make_beep, ear):
    """One half says 0.9 then 0.1, the other 0.1 then 0.3: the first is marked until 0.5 is crossed."""
    values = torch.tensor([[0.9, 0.1], [0.1, 0.3]]).T.reshape(1, 2, 1, 1, 2).expand(1, 2, 1, 16, 2)
    ear.forward = lambda clip, **_: Prediction(torch.logit(values))
    path = make_video(times=[k / 20 for k in range(40)], sound=make_beep(2, 0, 2), size=(20, 30))
    for frame in walk(path, ear):
        share = min(max(frame.time - 0.5, 0.0), 1.0)
        left = 0.9 - 0.8 * share
        if share == pytest.approx(0.5):
            continue
        assert bool(frame.regions) == (left > 0.5), frame.time
        if frame.regions:
            mask = decode(frame.regions[0].rle)
            assert mask.shape == (20, 30)
            assert mask[:, 0].all()
            assert not mask[:, -1].any()
            assert 0.5 < frame.regions[0].score <= left + 1e-4


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(make_video, ear, monkeypatch):
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    class Fake:
        def __init__(self, time):
            self.time, self.end = time, time + 0.1
            alive.add(self)

        def rgb(self):
            return np.zeros((8, 8, 3), np.uint8)

        def reduced(self, size):
            return np.zeros((*size, 3), np.uint8)

    monkeypatch.setattr(avseg.prediction.frame_stream, "pictures", lambda *_: (Fake(k / 10) for k in range(6_000)))
    path = make_video()
    strolling = FrameStream(path, ear, Options(missing_audio="silence"), lambda _: None)
    for _ in strolling:
        most = max(most, len(alive))
        assert len(strolling._waiting) < 80
    assert most <= 13  # those of a clip, and those that are decoded in advance


def test_missing_sound_raises_unless_silence_is_requested(make_video, ear):
    path = make_video("mute.mp4")
    with pytest.raises(
        MediaError, match=r"mute\.mp4 has no sound track: give a video with sound, or use silence with missing_audio"
    ):
        walk(path, ear)
    notes = []
    frames = list(walk(path, ear, notes.append, missing_audio="silence"))
    assert len(frames) == 25
    assert notes == ["mute.mp4 has no sound track: the model input is silence"]


def test_a_silent_track_is_noted(make_video, make_beep, ear):
    notes = []
    frames = list(walk(make_video("still.mkv", sound=make_beep(1, 0, 0)), ear, notes.append))
    assert not any(frame.regions for frame in frames)
    assert notes == ["still.mkv has a silent sound track: nothing in it is louder than -80 dB"]


def test_silence_gate_marks_nothing_below_its_level(make_video, make_beep, uncertain_model):
    """The model marks the left half of every frame; the second second of the sound is at -70 dBFS."""
    wave = make_beep(2, 0, 1)
    wave = wave + np.float32(10 ** (-70 / 20) * 2**0.5) * np.sin(np.arange(wave.shape[1], dtype=np.float32) * 0.3)
    path = make_video("quiet.mkv", times=[k / 10 for k in range(20)], size=(16, 16), sound=wave)
    marked = [bool(frame.regions) for frame in walk(path, uncertain_model)]
    assert marked[:6] == [True] * 6
    assert marked[-5:] == [False] * 5
    assert all(frame.regions for frame in walk(path, uncertain_model, silence_gate=-90.0, timing="window"))
    assert all(frame.regions for frame in walk(path, uncertain_model, silence_gate=None, timing="window"))


@pytest.mark.slow
@pytest.mark.parametrize("fps", [1, 2, 4, 8])
def test_onset_and_offset_do_not_depend_on_fps(make_video, make_beep, uncertain_model, fps):
    """The model marks every frame whose 0.96 s are not silent, and so up to half a second too much."""
    path = make_video(times=[k / 25 for k in range(125)], sound=make_beep(5, 1.6, 3.2))
    wide, refined = (
        [frame.time for frame in walk(path, uncertain_model, fps=fps, timing=timing) if frame.regions]
        for timing in ("window", "refined")
    )
    assert wide[0] < 1.4
    assert wide[-1] > 3.4
    assert (refined[0], refined[-1]) == pytest.approx((1.6, 3.2), abs=0.05)


def test_fps_above_that_of_the_video_is_refused(make_video, make_beep, ear):
    path = make_video("clip.mp4", times=[k / 10 for k in range(20)], sound=make_beep(2, 0, 2))
    walk(path, ear, fps=10)
    with pytest.raises(ConfigError, match=r"fps 12 is above the 1\d\S* frames per second of clip\.mp4: give 1"):
        walk(path, ear, fps=12)
    slides = make_video("slides.mkv", times=[0.0, 5.0, 10.0], sound=make_beep(12, 0, 12))
    walk(slides, ear)  # one per second is always allowed


def test_peak_gate_marks_nothing_in_samples_without_a_probable_pixel(make_video, make_beep, uncertain_model):
    """The model marks the left half of every frame with a probability of sigmoid(8) = 0.99966."""
    path = make_video("peak.mkv", times=[k / 10 for k in range(10)], size=(16, 16), sound=make_beep(1, 0, 1))
    assert all(frame.regions for frame in walk(path, uncertain_model))
    assert all(frame.regions for frame in walk(path, uncertain_model, peak_gate=0.9996))
    assert not any(frame.regions for frame in walk(path, uncertain_model, peak_gate=0.9997))
    uncertain_model.card["peak_gate"] = 0.9997
    assert not any(frame.regions for frame in walk(path, uncertain_model))
    assert all(frame.regions for frame in walk(path, uncertain_model, peak_gate=0.0))


def test_peak_is_that_of_any_sounding_class():
    one = np.array([[[[0.1, 0.7]]], [[[0.2, 0.3]]]], np.float32)
    assert _peaks(one).tolist() == pytest.approx([0.7, 0.3])
    several = np.stack([1 - one[:, 0], one[:, 0] / 2, one[:, 0] / 2], 1)
    assert _peaks(several).tolist() == pytest.approx([0.7, 0.3])


def test_gates_leave_the_background_of_several_classes():
    probabilities = np.full((2, 3, 4, 4), 1 / 3, np.float32)
    _empty_samples(probabilities, np.array([True, False]))
    assert (probabilities[0, 0] == 1).all()
    assert (probabilities[0, 1:] == 0).all()
    np.testing.assert_allclose(probabilities[1], 1 / 3)


def test_a_file_that_ends_too_early_is_refused(make_video, make_beep, ear):
    path = make_video(times=[k / 25 for k in range(250)], sound=make_beep(10, 0, 10))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        MediaError, match=r"cut off or damaged: it declares 10\.\d s and ends after [3-7]\.\d s: copy it"
    ):
        list(walk(path, ear))
    notes = []
    assert 50 < len(list(walk(path, ear, notes.append, damaged="skip"))) < 200
    assert len(notes) == 1


def test_sound_that_outlasts_the_picture_is_no_damage(make_video, make_beep, ear):
    assert len(list(walk(make_video(sound=make_beep(8, 0, 8)), ear))) == 25


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (2, 90)])
def test_masks_have_the_size_of_the_picture(make_video, make_beep, ear, size):
    path = make_video(size=size, codec="ffv1", pix_fmt="bgr0", sound=make_beep(1, 0, 1))
    for frame in walk(path, ear):
        assert frame.regions[0].rle.size == size
        assert area(frame.regions[0].rle) == size[0] * size[1]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"fps": 0.0}, "fps must be a number above 0, got 0.0"),
        ({"fps": "4"}, "fps must be a number above 0, got '4'"),
        ({"fps": None}, "fps must be a number above 0, got None"),
        ({"silence_gate": "-60"}, "silence_gate must be a level in dBFS such as -60, or null, got '-60'"),
        ({"fps": float("nan")}, "fps must be a number above 0"),
        ({"missing_audio": "silent"}, "Did you mean 'silence'"),
        ({"damaged": "keep"}, "Choose from: error, skip"),
        ({"threshold": 0.0}, "threshold must be a probability above 0 and below 1, got 0.0"),
        ({"threshold": "high"}, "threshold must be a probability above 0 and below 1, got 'high'"),
        ({"upsampling": "guide"}, "Did you mean 'guided'"),
        ({"show": "uncertain"}, "Did you mean 'uncertainty'"),
        ({"peak_gate": 1.0}, "peak_gate must be a probability from 0 to below 1, or null, got 1.0"),
        ({"silence_gate": float("-inf")}, "silence_gate must be a level in dBFS such as -60, or null, got -inf"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        Options(**setting)


def test_uncertainty_is_blended_in_time(grey_video, uncertain_model):
    """Seen at 0.25 s, 0.75 s, 1.25 s and 1.75 s: linear in between, the nearest one before and after."""
    frames = list(walk(grey_video, uncertain_model, fps=2.0, show="uncertainty"))
    for frame in frames:
        place = min(max((frame.time - 0.25) / 0.5, 0.0), 3.0)
        before, share = int(place), place - int(place)
        steepness = (1 - share) * 0.75**before + share * 0.75 ** (before + 1)
        row = 0.1 + 0.7 * steepness * np.arange(8) / 7
        np.testing.assert_allclose(unpack(frame.uncertainty, (6, 8)), [row] * 6, atol=0.5 / 255 + 1e-6)
        assert frame.uncertainty.size == (6, 8)
        assert frame.uncertainty.mean == pytest.approx(row.mean(), abs=0.5 / 255)
        (region,) = frame.regions
        assert region.uncertainty == pytest.approx(row[:4].mean(), abs=0.01)  # the left half
    assert len(frames) == 20
    assert uncertain_model.maps_requested == [True, True]


def test_uncertainty_changes_no_mask(grey_video, uncertain_model):
    plain = list(walk(grey_video, uncertain_model))
    assert uncertain_model.maps_requested == [False]
    shown = list(walk(grey_video, uncertain_model, show="uncertainty"))
    assert [(f.time, [r[:3] for r in f.regions]) for f in shown] == [
        (f.time, [r[:3] for r in f.regions]) for f in plain
    ]
    assert {(f.uncertainty, f.regions[0].uncertainty) for f in plain} == {(None, None)}


def test_uncertainty_costs_a_picture_a_few_kilobytes(grey_video, uncertain_model):
    uncertain_model.uncertainty_of = lambda k: torch.rand(224, 224)
    for frame in walk(grey_video, uncertain_model, show="uncertainty"):
        assert frame.uncertainty.size == (64, 64)
        assert len(frame.uncertainty.png) < 4500


def test_a_model_that_does_not_estimate_it_is_refused_at_its_first_clip(make_video, make_beep, ear):
    path = make_video(times=[k / 5 for k in range(60)], sound=make_beep(12, 0, 12))
    with pytest.raises(ConfigError, match="does not estimate its uncertainty: train"):
        list(walk(path, ear, show="uncertainty"))
    assert len(ear.clips) == 1


def test_a_model_that_predicts_nan_is_refused(make_video, make_beep, ear):
    video = make_video(sound=make_beep(1, 0, 1))
    ear.answer = lambda sounding: torch.full_like(sounding[:, :, None], torch.nan, dtype=torch.float32)
    with pytest.raises(CheckpointError, match=r"predicts NaN or infinity between 0\.50"):
        list(walk(video, ear))
