import av
import numpy as np
import pytest
from scipy.signal import resample_poly

from avseg.errors import MediaError
from avseg.media.moments import pictures_at, sound_until

VARIABLE = [0.0, 0.04, 0.2, 0.21, 1.0, 1.5, 3.25, 3.3]


def number(image):
    return round((float(image.mean()) - 20) / 5)


def shown_at(times, moment):
    return max([k for k, time in enumerate(times) if time <= moment + 1e-4], default=0)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
@pytest.mark.parametrize("moments", [[0.5, 1.5, 2.5], [0.0, 0.205, 0.9, 1.0], [2.5, 3.26], [1.2, 1.2]])
def test_the_picture_of_a_moment_is_the_last_before(make_video, name, moments):
    path = make_video(name, times=VARIABLE)
    assert [number(image) for image in pictures_at(path, moments)] == [shown_at(VARIABLE, m) for m in moments]


def test_later_moments_need_not_decode_from_the_start(make_video):
    times = [k / 5 for k in range(38)]
    path = make_video("long.mkv", times=times)
    for first in range(7):
        assert [number(image) for image in pictures_at(path, [first + 0.5])] == [shown_at(times, first + 0.5)]


def test_after_the_end_there_is_no_picture(make_video):
    path = make_video("clip.mp4", times=[0.0, 0.04, 0.5])
    assert len(list(pictures_at(path, [0.02, 0.45, 0.52, 2.5]))) == 3
    assert len(list(pictures_at(path, [7.5]))) == 0
    assert list(pictures_at(path, [])) == []


def test_an_early_moment_shows_the_first_picture(make_video, make_beep):
    path = make_video("late.mkv", times=[0.8, 1.2], sound=make_beep(2, 0, 1))
    assert [number(image) for image in pictures_at(path, [0.5, 1.0, 1.21])] == [0, 0, 1]


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (16_000, 1), (48_000, 6)])
@pytest.mark.parametrize("end", [1.7, 5.0])
def test_sound_is_that_of_the_whole_track(make_video, rate, channels, end):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (channels, round(3.1 * rate))).astype(np.float32)
    path = make_video("clip.mkv", sound=noise, rate=rate)
    with av.open(str(path)) as container:
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
    track = np.concatenate([b if len(b) == channels else b.reshape(-1, channels).T for b in blocks], 1)
    scale = 1.0 if track.dtype.kind == "f" else 2.0 ** (8 * track.dtype.itemsize - 1)
    whole = resample_poly(track.mean(0, dtype=np.float64) / scale, 16_000, rate)
    heard = sound_until(path, end).numpy()
    assert len(heard) == min(round(end * 16_000), len(whole))
    np.testing.assert_allclose(heard, whole[: len(heard)], atol=1e-5)


def test_sound_keeps_its_place_in_the_file(make_video, make_beep):
    path = make_video("clip.mkv", sound=make_beep(2, 0.5, 1), sound_start=0.25)
    loud = np.flatnonzero(np.abs(sound_until(path, 2.0).numpy()) > 0.01)
    assert loud[[0, -1]] / 16_000 == pytest.approx([0.75, 1.25], abs=0.003)


def test_a_video_without_sound_is_named(make_video):
    path = make_video("mute.mp4")
    with pytest.raises(MediaError, match=r"mute\.mp4 has no sound track: .*leave this video out"):
        sound_until(path, 1.0)
