"""Opening and decoding a file: which streams, on which clock, and one line for whatever is wrong with it.

All times in avseg are seconds since the start of the file, the moment at which a player shows 0:00: a stream's
own time stamps times its own time base, minus the earliest of all streams. Sound and picture meet on this clock,
never by counting.
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
"""Is told what is wrong with a file; raises, or notes it and returns."""


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
    """The file, ready to be read.

    Args:
        path: A file on this machine; addresses are not fetched.

    Raises:
        MediaError: When it is no file, or nothing that FFmpeg reads.
    """
    if re.match(r"[A-Za-z][\w+.-]+:/", path.as_posix()):
        address = path.as_posix().replace(":/", "://", 1)  # a Path joins slashes
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
    """The stream a player would show: FFmpeg's choice, by default flag, length, bit rate; never a cover picture.

    Raises:
        MediaError: When there is none.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise MediaError(f"{path} holds no pictures, only sound or text: give a video")
    best = container.streams.best("video")
    return next((s for s in streams if s is best), streams[0])


def audio_stream(container: InputContainer, path: Path) -> AudioStream | None:
    """The sound a player would play with :func:`video_stream`, or None."""
    if not container.streams.audio:
        return None
    best = container.streams.best("audio", related=video_stream(container, path))
    return next((s for s in container.streams.audio if s is best), container.streams.audio[0])


def start_time(container: InputContainer) -> float:
    """Where the file's clock begins, in seconds: the earliest time stamp of any stream."""
    return (container.start_time or 0) / av.time_base


def seconds(frame: Frame, container: InputContainer) -> float | None:
    """When something is shown or heard, in seconds since the start of the file; None when it does not say."""
    if frame.pts is None or frame.time_base is None:
        return None
    return float(frame.pts * frame.time_base) - start_time(container)


def refuse(message: str) -> None:
    """What to do with damage unless told otherwise.

    Raises:
        MediaError: Always, with the message.
    """
    raise MediaError(message)


def decoded(
    container: InputContainer, stream: VideoStream | AudioStream, path: Path, complain: Complain = refuse
) -> Iterator[Frame]:
    """The frames of one stream, in order.

    What cannot be decoded before the first frame is passed over in silence: a recording that starts between two
    key frames begins that way, and nothing that could be shown is lost.

    Args:
        container: From :func:`opened`.
        stream: One of its streams.
        path: Its name, for messages.
        complain: Called at the first damage after that, with a sentence that names the time; when it returns,
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
    """What to do with damage that was told before: nothing."""
