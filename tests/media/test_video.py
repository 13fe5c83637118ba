import gc
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from avseg.errors import MediaError
from avseg.media.video import pictures, pictures_at, probe

TURNS = {  # a, b, c, d of the display matrix, and its effect on an image
    (1, 0, 0, 1): lambda x: x,
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),  # phones store upright clips in this orientation
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, -1, 1, 0): lambda x: np.rot90(x, 1),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda x: x.swapaxes(0, 1),
}


def corners(index, size):
    """Return an image: upper left red, upper right green, lower left blue."""
    image = np.zeros((*size, 3), np.uint8)
    half = size[0] // 2, size[1] // 2
    image[: half[0], : half[1], 0] = image[: half[0], half[1] :, 1] = image[half[0] :, : half[1], 2] = 250
    return image


def turn(path, matrix):
    """Write a display matrix into the mp4's first track header."""
    a, b, c, d = (value * 65536 for value in matrix)
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data = path.read_bytes()
    place = data.index(identity, data.index(b"tkhd"))
    path.write_bytes(data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[place + 36 :])


@pytest.mark.parametrize("matrix", TURNS)
def test_frames_are_upright(make_video, matrix):
    path = make_video("clip.mp4", picture=corners, size=(64, 96))
    turn(path, matrix)
    expected = TURNS[matrix](corners(0, (64, 96)))
    seen = next(pictures(path)).rgb()
    assert seen.shape == expected.shape
    assert np.abs(seen.astype(int) - expected).mean() < 12
    assert probe(path).size == expected.shape[:2]


def test_frames_are_freed_without_the_garbage_collector(make_video) -> None:
    gc.collect()
    gc.disable()
    try:
        assert sum(picture.reduced((12, 16)).size > 0 for picture in pictures(make_video())) > 5
        left = [found for found in gc.get_objects() if type(found) is av.VideoFrame]
    finally:
        gc.enable()
    assert not left


def test_probe_returns_metadata(make_video, make_beep):
    info = probe(
        make_video("clip.mp4", size=(46, 62), sound=make_beep(1, 0, 1, 8_000, 2), rate=8_000, sound_codec="aac")
    )
    assert info.size == (46, 62)
    assert info.rate == 25
    assert info.duration == pytest.approx(1.0, abs=0.05)
    assert (info.sample_rate, info.channels) == (8_000, 2)
    assert info.pixel_aspect == 1
    assert probe(make_video("mute.mkv")).sample_rate is None


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_variable_frame_rate_keeps_times(make_video, name):
    times = [0.0, 0.04, 0.2, 0.21, 1.0, 1.5, 3.25]
    shown = list(pictures(make_video(name, times=times)))
    assert [p.time for p in shown] == pytest.approx(times, abs=1e-3)
    assert all(p.end > p.time for p in shown)


def test_time_starts_at_earliest_stream(make_video, make_beep):
    path = make_video("late.mkv", times=[2.0, 2.04, 2.08], sound=make_beep(3, 0, 1))
    assert [p.time for p in pictures(path)] == pytest.approx([2.0, 2.04, 2.08])


def test_frames_without_time_stamps_have_average_interval(make_video, tmp_path):
    with av.open(str(make_video("clip.mp4"))) as source, open(tmp_path / "raw.h264", "wb") as raw:
        stream = source.streams.video[0]
        annex_b = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in source.demux(stream):
            for piece in annex_b.filter(packet):
                raw.write(bytes(piece))
    shown = list(pictures(tmp_path / "raw.h264"))
    assert len(shown) == 25
    assert np.diff([p.time for p in shown]) == pytest.approx(1 / 25)


