"""A video's pictures, one after the other: upright, with the seconds at which they are shown."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avseg.errors import MediaError
from avseg.media.container import Complain, audio_stream, decoded, opened, refuse, seconds, start_time, video_stream

_USUAL_RATE = Fraction(25)
"""Pictures per second of a stream that says nothing."""
_MARGIN = 0.25
"""Seconds to begin earlier: some containers are searched by when a picture is decoded, which is before it is shown."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about itself.

    Attributes:
        size: (H, W) in pixels, as shown: after rotation.
        rate: Pictures per second, on average.
        duration: Seconds of picture, as declared; None when the file does not say.
        pixel_aspect: Width over height of one pixel as shown; 1 for nearly all files.
        sample_rate: Of the sound, in Hz; None without sound.
        channels: Of the sound; 0 without sound.
    """

    size: tuple[int, int]
    rate: Fraction
    duration: float | None
    pixel_aspect: Fraction
    sample_rate: int | None
    channels: int


class Picture(NamedTuple):
    """One picture.

    Attributes:
        time: When it appears, in seconds since the start of the file.
        end: When it would be replaced at the usual rate.
        frame: As decoded, not yet turned upright.
    """

    time: float
    end: float
    frame: VideoFrame

    def rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3), turned the way it is meant to be seen."""
        return _upright(cast("NDArray[np.uint8]", self.frame.to_ndarray(format="rgb24")), self.frame)


def probe(path: Path) -> VideoInfo:
    """Read what a video says about itself, and its first picture.

    Raises:
        MediaError: When it is no video, or holds not one picture that can be decoded.
    """
    with opened(path) as container:
        stream, sound = video_stream(container, path), audio_stream(container, path)
        frame = next(_frames(container, stream, path, refuse))
        aspect = stream.sample_aspect_ratio or Fraction(1)
        turned = _turns(frame)[0]
        return VideoInfo(
            size=(frame.width, frame.height) if turned else (frame.height, frame.width),
            rate=_rate(stream),
            duration=_duration(container, stream),
            pixel_aspect=1 / aspect if turned else aspect,
            sample_rate=sound.sample_rate if sound else None,
            channels=sound.channels if sound else 0,
        )


def pictures(path: Path, complain: Complain = refuse, *, after: float = 0.0) -> Iterator[Picture]:
    """The pictures of a video, each decoded when it is asked for.

    A picture without a time stamp, or with one that does not lie after its predecessor's, comes one usual
    interval after it. Should the size change on the way, later pictures are scaled to the first one's.

    Args:
        path: The video.
        complain: What to do with damage, see :func:`avseg.media.container.decoded`.
        after: Seconds; begin at the last key picture before, where the file can be searched.

    Raises:
        MediaError: When it is no video, or holds not one picture.
    """
    with opened(path) as container:
        stream = video_stream(container, path)
        step = float(1 / _rate(stream))
        if after > 0.0:
            container.seek(round((after + start_time(container)) * av.time_base))
        previous: float | None = None
        width, height = 0, 0
        for frame in _frames(container, stream, path, complain):
            time = seconds(frame, container)
            if previous is None:
                time, width, height = time or 0.0, frame.width, frame.height
            elif time is None or time <= previous:
                time = previous + step
            if (frame.width, frame.height) != (width, height):
                frame = frame.reformat(width=width, height=height)
            length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else step
            yield Picture(time, time + length, frame)
            previous = time


def pictures_at(path: Path, times: Sequence[float]) -> Iterator[NDArray[np.uint8]]:
    """The picture that is shown at each moment, each decoded when it is asked for.

    Before the first picture appears it stands for what is not there yet; from the moment on at which the last one
    would be replaced there is none.

    Args:
        path: A video of any frame rate, also a variable one.
        times: Seconds since the start of the file, rising.

    Yields:
        (H, W, 3) RGB, upright; fewer than ``times`` when the video ends before.

    Raises:
        MediaError: When it is no video, or damaged where it is read.
    """
    left = deque(times)
    shown: Picture | None = None
    for picture in pictures(path, after=max(0.0, left[0] - _MARGIN)) if left else ():
        while shown is not None and left and left[0] < picture.time:
            left.popleft()
            yield shown.rgb()
        shown = picture
        if not left:
            return
    while shown is not None and left and left[0] < shown.end:
        left.popleft()
        yield shown.rgb()


def _frames(container: InputContainer, stream: VideoStream, path: Path, complain: Complain) -> Iterator[VideoFrame]:
    # Decoding stays in PyAV's default slice threads: frame threads lose errors, and pictures with them.
    empty = True
    for frame in decoded(container, stream, path, complain):
        empty = False
        yield cast("VideoFrame", frame)
    if empty:
        raise MediaError(f"{path} holds no picture that can be decoded: it is empty, cut off or damaged")


def _rate(stream: VideoStream) -> Fraction:
    return stream.average_rate or stream.guessed_rate or _USUAL_RATE


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def _turns(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """(transposed, rows reversed, columns reversed): the nearest of the eight ways to put a picture upright.

    A display matrix holds (x, y) → (a x + c y, b x + d y) as 16.16 fixed-point a, b, u, c, d, v, x, y, w.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(cast("bytes", matrix)), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def _upright(image: NDArray[np.uint8], frame: VideoFrame) -> NDArray[np.uint8]:
    transposed, upside_down, mirrored = _turns(frame)
    if transposed:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image[:: -1 if upside_down else 1, :: -1 if mirrored else 1])
