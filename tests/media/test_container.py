import io
import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from avseg.errors import MediaError
from avseg.media.container import (
    audio_stream,
    check_pixels,
    check_rate,
    decoded,
    ignore,
    opened,
    start_time,
    video_stream,
)
from avseg.media.video import pictures


def noisy(index, size):
    return np.random.default_rng(index).integers(0, 255, (*size, 3), dtype=np.uint8)


def refused(path):
    with pytest.raises(MediaError) as caught, opened(path):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_not_a_video_raises_one_line(tmp_path):
    assert "no such file" in refused(tmp_path / "none.mp4")
    assert "folder" in refused(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "empty (0 bytes)" in refused(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("This is a letter, not a video.\n" * 100)
    assert "not a video" in refused(tmp_path / "text.mp4")


@pytest.mark.parametrize("address", ["https://example.org/a.mp4", "rtsp://10.0.0.1/live", "s3://bucket/a.mp4"])
def test_address_raises(address):
    assert f"{address} is an address" in refused(Path(address))


def test_truncated_mp4_without_index_raises(make_video):
    path = make_video("clip.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cut off or damaged" in refused(path)


def test_file_name_like_a_protocol(make_video, monkeypatch, tmp_path):
    make_video("data:clip.mkv")
    monkeypatch.chdir(tmp_path)
    with opened(Path("data:clip.mkv")) as container:
        assert len(container.streams.video) == 1


def sound_with_cover(path, wave, pictures=0):
    """Write a Matroska file of audio, a cover image and optionally a video."""
    cover = io.BytesIO()
    Image.fromarray(noisy(0, (300, 300))).save(cover, "PNG")
    with av.open(str(path), "w") as container:
        if pictures:
            video = container.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 32, 16, "yuv420p"
        audio = container.add_stream("flac", rate=16_000, layout="mono")
        container.add_attachment("cover.png", "image/png", cover.getvalue())
        for index in range(pictures):
            container.mux(video.encode(av.VideoFrame.from_ndarray(noisy(index, (16, 32)))))
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(audio.encode(frame))
        for stream in container.streams:
            if stream.type in ("audio", "video"):
                container.mux(stream.encode(None))
    return path


def test_cover_image_is_not_a_video_stream(tmp_path, make_beep):
    path = sound_with_cover(tmp_path / "song.mka", make_beep(1, 0, 1))
    with opened(path) as container:
        assert len(container.streams.video) == 1
        with pytest.raises(MediaError, match="no video stream, only audio"):
            video_stream(container, path)
    path = sound_with_cover(tmp_path / "clip.mkv", make_beep(1, 0, 1), pictures=10)
    with opened(path) as container:
        assert len(container.streams.video) == 2
        assert video_stream(container, path).width == 32
        chosen = audio_stream(container, path)
        assert chosen is not None
        assert chosen.sample_rate == 16_000


def test_clock_starts_with_earliest_stream(make_video, make_beep):
    # MPEG-TS never starts at 0; the audio begins 0.4 s after the video.
    path = make_video("clip.ts", sound=make_beep(1, 0, 1), sound_codec="mp2", sound_start=0.4, times=[0, 0.04, 0.08])
    with opened(path) as container:
        assert start_time(container) > 0.01
    assert next(pictures(path)).time == pytest.approx(0.0, abs=1e-6)


def damage(path, share, size):
    data = bytearray(path.read_bytes())
    first = int(len(data) * share)
    data[first : first + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(data)


def test_damage_raises_with_time_or_is_skipped(make_video):
    path = make_video("clip.mp4", picture=noisy, times=[k / 25 for k in range(50)])
    damage(path, 0.5, size=12_000)
    with pytest.raises(MediaError, match=r"damaged or cut off: picture after [01]\.\d\d s cannot be decoded"):
        list(pictures(path))
    told: list[str] = []
    shown = list(pictures(path, told.append))
    assert len(told) == 1
    assert 40 < len(shown) < 50
    assert shown[-1].time == pytest.approx(49 / 25)
    assert len(list(pictures(path, ignore))) == len(shown)


def test_undecodable_packets_before_first_frame_are_skipped(make_video):
    path = make_video("clip.ts", codec="mpeg4", picture=noisy, times=[k / 25 for k in range(50)])
    packets = path.read_bytes()
    path.write_bytes(packets[188 * 40 :])  # begins in the middle of a group of pictures
    with opened(path) as container:
        frames = list(decoded(container, video_stream(container, path), path))
    assert 20 < len(frames) < 50


def test_tags_in_latin_1_are_read(make_video, make_beep):
    path = make_video("clip.avi", codec="mpeg4", sound=make_beep(1, 0, 1), sound_codec="pcm_s16le")
    with av.open(str(path)) as container, av.open(str(path.with_name("tagged.avi")), "w") as tagged:
        tagged.metadata["title"] = "Xmas"
        streams = {s: tagged.add_stream_from_template(s) for s in container.streams}
        for packet in container.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                tagged.mux(packet)
    latin = path.with_name("latin.avi")
    latin.write_bytes(path.with_name("tagged.avi").read_bytes().replace(b"Xmas", b"X\xe4\xf6s"))
    assert len(list(pictures(latin))) == 25


@pytest.mark.parametrize(("kind", "file", "name"), [("video", "clip.avi", b"FMP4"), ("audio", "clip.mov", b"twos")])
def test_stream_of_an_unknown_format_raises(make_video, make_beep, kind, file, name):
    sound_codec = "pcm_s16be" if file == "clip.mov" else "pcm_s16le"
    path = make_video(file, codec="mpeg4", sound=make_beep(1, 0, 1), sound_codec=sound_codec)
    content = path.read_bytes()
    assert name in content
    path.write_bytes(content.replace(name, b"zzzz"))
    with (
        pytest.raises(MediaError, match=rf"has {kind} in a format that FFmpeg cannot decode: convert it"),
        opened(path) as container,
    ):
        audio_stream(container, path)


def test_pipe_raises_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "is a pipe or device" in refused(tmp_path / "pipe.mp4")


def test_playlist_without_end_raises(tmp_path):
    (tmp_path / "live.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n")
    assert "playlist without an end" in refused(tmp_path / "live.m3u8")


def test_stream_that_appears_after_opening_is_not_chosen(make_video, make_beep):
    class Streams:
        def __init__(self, streams):
            self.video, self.audio = streams.video, streams.audio

        def best(self, *_, **__):
            raise IndexError("list index out of range")

    path = make_video(sound=make_beep(1, 0, 1))
    with opened(path) as container:
        late = SimpleNamespace(streams=Streams(container.streams))
        assert video_stream(late, path) is container.streams.video[0]
        assert audio_stream(late, path) is container.streams.audio[0]


@pytest.mark.parametrize("rate", [1, 7, 999, 10**9, 2**31 - 1])
def test_sample_rate_out_of_bounds_raises(rate):
    with pytest.raises(MediaError, match=f"has audio at {rate} Hz, expected 1000 to 768000 Hz"):
        check_rate(rate, Path("a.wav"))


def test_frames_larger_than_8k_raise():
    check_pixels(SimpleNamespace(width=7680, height=4320), Path("a.mp4"))
    with pytest.raises(MediaError, match="16000 x 16000 pixels, more than 36 megapixels"):
        check_pixels(SimpleNamespace(width=16000, height=16000), Path("a.mp4"))


def test_file_name_that_is_not_utf_8(make_video, tmp_path):
    named = tmp_path / os.fsdecode(b"na\xffme.mkv")
    make_video("clip.mkv").rename(named)
    assert len(list(pictures(named))) == 25