def test_time_stamps_that_do_not_increase_are_replaced(make_video, monkeypatch):
    import avseg.media.video

    stamps = iter([0.0, 0.04, 0.04, None, 0.02, 0.5])
    monkeypatch.setattr(avseg.media.video, "seconds", lambda frame, container: next(stamps))
    shown = pictures(make_video())
    assert [next(shown).time for _ in range(6)] == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.16, 0.5])


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (37, 53)])
def test_any_size(make_video, size):
    path = make_video("clip.mkv", size=size, codec="ffv1", pix_fmt="bgr0", picture=corners)
    assert probe(path).size == size
    np.testing.assert_array_equal(next(pictures(path)).rgb(), corners(0, size))


def test_ten_bits(make_video):
    seen = next(pictures(make_video(codec="libx265", pix_fmt="yuv420p10le", picture=corners, size=(64, 64)))).rgb()
    assert np.abs(seen.astype(int) - corners(0, (64, 64))).mean() < 12


def test_frames_of_another_size_are_scaled(make_video, monkeypatch):
    import avseg.media.video

    frames = [av.VideoFrame.from_ndarray(corners(0, size)) for size in ((64, 96), (32, 48), (128, 192))]
    for k, frame in enumerate(frames):
        frame.pts, frame.time_base = k, Fraction(1, 25)
    monkeypatch.setattr(avseg.media.video, "_frames", lambda *_: iter(frames))
    assert {p.rgb().shape for p in pictures(make_video())} == {(64, 96, 3)}


def test_after_seeks_to_key_frame(make_video):
    path = make_video("clip.mp4", times=[k / 25 for k in range(500)])
    shown = pictures(path, after=15.0)
    first = next(shown)
    assert 1.0 < first.time <= 15.0
    found = next(p for p in shown if p.time >= 15.0 - 1e-6)
    assert found.time == pytest.approx(15.0)
    assert abs(int(found.rgb()[0, 0, 0]) - (20 + 375 * 5 % 200)) < 4


def test_video_without_frames_raises(tmp_path, make_beep):
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 16
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("flac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(make_beep(1, 0, 1), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with pytest.raises(MediaError, match="no frame that can be decoded"):
        probe(path)


VARIABLE = [0.0, 0.04, 0.2, 0.21, 1.0, 1.5, 3.25, 3.3]


def number(image):
    return round((float(image.mean()) - 20) / 5)


def shown_at(times, moment):
    return max([k for k, time in enumerate(times) if time <= moment + 1e-4], default=0)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
@pytest.mark.parametrize("moments", [[0.5, 1.5, 2.5], [0.0, 0.205, 0.9, 1.0], [2.5, 3.26], [1.2, 1.2]])
def test_pictures_at_returns_last_frame_before(make_video, name, moments):
    path = make_video(name, times=VARIABLE)
    assert [number(image) for image in pictures_at(path, moments)] == [shown_at(VARIABLE, m) for m in moments]


def test_pictures_at_seeks(make_video):
    times = [k / 5 for k in range(38)]
    path = make_video("long.mkv", times=times)
    for first in range(7):
        assert [number(image) for image in pictures_at(path, [first + 0.5])] == [shown_at(times, first + 0.5)]


def test_pictures_at_ends_with_the_video(make_video):
    path = make_video("clip.mp4", times=[0.0, 0.04, 0.5])
    assert len(list(pictures_at(path, [0.02, 0.45, 0.52, 2.5]))) == 3
    assert len(list(pictures_at(path, [7.5]))) == 0
    assert list(pictures_at(path, [])) == []


def test_pictures_at_before_start_returns_first_frame(make_video, make_beep):
    path = make_video("late.mkv", times=[0.8, 1.2], sound=make_beep(2, 0, 1))
    assert [number(image) for image in pictures_at(path, [0.5, 1.0, 1.21])] == [0, 0, 1]


def test_image_with_unknown_side_data_is_read_as_a_video(tmp_path):
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(tmp_path / "image.tiff")
    (shown,) = pictures(tmp_path / "image.tiff")
    assert shown.size == (24, 32)
    assert (shown.rgb() == 90).all()
