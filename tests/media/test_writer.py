import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from avseg.errors import MediaError
from avseg.media.sound import Sound, sound_blocks
from avseg.media.video import pictures, probe
from avseg.media.writer import VideoWriter, _converted, _encoded_size

COLOURS = np.zeros((64, 96, 3), np.uint8)
COLOURS[:32, :48] = 230, 30, 40
COLOURS[:32, 48:] = 20, 200, 60
COLOURS[32:, :48] = 40, 60, 220
COLOURS[32:, 48:] = 240, 240, 240


def write(path, times, image=COLOURS, **settings):
    with VideoWriter(path, image.shape[:2], rate=Fraction(25), **settings) as writer:
        for time in times:
            writer.write(image, time)
    return path


def test_times_and_colours_are_kept(tmp_path):
    times = [0.0, 0.04, 0.1, 0.7, 0.71, 3.0]
    shown = list(pictures(write(tmp_path / "a.mp4", times)))
    assert [p.time for p in shown] == pytest.approx(times, abs=1e-4)
    assert np.abs(shown[-1].rgb().astype(int) - COLOURS)[4:28, 4:44].mean() < 4
    assert np.abs(shown[-1].rgb().astype(int) - COLOURS)[36:60, 52:92].mean() < 4


def test_format_is_widely_playable(tmp_path):
    path = write(tmp_path / "a.mp4", [0.0, 0.04, 0.08])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays during download


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (2, 3)])
def test_odd_sizes_are_padded_to_even(tmp_path, size):
    image = np.full((*size, 3), 200, np.uint8)
    path = write(tmp_path / "a.mp4", [0.0, 0.1], image)
    assert probe(path).size == tuple(n + n % 2 for n in size)
    assert np.abs(next(pictures(path)).rgb().astype(int) - 200).max() < 8


def test_pixel_aspect_is_kept(tmp_path):
    path = write(tmp_path / "a.mp4", [0.0, 0.1], pixel_aspect=Fraction(16, 15))
    assert probe(path).pixel_aspect == Fraction(16, 15)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "copied"),
    [
        ("a.mp4", "aac", 16_000, True),
        ("a.mkv", "aac", 44_100, True),
        ("a.ts", "aac", 48_000, True),
        ("a.mkv", "libmp3lame", 44_100, True),
        ("a.mkv", "libmp3lame", 8_000, False),
        ("a.mkv", "flac", 11_025, False),
        ("a.mkv", "pcm_s16le", 37_000, False),
        ("a.ts", "mp2", 48_000, False),
    ],
)
@pytest.mark.parametrize("start", [0.0, 0.3])
def test_sound_is_written_in_synchrony(make_video, tmp_path, name, codec, rate, copied, start):
    burst = np.convolve(np.random.default_rng(0).uniform(-1, 1, 3 * rate), np.ones(8) / 8, "same")
    burst[: int(0.7 * rate)] = burst[int(1.1 * rate) :] = 0
    wave = np.stack([burst, burst]).astype(np.float32)
    times = [0.2 + k / 25 for k in range(75)]
    source = make_video(name, times=times, sound=wave, rate=rate, sound_codec=codec, sound_start=start)
    shown = [p.time for p in pictures(source)]
    path = write(tmp_path / "out.mp4", shown, sound=source)
    with av.open(str(path)) as container:
        written = container.streams.audio[0].codec_context.codec.canonical_name
    assert written == ("mp3" if copied and "mp3" in codec else "aac")
    was, now = (Sound(sound_blocks(file)).waveform_at(1.0).numpy() for file in (source, path))
    alike = np.fft.irfft(np.fft.rfft(was, 40_000) * np.fft.rfft(now, 40_000).conj())
    lag = (int(alike.argmax()) + 20_000) % 40_000 - 20_000
    assert abs(lag) <= 8  # Matroska rounds to half a millisecond
    assert alike.max() > 0.9 * np.linalg.norm(was) * np.linalg.norm(now)
    assert [p.time for p in pictures(path)] == pytest.approx(shown, abs=1e-4)


