"""Live sources: pipes and arrays give the masks of a file where the window of sound is the same."""

import io
import threading
import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

import avseg
from avseg.errors import ConfigError, MediaError
from avseg.interface import AVSModel, Prediction
from avseg.media.live import Feed, Live, ReceivedFeed, feed_of
from avseg.media.sound import sound_of
from avseg.media.video import pictures
from avseg.pipeline.predict import stream
from avseg.prediction.frame_stream import Options
from avseg.prediction.live_stream import LOOKAHEAD, LiveStream

RATE = 16_000
TIMES = [k / 10 for k in range(30)]
FPS = 5.0
"""Samples at 0.1, 0.3 … seconds: each is the start of a frame, whose masks are not interpolated."""


class Both(AVSModel):
    """Mark the bright pixels where the sound of the window is loud; the masks depend on the samples before."""

    @dataclass(frozen=True)
    class Config:
        pass

    paper = ""

    def __init__(self) -> None:
        super().__init__(self.Config(), classes=1)
        self.card = {"data": {"size": (48, 64), "frames": 5}}

    def forward(self, clip, target=None, *, maps=False):
        level = clip.audio[:, :, 0].mean((-2, -1))[..., None, None] + 4.5
        past = clip.frames.mean((1, 2), keepdim=True)[:, :, 0]
        return Prediction(((clip.frames.mean(2) + 0.2 * past) * level * 2)[:, :, None])

    def loss(self, prediction, target):
        return {}


@pytest.fixture
def both():
    return Both().eval()


def moving(index, size):
    image = np.zeros((*size, 3), np.uint8)
    image[5:30, index : index + 20] = 40 + np.arange(20, dtype=np.uint8)[None, :, None] * 10
    return image


@pytest.fixture
def clip(make_video, make_beep):
    """Return a writer of 3 s without loss, with a tone from 1 s to 2 s; ``late`` delays all sound, in seconds."""

    def write(name="clip.mkv", late=0.0):
        wave = np.concatenate([np.zeros((1, round(late * RATE)), np.float32), make_beep(3, 1, 2)], 1)
        return make_video(name, times=TIMES, picture=moving, codec="ffv1", pix_fmt="bgr0", sound=wave)

    return write


def regions(frames):
    return {round(frame.time, 3): frame.regions for frame in frames}


def offline(path, model):
    """Return the regions of the frames that are samples."""
    found = regions(stream(path, model, fps=FPS, timing="window"))
    return {time: found[time] for time in (round(0.1 + k / FPS, 3) for k in range(15))}


def test_pipe_gives_the_masks_of_a_file_with_the_same_window(clip, both):
    path = clip()
    expected = offline(path, both)
    assert {bool(value) for value in expected.values()} == {True, False}
    both.card["data"]["frames"] = 1  # offline, a clip of one sample has no other samples either
    assert regions(stream(io.BytesIO(path.read_bytes()), both, fps=FPS, lookahead=LOOKAHEAD)) == offline(path, both)


def test_causal_window_gives_the_masks_of_a_file_whose_sound_is_late_by_half_a_window(clip, both):
    both.card["data"]["frames"] = 1
    live = regions(stream(io.BytesIO(clip().read_bytes()), both, fps=FPS))
    assert live == offline(clip("late.mkv", late=LOOKAHEAD), both)
    assert live != offline(clip(), both)


def test_context_gives_the_masks_of_the_last_sample_of_a_clip(clip, both):
    path = clip()
    expected = offline(path, both)
    with_context, alone = (
        regions(stream(io.BytesIO(path.read_bytes()), both, fps=FPS, lookahead=LOOKAHEAD, context=n)) for n in (5, 1)
    )
    last = [round(0.9 + k, 3) for k in range(3)]  # of the clips of five samples
    assert [with_context[time] for time in last] == [expected[time] for time in last]
    assert [alone[time] for time in last] != [expected[time] for time in last]


def arrays(path, read=None):
    """Return a video as a camera and a microphone with blocks of 20 ms."""
    wave, block = sound_of(path), 320

    def sound():
        track = torch.cat([wave.waveform_at((k + 0.5) * LOOKAHEAD * 2) for k in range(3)]).numpy()
        for first in range(0, len(track), block):
            if read is not None:
                read.append((first + block) / RATE)
            yield 50.0 + first / RATE, track[None, first : first + block]

    return Live(((50.0 + picture.time, picture.rgb()) for picture in pictures(path)), sound(), RATE)


