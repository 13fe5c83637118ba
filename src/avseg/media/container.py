"""Open and decode a media file: stream selection, clock, and one-line errors.

All times in avseg are seconds since the start of the file, which a player shows as 0:00: a stream's time stamps times
its time base, minus the earliest time stamp of all streams. Audio and video are synchronised on this clock, never by
counting frames or samples.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.frame import Frame
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from avseg.errors import MediaError
from avseg.media.forking import protect_forks

_S = TypeVar("_S", VideoStream, AudioStream)
MOST_PIXELS = 36_000_000
"""Largest number of pixels of a frame: enough for 8K. Masks and overlays of larger frames take gigabytes."""
_BOUNDS = {"max_pixels": str(MOST_PIXELS)}
"""Options of FFmpeg's decoders that keep a forged size from taking memory."""
_SLOWEST, _FASTEST = 1_000, 768_000
"""Lowest and highest sample rate in Hz: at other rates, resampling to 16 kHz takes gigabytes."""
Complain = Callable[[str], None]
"""Callback for damage in a file, called with a one-line message; raises, or records it and returns."""


def video_path(video: object) -> Path:
    """Return the path of a video file.

    Raises:
        MediaError: When ``video`` is neither a string nor a path, such as the bytes of a file.
    """
    if isinstance(video, str | os.PathLike) and isinstance(path := os.fspath(video), str):
        return Path(path)
    raise MediaError(f"a video must be the path of a file, as str or Path, got {type(video).__name__}")


def open_media(path: Path) -> InputContainer:
    """Open a regular file with FFmpeg; bytes of its metadata that are not UTF-8 are replaced.

    Raises:
        OSError: When it cannot be read.
        av.FFmpegError: When its format is unknown.
    """
    # "file:" keeps a name such as "data:a.mp4" from being a protocol. FFmpeg decodes the first frame of some formats.
    return av.open(f"file:{path}", metadata_errors="replace", options=_BOUNDS)


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a media file for reading.

    Args:
        path: A local file; URLs are not fetched.

    Raises:
        MediaError: When it is not a regular file, or not in a format that FFmpeg reads.
    """
    if re.match(r"[A-Za-z][\w+.-]+:/", path.as_posix()):
        address = path.as_posix().replace(":/", "://", 1)  # Path merges slashes
        raise MediaError(f"{address} is an address, not a file: download it and give the file")
    if path.is_dir():
        raise MediaError(f"{path} is a folder: give one video file")
    if not path.exists():
        raise MediaError(f"no such file: {path}")
    if not path.is_file():
        raise MediaError(f"{path} is a pipe or device: save its content to a file, which is read several times")
    if path.stat().st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes): copy or download it again")
    _check_playlist(path)
    protect_forks()
    try:
        container = open_media(path)
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path} is not a video, or is cut off or damaged ({error.strerror})") from error
    with container:
        yield container


def _check_playlist(path: Path) -> None:
    """Refuse a playlist (HLS) without an end, which FFmpeg reads again and again for new parts."""
    with path.open("rb") as file:
        if file.read(7) != b"#EXTM3U":
            return
        if b"#EXT-X-ENDLIST" not in file.read(1 << 20):
            raise MediaError(f"{path} is a playlist without an end: record the stream to a video file")


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the video stream that a player selects: FFmpeg's best stream, except cover images.

    Raises:
        MediaError: When there is none, it cannot be decoded, or its frames are too large.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise MediaError(f"{path} has no video stream, only audio or text: give a video")
    chosen = decodable(streams, path, _best(container, "video"))
    check_pixels(chosen, path)
    chosen.codec_context.options.update(_BOUNDS)
    return chosen


def audio_stream(container: InputContainer, path: Path) -> AudioStream | None:
    """Return the audio stream that a player selects with :func:`video_stream`, or None.

    Raises:
        MediaError: When it cannot be decoded, or its sample rate cannot be converted.
    """
    if not container.streams.audio:
        return None
    best = _best(container, "audio", related=video_stream(container, path))
    chosen = decodable(container.streams.audio, path, best)
    if chosen.sample_rate:
        check_rate(chosen.sample_rate, path)
    return chosen


def _best(container: InputContainer, kind: Literal["video", "audio"], related: VideoStream | None = None) -> object:
    """Return FFmpeg's best stream of a kind; None if it appeared after the file was opened, as in damaged files."""
    try:
        return container.streams.best(kind, related=related)
    except IndexError:
        return None


def decodable(streams: Sequence[_S], path: Path, best: object = None) -> _S:
    """Return the best stream, else the first one, of those of one kind that FFmpeg can decode.

    Raises:
        MediaError: When it can decode none.
    """
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise MediaError(
            f"{path} has {streams[0].type} in a format that FFmpeg cannot decode: convert it, or repair its header"
        )
    return next((stream for stream in known if stream is best), known[0])


def check_pixels(picture: VideoStream | VideoFrame, path: Path) -> None:
    """Raise MediaError if a stream or a frame has more than :data:`MOST_PIXELS` pixels."""
    if picture.width * picture.height > MOST_PIXELS:
        raise MediaError(
            f"{path} has frames of {picture.width} x {picture.height} pixels, more than {MOST_PIXELS // 10**6} "
            "megapixels: scale it down"
        )


def check_rate(rate: int, path: Path) -> None:
    """Raise MediaError if audio of a sample rate in Hz cannot be converted to 16 kHz."""
    if not _SLOWEST <= rate <= _FASTEST:
        raise MediaError(
            f"{path} has audio at {rate} Hz, expected {_SLOWEST} to {_FASTEST} Hz: convert it, or repair its header"
        )


def start_time(container: InputContainer) -> float:
    """Return the origin of the file's clock in seconds: the earliest time stamp of any stream."""
    return (container.start_time or 0) / av.time_base


def seconds(frame: Frame, container: InputContainer) -> float | None:
    """Return the presentation time of a frame in seconds since the start of the file; None without a time stamp."""
    if frame.pts is None or frame.time_base is None:
        return None
    return float(frame.pts * frame.time_base) - start_time(container)


def refuse(message: str) -> None:
    """Raise an error for damage, the default reaction.

    Raises:
        MediaError: Always, with the message.
    """
    raise MediaError(message)


def decoded(
    container: InputContainer,
    stream: VideoStream | AudioStream,
    path: Path,
    complain: Complain = refuse,
    *,
    also: AudioStream | None = None,
) -> Iterator[Frame]:
    """Decode the frames of one stream, in order, or of two in the order of the file.

    Packets that cannot be decoded before the first frame are skipped without a message: a recording that starts
    between two key frames begins with such packets, which no player can show.

    Args:
        container: Result of :func:`opened`.
        stream: One of its streams.
        path: The file, for messages.
        complain: Called at the first damage after the first frame, with a message that gives the time; if it returns,
            the damaged part is left out.
        also: Another stream to decode in the same pass.
    """
    last: Frame | None = None
    complained = False
    packets = container.demux([stream] if also is None else [stream, also])
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = cast("list[Frame]", packet.decode())
        except av.FFmpegError as error:
            if last is not None and not complained:
                complained = True
                what = "sound" if stream.type == "audio" else "picture"
                time = seconds(last, container) or 0.0
                complain(
                    f"{path} is damaged or cut off: {what} after {time:.2f} s cannot be decoded ({error.strerror})"
                )
            continue
        for frame in frames:
            last = frame
            yield frame


def ignore(message: str) -> None:
    """Ignore damage that was already reported."""
