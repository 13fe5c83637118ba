"""Open and decode a media file: stream selection, clock, and one-line errors.

All times in avseg are seconds since the start of the file, which a player shows as 0:00: a stream's time stamps times
its time base, minus the earliest time stamp of all streams. Audio and video are synchronised on this clock, never by
counting frames or samples.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.frame import Frame
from av.stream import Disposition
from av.video.stream import VideoStream

from avseg.errors import MediaError

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


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a media file for reading.

    Args:
        path: A local file; URLs are not fetched.

    Raises:
        MediaError: When it is not a file, or not in a format that FFmpeg reads.
    """
    if re.match(r"[A-Za-z][\w+.-]+:/", path.as_posix()):
        address = path.as_posix().replace(":/", "://", 1)  # Path merges slashes
        raise MediaError(f"{address} is an address, not a file: download it and give the file")
    if path.is_dir():
        raise MediaError(f"{path} is a folder: give one video file")
    if not path.exists():
        raise MediaError(f"no such file: {path}")
    if path.is_file() and path.stat().st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes): copy or download it again")
    try:
        container = av.open(f"file:{path}")  # "file:" keeps a name such as "data:a.mp4" from being a protocol
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path} is not a video, or is cut off or damaged ({error.strerror})") from error
    with container:
        yield container


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the video stream that a player selects: FFmpeg's best stream, except cover images.

    Raises:
        MediaError: When there is none.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise MediaError(f"{path} has no video stream, only audio or text: give a video")
    best = container.streams.best("video")
    return next((s for s in streams if s is best), streams[0])


def audio_stream(container: InputContainer, path: Path) -> AudioStream | None:
    """Return the audio stream that a player selects with :func:`video_stream`, or None."""
    if not container.streams.audio:
        return None
    best = container.streams.best("audio", related=video_stream(container, path))
    return next((s for s in container.streams.audio if s is best), container.streams.audio[0])


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
    container: InputContainer, stream: VideoStream | AudioStream, path: Path, complain: Complain = refuse
) -> Iterator[Frame]:
    """Decode the frames of one stream, in order.

    Packets that cannot be decoded before the first frame are skipped without a message: a recording that starts
    between two key frames begins with such packets, which no player can show.

    Args:
        container: Result of :func:`opened`.
        stream: One of its streams.
        path: The file, for messages.
        complain: Called at the first damage after the first frame, with a message that gives the time; if it returns,
            the damaged part is left out.
    """
    last: Frame | None = None
    complained = False
    packets = container.demux(stream)
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
