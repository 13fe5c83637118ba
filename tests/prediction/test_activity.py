import numpy as np
import pytest

from avseg.media.sound import Block, Sound
from avseg.prediction.activity import Activity

RATE = 16_000


def sound(*spans, seconds=6.0, noise=0.0, rate=RATE, origin=0.0):
    """A tone in each span (start, end, amplitude) with noise of this deviation."""
    time = np.arange(round(seconds * rate)) / rate
    wave = np.random.default_rng(0).normal(0, noise, len(time)) if noise else np.zeros(len(time))
    for start, end, amplitude in spans:
        wave += np.where((time >= start) & (time < end), amplitude * np.sin(2 * np.pi * 440 * time), 0.0)
    return Sound(iter([Block(origin, rate, wave.astype(np.float32))]))


def active(track, fps=1.0, seconds=6.0):
    """Return the first and the last active time of each run, at 100 per second."""
    activity = Activity(track, fps)
    times = np.arange(0, seconds, 0.01)
    flags = np.array([False, *(activity.at(float(t)) for t in times), False])
    edges = np.flatnonzero(flags[1:] != flags[:-1]).reshape(-1, 2)
    return [(float(times[a]), float(times[b - 1])) for a, b in edges]


@pytest.mark.parametrize("fps", [1, 4, 8])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_onset_and_offset_are_exact_at_any_fps(fps, rate):
    runs = active(sound((2.003, 3.507, 0.3), rate=rate, noise=0.003), fps)
    (run,) = [run for run in runs if run[0] < 2.5 < run[1]]
    assert run == pytest.approx((2.0, 3.5), abs=0.025)


def test_short_pauses_are_active_and_long_ones_are_not():
    runs = active(sound((2.0, 2.5, 0.3), (3.2, 3.6, 0.3), (4.9, 5.3, 0.3), noise=0.001))
    inner = [run for run in runs if 1.9 < run[0] < 5.0]
    assert [pytest.approx(run, abs=0.025) for run in [(2.0, 3.6), (4.9, 5.3)]] == inner


def test_sound_that_goes_on_and_silence_are_not_touched():
    assert active(sound((0.0, 6.0, 0.3))) == [(0.0, pytest.approx(5.99))]
    assert active(sound()) == [(0.0, pytest.approx(5.99))]
    assert active(sound(noise=0.05)) == [(0.0, pytest.approx(5.99))]


def test_a_track_that_starts_later_is_silent_before():
    runs = active(sound((0.0, 1.5, 0.3), origin=2.0))
    assert [run for run in runs if 1.5 < run[0] < 3] == [pytest.approx((2.0, 3.5), abs=0.025)]


def test_memory_is_constant():
    activity = Activity(sound((2.0, 3.0, 0.3), seconds=30.0), 1.0)
    held = set()
    for time in np.arange(5, 25, 0.5):
        activity.at(float(time))
        held.add(len(activity._levels))
    assert max(held) < 2 * activity._margin + 2 + 96
