from fractions import Fraction

import av
import numpy as np
import pytest

from avseg.errors import MediaError
from avseg.media import audio_stream, decoded, ignore, opened, start_time, video_stream
from avseg.video import pictures


def noisy(index, size):
    return np.random.default_rng(index).integers(0, 255, (*size, 3), dtype=np.uint8)


def refused(path):
    with pytest.raises(MediaError) as caught, opened(path):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    assert "no such file" in refused(tmp_path / "none.mp4")
    assert "folder" in refused(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "empty (0 bytes)" in refused(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("This is a letter, not a video.\n" * 100)
    assert "not a video" in refused(tmp_path / "text.mp4")


@pytest.mark.parametrize("address", ["https://example.org/a.mp4", "rtsp://10.0.0.1/live", "file:///tmp/a.mp4"])
def test_addresses_are_not_fetched(tmp_path, address):
    assert "is an address" in refused(tmp_path.__class__(address))


def test_a_cut_off_mp4_has_no_index_and_is_refused(make_video):
    path = make_video("clip.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cut off or damaged" in refused(path)


def test_a_name_like_a_protocol_is_a_name(make_video, monkeypatch, tmp_path):
    make_video("data:clip.mkv")
    monkeypatch.chdir(tmp_path)
    with opened(tmp_path.__class__("data:clip.mkv")) as container:
        assert len(container.streams.video) == 1


def test_only_sound_is_refused(tmp_path, make_beep):
    with av.open(str(tmp_path / "a.flac"), "w") as container:
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(make_beep(1, 0, 1), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with opened(tmp_path / "a.flac") as container, pytest.raises(MediaError, match="no pictures"):
        video_stream(container, tmp_path / "a.flac")


def test_of_several_streams_the_best_picture_and_its_sound_are_chosen(tmp_path, make_beep):
    path = tmp_path / "many.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in range(2)]
        sounds = [container.add_stream("aac", rate=rate, layout="mono") for rate in (8_000, 16_000)]
        for stream, side in zip(streams, (32, 64), strict=True):
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
        for stream, side in zip(streams, (32, 64), strict=True):
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy(0, (side, side)))))
            container.mux(stream.encode(None))
        for sound in sounds:
            frame = av.AudioFrame.from_ndarray(make_beep(1, 0, 1, sound.rate), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = sound.rate, 0, Fraction(1, sound.rate)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    with opened(path) as container:
        assert video_stream(container, path).width == 64
        chosen = audio_stream(container, path)
        assert chosen is not None
        assert chosen is container.streams.best("audio", related=video_stream(container, path))
    assert next(pictures(path)).rgb().shape == (64, 64, 3)


def test_the_clock_starts_with_the_first_stream(make_video, make_beep):
    # MPEG-TS never starts at 0; the sound begins 0.4 s after the picture.
    path = make_video("clip.ts", sound=make_beep(1, 0, 1), sound_codec="mp2", sound_start=0.4, times=[0, 0.04, 0.08])
    with opened(path) as container:
        assert start_time(container) > 0.01
    assert next(pictures(path)).time == pytest.approx(0.0, abs=1e-6)


def damage(path, share, size):
    data = bytearray(path.read_bytes())
    first = int(len(data) * share)
    data[first : first + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(data)


def test_damage_names_the_time_or_is_left_out(make_video):
    path = make_video("clip.mp4", picture=noisy, times=[k / 25 for k in range(50)])
    damage(path, 0.5, size=12_000)
    with pytest.raises(MediaError, match=r"damaged or cut off: no picture to decode after [01]\.\d\d s"):
        list(pictures(path))
    told: list[str] = []
    shown = list(pictures(path, told.append))
    assert len(told) == 1
    assert 40 < len(shown) < 50
    assert shown[-1].time == pytest.approx(49 / 25)
    assert len(list(pictures(path, ignore))) == len(shown)


def test_what_cannot_be_shown_before_the_first_picture_is_passed_over(make_video):
    path = make_video("clip.ts", codec="mpeg4", picture=noisy, times=[k / 25 for k in range(50)])
    packets = path.read_bytes()
    path.write_bytes(packets[188 * 40 :])  # begins in the middle of a group of pictures
    with opened(path) as container:
        frames = list(decoded(container, video_stream(container, path), path))
    assert 20 < len(frames) < 50
