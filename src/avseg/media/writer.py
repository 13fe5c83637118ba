"""Write frames as a video, by default widely playable H.264, with the audio of another file in synchrony."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
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
from av.video.stream import VideoStream
from numpy.typing import NDArray
from typing_extensions import Self

from avseg.media.container import Complain, audio_stream, decoded, opened, refuse, start_time
from avseg.media.sound import mono
from avseg.media.yuv import BT709, UNSPECIFIED, from_rgb
from avseg.threads import Behind

_MOST_PIXELS, _LONGEST_SIDE = 4096 * 2304, 8192
"""Largest number of pixels and largest height or width of H.264 level 5.2, which players decode."""
_THREADS = 4
"""Threads of the encoder, on which the bytes of a video depend; by default the number of cores determines them."""
_TICK = Fraction(1, 90_000)
"""Resolution of presentation times in seconds."""
_SLOWEST_MP3 = 16_000
"""Lowest sample rate in Hz of mp3 in an mp4 file."""
_AAC_RATES = {8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000}
_USUAL_RATE = 48_000
_WAITING = 4
"""Frames that may wait for the encoder."""
_MOST_CHANNELS = 8
"""Largest number of channels that FFmpeg mixes to stereo; the mean of more is written as mono."""
_LIMITED_RANGE = 1


@dataclass(frozen=True)
class Encoding:
    """Codecs and container of a video.

    Attributes:
        container: FFmpeg's name of the container.
        codec: FFmpeg's name of the video encoder.
        pix_fmt: FFmpeg's name of the pixel format.
        options: Settings of the encoder.
        sound: Encoder of audio that is not copied.
        copied: Audio codecs that are copied without decoding.
    """

    container: str
    codec: str
    pix_fmt: str
    options: Mapping[str, str] = field(default_factory=dict)
    sound: str = "aac"
    copied: frozenset[str] = frozenset({"aac", "mp3"})


H264 = Encoding("mp4", "libx264", "yuv420p", {"preset": "superfast", "crf": "20"})
"""Plays everywhere; half the time of the preset veryfast for 1.4 times its size."""
PRORES_4444 = Encoding(
    "mov",
    "prores_ks",
    "yuva444p10le",
    {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"},
    "pcm_s16le",
    frozenset({"aac", "mp3", "alac", "pcm_s16le", "pcm_s24le"}),
)
"""Video with an alpha channel for editing programs."""
VP9_ALPHA = Encoding(
    "webm",
    "libvpx-vp9",
    "yuva420p",
    {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1", "auto-alt-ref": "0"},
    "libopus",
    frozenset({"opus", "vorbis"}),
)
"""Video with an alpha channel for browsers."""


class VideoWriter:
    """Writer of a video file; use it in a ``with`` block.

    The last row or column of frames of odd size is repeated if the chroma of the pixel format is subsampled. Frames
    that no level of H.264 allows are reduced to the largest size of level 5.2. Sound that is encoded becomes mono or
    stereo.

    Args:
        path: The file to write.
        size: (H, W) of the frames.
        rate: Average frames per second.
        pixel_aspect: Width over height of one pixel.
        matrix: FFmpeg's number of the YUV matrix.
        sound: File with the audio, which is copied if the encoding allows its codec, else encoded.
        complain: Reaction to damage in the audio, see :func:`avseg.media.container.decoded`.
        encoding: Codecs and container.
        muted: Start and end in seconds of the stretches in which the audio is silence, which must not overlap. With
            any, the audio is encoded again.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        *,
        rate: Fraction,
        pixel_aspect: Fraction = Fraction(1),
        matrix: int = BT709,
        sound: Path | None = None,
        complain: Complain = refuse,
        encoding: Encoding = H264,
        muted: Sequence[tuple[float, float]] = (),
    ) -> None:
        self._path, self._size, self._rate, self._aspect = path, size, rate, pixel_aspect
        self._matrix, self._encoding, self._muted = matrix, encoding, muted
        self._sound, self._complain = sound, complain
        self._stack = ExitStack()
        self._packets: Iterator[Packet[Any]] = iter(())
        self._next_packet: Packet[Any] | None = None
        self._last_tick = -1

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            encoding = self._encoding
            isobmff = encoding.container in ("mp4", "mov")
            options = {"movflags": "+faststart", "movie_timescale": str(1 / _TICK)} if isobmff else {}
            self._container = stack.enter_context(
                av.open(f"file:{self._path}", "w", encoding.container, container_options=options)
            )
            stream = self._container.add_stream(encoding.codec, self._rate, dict(encoding.options))
            self._video = cast("VideoStream", stream)
            size = _encoded_size(self._size) if encoding.codec == "libx264" else self._size
            even = 2 if "420" in encoding.pix_fmt else 1
            self._video.height, self._video.width = (-(-n // even) * even for n in size)
            self._video.pix_fmt = encoding.pix_fmt
            context = self._video.codec_context
            context.thread_count = _THREADS
            context.time_base, context.sample_aspect_ratio = _TICK, self._aspect
            context.colorspace = self._matrix
            context.color_primaries = context.color_trc = BT709 if self._matrix == BT709 else UNSPECIFIED
            context.color_range = _LIMITED_RANGE
            if self._sound is not None:
                source = stack.enter_context(opened(self._sound))
                self._packets = self._sound_packets(source, self._sound)
                self._next_packet = next(self._packets, None)
            self._behind = Behind(_WAITING)
            self._stack = stack.pop_all()
        return self

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Write a frame; it is encoded in a thread.

        Args:
            image: (H, W, 3) RGB, or (H, W, 4) with straight (not premultiplied) alpha; must not be changed afterwards.
            time: Presentation time in seconds since the start, later than that of the previous frame.
        """
        self._behind.submit(self._encode, lambda: from_rgb(image, self._matrix, self._encoding.pix_fmt), time)

    def write_planes(self, packed: NDArray[np.uint8], time: float) -> None:
        """Write a frame that is given as planes; it is encoded in a thread.

        Args:
            packed: (3 H / 2, W), see :func:`avseg.media.yuv.yuv_planes`; must not be changed afterwards.
            time: See :meth:`write`.
        """
        self._behind.submit(self._encode, lambda: av.VideoFrame.from_ndarray(packed, format="yuv420p"), time)

    def _encode(self, make: Callable[[], av.VideoFrame], time: float) -> None:
        self._last_tick = max(round(time / _TICK), self._last_tick + 1)
        self._write_sound(until=time)
        frame = make()
        if (frame.width, frame.height) != (self._video.width, self._video.height):
            frame = frame.reformat(self._video.width, self._video.height)
        frame.pts, frame.time_base = self._last_tick, _TICK
        self._container.mux(self._video.encode(frame))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._stack:
            self._behind.__exit__(kind, *rest)
            if kind is None:
                self._container.mux(self._video.encode(None))
                self._write_sound(until=float("inf"))

    def _write_sound(self, until: float) -> None:
        # Audio and video packets are interleaved: a muxer that waits for one stream keeps the other in memory.
        while self._next_packet is not None and _start(self._next_packet) <= until:
            self._container.mux_one(self._next_packet)
            self._next_packet = next(self._packets, None)

    def _sound_packets(self, source: InputContainer, path: Path) -> Iterator[Packet[Any]]:
        """Add an audio stream to the file, if ``source`` has one, and yield its packets in order."""
        stream = audio_stream(source, path)
        if stream is None:
            return
        if not self._muted and _can_copy(stream, self._encoding):
            packets = _copied(source, stream, self._container)
        else:
            sound = decoded(source, stream, path, self._complain)
            packets = _encoded(source, stream, sound, self._container, self._encoding.sound, self._muted)
        last = -float("inf")
        for packet in packets:
            if packet.dts is not None and _start(packet) > last:  # a muxer rejects time stamps that do not increase
                last = _start(packet)
                yield packet


def _start(packet: Packet[Any]) -> float:
    return float((packet.dts or 0) * packet.time_base)


def _can_copy(stream: AudioStream, encoding: Encoding) -> bool:
    name = stream.codec_context.codec.canonical_name
    return name in encoding.copied and (name != "mp3" or stream.sample_rate >= _SLOWEST_MP3)


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
    source: InputContainer,
    stream: AudioStream,
    sound: Iterator[Frame],
    target: OutputContainer,
    codec: str,
    muted: Sequence[tuple[float, float]],
) -> Iterator[Packet[Any]]:
    rate = stream.sample_rate
    if codec == "libopus" or (codec == "aac" and rate not in _AAC_RATES):
        rate = _USUAL_RATE
    layout = "mono" if stream.channels == 1 else "stereo"
    output = cast("AudioStream", target.add_stream(codec, rate=rate, layout=layout))
    for frame in _silenced(_converted(sound, layout), start_time(source), muted):
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


def _silenced(sound: Iterator[AudioFrame], origin: float, muted: Sequence[tuple[float, float]]) -> Iterator[AudioFrame]:
    """Yield frames of planar samples, which are 0 in some stretches of time; ``origin`` is the start of the file."""
    for frame in sound:
        if muted and frame.pts is not None and frame.time_base is not None:
            start = float(frame.pts * frame.time_base) - origin
            positions = [[round((edge - start) * frame.sample_rate) for edge in stretch] for stretch in muted]
            inside = [(max(a, 0), min(b, frame.samples)) for a, b in positions if a < frame.samples and b > 0]
            yield _with_silence(frame, inside) if inside else frame
        else:
            yield frame


def _with_silence(frame: AudioFrame, stretches: Sequence[tuple[int, int]]) -> AudioFrame:
    samples = frame.to_ndarray().copy()
    for first, last in stretches:
        samples[:, first:last] = 0
    silent = AudioFrame.from_ndarray(samples, format=frame.format.name, layout=frame.layout.name)
    silent.sample_rate, silent.pts, silent.time_base = frame.sample_rate, frame.pts, frame.time_base
    return silent