def test_surround_is_downmixed_when_encoded(make_video, make_beep, tmp_path):
    for codec, channels in (("aac", 6), ("flac", 2)):
        source = make_video(f"{codec}.mkv", sound=make_beep(1, 0, 1, 48_000, 6), rate=48_000, sound_codec=codec)
        assert probe(write(tmp_path / f"{codec}.mp4", [0.0, 0.1], sound=source)).channels == channels


def test_video_without_audio_has_no_audio_stream(make_video, tmp_path):
    assert probe(write(tmp_path / "a.mp4", [0.0, 0.1], sound=make_video())).sample_rate is None


def test_damaged_audio_is_reported(make_video, tmp_path):
    random = np.random.default_rng(0)
    wave = random.uniform(-1, 1, (1, 48_000)).astype(np.float32)
    source = make_video("a.mp4", sound=wave, sound_codec="flac", times=[0.0, 1.0, 2.0])
    data = bytearray(source.read_bytes())
    first = len(data) // 2
    data[first : first + 2_000] = random.bytes(2_000)
    source.write_bytes(data)
    told: list[str] = []
    write(tmp_path / "out.mp4", [0.0, 1.0, 2.0], sound=source, complain=told.append)
    assert [("cannot be decoded" in message) for message in told] == [True]
    assert len(list(pictures(tmp_path / "out.mp4"))) == 3
    with pytest.raises(MediaError, match=r"sound after .* s cannot be decoded"):
        write(tmp_path / "out.mp4", [0.0, 1.0, 2.0], sound=source)


def test_error_in_the_block_is_raised(tmp_path):
    with pytest.raises(KeyError), VideoWriter(tmp_path / "a.mp4", (64, 96), rate=Fraction(25)):
        raise KeyError


@pytest.mark.parametrize(
    ("size", "expected"), [((2, 32_000), (2, 8192)), ((4320, 7680), (2304, 4096)), ((48, 64), (48, 64))]
)
def test_frames_too_large_for_h264_are_reduced(size, expected):
    assert _encoded_size(size) == expected


def test_wide_frames_are_written(tmp_path):
    path = write(tmp_path / "a.mp4", [0.0, 0.04], np.zeros((4, 20_000, 3), np.uint8))
    assert probe(path).size == (2, 8192)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_any_number_of_channels_becomes_mono_or_stereo(channels):
    layout = {1: "mono", 2: "stereo", 6: "5.1"}.get(channels, f"{channels} channels")
    frames = []
    for start in (0, 1024):
        frame = av.AudioFrame.from_ndarray(np.full((channels, 1024), 0.25, np.float32), "fltp", layout)
        frame.sample_rate, frame.time_base, frame.pts = 16_000, Fraction(1, 16_000), start
        frames.append(frame)
    converted = list(_converted(iter(frames), "stereo"))
    assert sum(frame.samples for frame in converted) == 2048
    assert all(frame.layout.name == "stereo" for frame in converted)


def test_layout_may_change_in_the_middle():
    frames = []
    for start, layout, channels in ((0, "mono", 1), (1024, "5.1", 6), (2048, "stereo", 2)):
        frame = av.AudioFrame.from_ndarray(np.zeros((channels, 1024), np.float32), "fltp", layout)
        frame.sample_rate, frame.time_base, frame.pts = 16_000, Fraction(1, 16_000), start
        frames.append(frame)
    assert {frame.layout.name for frame in _converted(iter(frames), "stereo")} == {"stereo"}


SAME = """
import os, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from avseg.media.writer import VideoWriter

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))} if sys.argv[2] == "one" else os.sched_getaffinity(0))
image = np.random.default_rng(0).integers(0, 255, (160, 96, 3), np.uint8)
with VideoWriter(Path(sys.argv[1]), (160, 96), rate=Fraction(25)) as writer:
    for k in range(12):
        writer.write(np.roll(image, k, 0), k / 25)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_bytes_do_not_depend_on_the_number_of_cores(tmp_path):
    paths = [tmp_path / "one.mp4", tmp_path / "all.mp4"]
    for path in paths:
        subprocess.run([sys.executable, "-c", SAME, str(path), path.stem], check=True)
    assert paths[0].read_bytes() == paths[1].read_bytes()