def test_arrays_give_the_masks_of_a_pipe(clip, both):
    path = clip()
    piped = regions(stream(io.BytesIO(path.read_bytes()), both, fps=FPS))
    from_arrays = {round(time - 50, 3): found for time, found in regions(stream(arrays(path), both, fps=FPS)).items()}
    assert any(piped.values())
    early = [time for time in piped if time < 2.9]  # `arrays` has 2.925 s of sound
    assert [from_arrays[time] for time in early] == [piped[time] for time in early]


def test_window_has_no_later_sound_than_the_lookahead(clip, both):
    for lookahead in (0.0, 0.2):
        read = []
        for frame in stream(arrays(clip(), read), both, fps=FPS, lookahead=lookahead):
            assert read[-1] <= frame.time - 50 + lookahead + 0.025  # one block of 20 ms, and the resampling filter


def test_drop_leaves_out_late_samples_and_goes_on_with_the_newest(both):
    complete, pause = threading.Event(), both.forward
    calls = []

    def camera():
        for k in range(60):
            if k == 6:
                assert entered.wait(30)
            yield k / 10, np.zeros((48, 64, 3), np.uint8)
        complete.set()

    entered = threading.Event()

    def slow(clip, *args, **kwargs):
        calls.append(clip)
        if len(calls) > 1:  # the first call warms the model up
            entered.set()
            assert complete.wait(30)
        return pause(clip, *args, **kwargs)

    both.forward = slow
    silent = Live(camera(), None)
    found = LiveStream(feed_of(silent), both, Options(2.0, "silence"), lambda _: None, late="drop")
    times = [prediction.frame.time for prediction in found]
    assert times == [0.2, 5.7]
    assert found.dropped == 10


def test_received_feed_keeps_ten_seconds():
    done = threading.Event()

    def camera():
        for k in range(1000):
            yield k / 10, np.zeros((2, 2, 3), np.uint8)
        done.set()

    feed = ReceivedFeed(feed_of(Live(camera(), None)))
    feed.start()
    assert done.wait(30)
    shown = [picture.time for picture in feed.pictures()]
    assert shown == [k / 10 for k in range(899, 1000)]


def test_device_without_data_is_an_error():
    never = threading.Event()

    def microphone():
        never.wait()
        yield 0.0, np.zeros(10, np.float32)

    def camera():
        for k in range(30):
            yield k / 10, np.zeros((48, 64, 3), np.uint8)

    feed = ReceivedFeed(feed_of(Live(camera(), microphone())), patience=0.1)
    with pytest.raises(MediaError, match="the source has had no sound for"):
        list(LiveStream(feed, Both().eval(), Options(), lambda _: None, late="drop"))
    never.set()


def test_sound_that_stops_is_an_error(make_video, make_beep, both):
    path = make_video("short.mkv", times=[k / 2 for k in range(40)], sound=make_beep(3, 0, 3))
    with pytest.raises(MediaError, match=r"the file object has had no sound for 1[01] s: check its sound"):
        list(stream(io.BytesIO(path.read_bytes()), both))


def test_error_of_a_thread_is_raised_to_the_reader(both):
    def camera():
        yield 0.0, np.zeros((48, 64, 3), np.uint8)
        raise RuntimeError("unplugged")

    with pytest.raises(RuntimeError, match="unplugged"):
        list(stream(Live(camera(), None), both, missing_audio="silence", late="drop", note=lambda _: None))


def test_pipe_without_sound(make_video, both):
    silent = make_video("silent.mkv", times=TIMES).read_bytes()
    with pytest.raises(MediaError, match="the file object has no sound: give a source with sound"):
        stream(io.BytesIO(silent), both)
    notes = []
    assert list(stream(io.BytesIO(silent), both, missing_audio="silence", note=notes.append))
    assert notes == ["the file object has no sound: the model input is silence"]


