"""Write frames as widely playable H.264, with the audio of another file in synchrony."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.frame import Frame
from av.packet import Packet
from numpy.typing import NDArray
from typing_extensions import Self

from avseg.media.container import Complain, audio_stream, decoded, opened, refuse, start_time
from avseg.media.sound import mono

_MOST_PIXELS, _LONGEST_SIDE = 4096 * 2304, 8192
"""Largest number of pixels and largest height or width of H.264 level 5.2, which players decode."""
_TICK = Fraction(1, 90_000)
"""Resolution of presentation times in seconds."""
_SLOWEST_MP3 = 16_000
"""Lowest sample rate in Hz of mp3 in an mp4 file."""
_AAC_RATES = {8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000}
_USUAL_RATE = 48_000
_MOST_CHANNELS = 8
"""Largest number of channels that FFmpeg mixes to stereo; the mean of more is written as mono."""
_BT709 = 1
"""FFmpeg's number of this standard, equal for matrix, primaries and transfer curve."""
_LIMITED_RANGE = 1


class VideoWriter:
    """Writer of an mp4 file; use it in a ``with`` block.

    The last row or column of frames of odd size is repeated, because H.264 needs even sizes. Frames that no level of
    H.264 allows are reduced to the largest size of level 5.2; other sound than mono and stereo becomes stereo.

    Args:
        path: The mp4 file to write.
        size: (H, W) of the frames.
        rate: Average frames per second.
        pixel_aspect: Width over height of one pixel.
        sound: File with the audio, which is copied if mp4 allows its codec, else encoded as AAC.
        complain: Reaction to damage in the audio, see :func:`avseg.media.container.decoded`.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        *,
        rate: Fraction,
        pixel_aspect: Fraction = Fraction(1),
        sound: Path | None = None,
        complain: Complain = refuse,
    ) -> None:
        self._path, self._size, self._rate, self._aspect = path, size, rate, pixel_aspect
        self._sound, self._complain = sound, complain
        self._stack = ExitStack()
        self._packets: Iterator[Packet[Any]] = iter(())
        self._next_packet: Packet[Any] | None = None
        self._last_tick = -1

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            options = {"movflags": "+faststart", "movie_timescale": str(1 / _TICK)}
            self._container = stack.enter_context(av.open(f"file:{self._path}", "w", "mp4", container_options=options))
            self._video = self._container.add_stream("libx264", self._rate, {"preset": "veryfast", "crf": "20"})
            self._video.height, self._video.width = (n + n % 2 for n in _encoded_size(self._size))
            self._video.pix_fmt = "yuv420p"
            context = self._video.codec_context
            context.time_base, context.sample_aspect_ratio = _TICK, self._aspect
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED_RANGE
            if self._sound is not None:
                source = stack.enter_context(opened(self._sound))
                self._packets = _sound_packets(source, self._sound, self._container, self._complain)
                self._next_packet = next(self._packets, None)
            self._stack = stack.pop_all()
        return self

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Write a frame.

        Args:
            image: (H, W, 3) RGB.
            time: Presentation time in seconds since the start, later than that of the previous frame.
        """
        self._last_tick = max(round(time / _TICK), self._last_tick + 1)
        self._write_sound(until=time)
        height, width = self._size
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(
            self._video.width, self._video.height, "yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        frame.pts, frame.time_base = self._last_tick, _TICK
        self._container.mux(self._video.encode(frame))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None:
                self._container.mux(self._video.encode(None))
                self._write_sound(until=float("inf"))

    def _write_sound(self, until: float) -> None:
        # Audio and video packets are interleaved: a muxer that waits for one stream keeps the other in memory.
        while self._next_packet is not None and _start(self._next_packet) <= until:
            self._container.mux_one(self._next_packet)
            self._next_packet = next(self._packets, None)


def _start(packet: Packet[Any]) -> float:
    return float((packet.dts or 0) * packet.time_base)


def _sound_packets(
    source: InputContainer, path: Path, target: OutputContainer, complain: Complain
) -> Iterator[Packet[Any]]:
    """Add an audio stream to ``target``, if ``source`` has one, and yield its packets in order."""
    stream = audio_stream(source, path)
    if stream is None:
        return
    name = stream.codec_context.codec.canonical_name
    copied = name == "aac" or (name == "mp3" and stream.sample_rate >= _SLOWEST_MP3)
    packets = _copied(source, stream, target) if copied else _encoded(source, stream, path, target, complain)
    last = -float("inf")
    for packet in packets:
        if packet.dts is not None and _start(packet) > last:  # a muxer rejects time stamps that do not increase
            last = _start(packet)
            yield packet


def _copied(source: InputContainer, stream: AudioStream, target: OutputContainer) -> Iterator[Packet[Any]]:
    output = target.add_stream_from_template(stream)
    for packet in source.demux(stream):
        if packet.pts is not None and packet.dts is not None:
            shift = round(start_time(source) / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = output
            yield packet


def _encoded(
    source: InputContainer, stream: AudioStream, path: Path, target: OutputContainer, complain: Complain
) -> Iterator[Packet[Any]]:
    rate = stream.sample_rate if stream.sample_rate in _AAC_RATES else _USUAL_RATE
    layout = "mono" if stream.channels == 1 else "stereo"
    output = target.add_stream("aac", rate=rate, layout=layout)
    for frame in _converted(decoded(source, stream, path, complain), layout):
        if frame.pts is not None and frame.time_base is not None:
            frame.pts -= round(start_time(source) / frame.time_base)
        yield from output.encode(frame)
    yield from output.encode(None)


def _converted(frames: Iterator[Frame], layout: str) -> Iterator[AudioFrame]:
    """Convert audio frames, of which any may have another format, to one layout of planar floats."""
    resampler, format_of_last = None, None
    for frame in frames:
        audio = cast("AudioFrame", frame)
        if audio.layout.nb_channels > _MOST_CHANNELS:
            audio = _as_mono(audio)
        found = (audio.format.name, audio.layout.name, audio.sample_rate)
        if resampler is None or found != format_of_last:
            # A layout without positions, such as "3 channels", has no mix to stereo.
            resampler, format_of_last = AudioResampler("fltp", layout), found
        try:
            yield from resampler.resample(audio)
        except av.FFmpegError:
            yield from AudioResampler("fltp", layout).resample(_as_mono(audio))


def _as_mono(audio: AudioFrame) -> AudioFrame:
    """Return the mean of the channels, with the same time stamp."""
    mixed = AudioFrame.from_ndarray(mono(audio)[None], format="fltp", layout="mono")
    mixed.sample_rate, mixed.pts, mixed.time_base = audio.sample_rate, audio.pts, audio.time_base
    return mixed


def _encoded_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (H, W) of the video for frames of a size: the same, or reduced to what H.264 allows."""
    factor = min(1.0, (_MOST_PIXELS / (size[0] * size[1])) ** 0.5, _LONGEST_SIDE / max(size))
    return size if factor == 1.0 else (max(2, int(size[0] * factor)), max(2, int(size[1] * factor)))