def test_pipe_that_ends_early(clip, both):
    content = clip().read_bytes()
    for part in (b"", content[:300]):
        with pytest.raises(MediaError, match="Matroska or MPEG-TS"):
            list(stream(io.BytesIO(part), both))
    cut = list(stream(io.BytesIO(content[: len(content) * 2 // 3]), both, fps=FPS, damaged="skip", note=lambda _: None))
    assert 5 <= len(cut) < 15
    assert all(a.time < b.time for a, b in pairwise(cut))


PICTURE, BLOCK = np.zeros((4, 6, 3), np.uint8), np.zeros(100, np.float32)


@pytest.mark.parametrize(
    ("camera", "microphone", "message"),
    [
        ([(0.0, PICTURE[..., 0])], [], r"a picture must be an array \(H, W, 3\) of uint8, got uint8 \(4, 6\)"),
        ([(0.0, PICTURE.astype(float))], [], r"got float64 \(4, 6, 3\)"),
        ([(0.0, "picture")], [], "got str"),
        ([(1.0, PICTURE), (0.5, PICTURE)], [], r"the time of a picture must be above 1 s.*got 0.5"),
        ([(float("nan"), PICTURE)], [], "the time of a picture"),
        ([(0.0, PICTURE), (1.0, PICTURE[:2])], [], r"must keep their size \(4, 6\), got \(2, 6\)"),
        ([(0.0, PICTURE), (1.0, PICTURE)], [(0.0, BLOCK.astype(int))], "floating point in -1..1 or int16, got int64"),
        ([(0.0, PICTURE), (1.0, PICTURE)], [(0.0, BLOCK[None, None])], r"\(n,\) or \(channels, n\), got float32"),
        ([(0.0, PICTURE), (1.0, PICTURE)], [(0.0, BLOCK * np.nan)], "contains NaN or infinity"),
        ([(0.0, PICTURE), (1.0, PICTURE)], [(0.0, BLOCK), (0.0, BLOCK)], "the time of a block of sound"),
        ([], [], "ended before its first picture"),
    ],
)
def test_malformed_arrays(camera, microphone, message, both):
    with pytest.raises(MediaError, match=message):
        list(stream(Live(camera, microphone), both))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lookahead": 0.6}, "lookahead must be from 0 to 0.4875 s, got 0.6"),
        ({"lookahead": -0.1}, "lookahead must be from 0"),
        ({"late": "skip"}, "unknown late 'skip'"),
        ({"context": 0}, "context must be a number of samples, 1 or more, got 0"),
    ],
)
def test_invalid_settings(settings, message, both):
    with pytest.raises(ConfigError, match=message):
        stream(Live([], []), both, **settings)


def test_settings_of_live_sources_are_refused_for_files(clip, both):
    with pytest.raises(ConfigError, match="are settings of a live source, not of a file"):
        stream(clip(), both, late="drop")


def test_wrong_rate_of_arrays(both):
    with pytest.raises(MediaError, match="has audio at 10 Hz"):
        stream(Live([], [], rate=10), both)


def test_names_and_feeds(tmp_path):
    feed = Feed("mine", iter(()))
    assert feed_of(feed) is feed
    assert feed_of(tmp_path / "file.mp4") is None
    assert avseg.Live is Live


@pytest.mark.slow
def test_bundled_model_with_context_gives_the_masks_of_a_file(tmp_path):
    """The example at 1 sample per second: samples at 0.52 s … are frames of its 25 per second."""
    from pathlib import Path

    path = Path(__file__).parents[2] / "examples/portrait_and_cat.mp4"
    model = avseg.load("small", optimize="exact")
    with path.open("rb") as pipe:
        live = list(stream(pipe, model, lookahead=LOOKAHEAD, context=5))
    expected = {frame.time: frame for frame in stream(path, model, timing="window")}
    for frame in (live[4], live[9]):
        near = expected[frame.time]
        assert [region.label for region in frame.regions] == [region.label for region in near.regions]
        for one, other in zip(frame.regions, near.regions, strict=True):
            a, b = avseg.media.rle.decode(one.rle), avseg.media.rle.decode(other.rle)
            assert (a & b).sum() / (a | b).sum() > 0.98


def test_clock_of_a_source_is_that_of_its_earliest_picture():
    """The pictures of the first 2 s come together, as from a pipe after FFmpeg has found its streams."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    feed = ReceivedFeed(feed_of(Live([(k / 10, pixels) for k in range(21)], None)))
    feed.start()
    while feed.newest < 2.0:
        time.sleep(0.01)
    assert 2.0 <= feed.now() < 12.0
