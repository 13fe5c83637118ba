"""Decode the frames of a video in order, upright, with their presentation times in seconds."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avseg.errors import MediaError
from avseg.media.container import (
    Complain,
    audio_stream,
    check_pixels,
    decoded,
    opened,
    refuse,
    seconds,
    start_time,
    video_stream,
)
from avseg.media.yuv import BT709, from_rgb, matrix_of, packed_planes

_USUAL_RATE = Fraction(25)
"""Frames per second of a stream that does not declare a rate."""
_MARGIN = 0.25
"""Seconds to seek earlier: some containers are searched by decoding time, which is before the presentation time."""


@dataclass(frozen=True)
class VideoInfo:
    """Metadata of a video file.

    Attributes:
        size: (H, W) in pixels, after rotation.
        rate: Average frames per second.
        duration: Declared seconds of video; None if not declared.
        pixel_aspect: Width over height of one pixel, after rotation; 1 for nearly all files.
        matrix: FFmpeg's number of the YUV matrix in which to encode it again: its own if its planes can be used as they
            are (see :func:`avseg.media.yuv.matrix_of`), else BT.709.
        sample_rate: Sample rate of the audio in Hz; None without audio.
        channels: Channels of the audio; 0 without audio.
    """

    size: tuple[int, int]
    rate: Fraction
    duration: float | None
    pixel_aspect: Fraction
    sample_rate: int | None
    channels: int
    matrix: int = BT709


class Picture(NamedTuple):
    """One frame of a video.

    Attributes:
        time: Presentation time, in seconds since the start of the file.
        end: End of its presentation by its own duration, or at the average frame rate.
        frame: Decoded frame, before rotation.
    """

    time: float
    end: float
    frame: VideoFrame

    @property
    def size(self) -> tuple[int, int]:
        """Return (H, W) in pixels, upright."""
        return _upright_size(self.frame)

    def rgb(self) -> NDArray[np.uint8]:
        """Convert to (H, W, 3) RGB, upright."""
        return _upright(cast("NDArray[np.uint8]", self.frame.to_ndarray(format="rgb24")), self.frame)

    def yuv(self, matrix: int) -> NDArray[np.uint8]:
        """Convert to packed planes for H.264, upright: (3 H / 2, W) with H and W rounded up to even numbers.

        Args:
            matrix: FFmpeg's number of the YUV matrix.
        """
        direct = _matrix(self.frame) == matrix
        return packed_planes(self.frame if direct else from_rgb(self.rgb(), matrix))

    def reduced(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Convert to RGB of another (H, W), upright: (H, W, 3)."""
        height, width = size[::-1] if _turns(self.frame)[0] else size
        frame = self.frame.reformat(width=width, height=height, format="rgb24")
        return _upright(cast("NDArray[np.uint8]", frame.to_ndarray()), self.frame)


def probe(path: Path) -> VideoInfo:
    """Read the metadata of a video, and decode its first frame.

    Raises:
        MediaError: When it is not a video, or no frame can be decoded.
    """
    with opened(path) as container:
        stream, sound = video_stream(container, path), audio_stream(container, path)
        frame = next(_frames(container, stream, path, refuse))
        check_pixels(frame, path)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        return VideoInfo(
            size=_upright_size(frame),
            rate=_rate(stream),
            duration=_duration(container, stream),
            pixel_aspect=1 / aspect if _turns(frame)[0] else aspect,
            sample_rate=sound.sample_rate if sound else None,
            channels=sound.channels if sound else 0,
            matrix=_matrix(frame) or BT709,
        )


def pictures(path: Path, complain: Complain = refuse, *, after: float = 0.0) -> Iterator[Picture]:
    """Decode the frames of a video, each on demand.

    A frame without a time stamp, or with one not after its predecessor's, follows it by the average frame interval. If
    the size changes, later frames are scaled to the size of the first.

    Args:
        path: The video.
        complain: Reaction to damage, see :func:`avseg.media.container.decoded`.
        after: Seconds; begin at the last key frame before this time, if the file is seekable.

    Raises:
        MediaError: When it is not a video, or has no frame.
    """
    with opened(path) as container:
        stream = video_stream(container, path)
        if after > 0.0:
            container.seek(round((after + start_time(container)) * av.time_base))
        clock = PictureClock(container, stream, path)
        for frame in _frames(container, stream, path, complain):
            yield clock.picture(frame)


class PictureClock:
    """Time and size of the decoded frames of a stream, as :func:`pictures` defines them.

    Args:
        container: The open file.
        stream: Its video stream.
        path: The file, for messages.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, path: Path) -> None:
        self._container, self._path = container, path
        self._step = float(1 / _rate(stream))
        self._previous: float | None = None
        self._size = 0, 0

    def picture(self, frame: VideoFrame) -> Picture:
        """Return the next frame with its time, at the size of the first one.

        Raises:
            MediaError: When the first frame is too large.
        """
        time = seconds(frame, self._container)
        if self._previous is None:
            check_pixels(frame, self._path)
            time, self._size = time or 0.0, (frame.width, frame.height)
        elif time is None or time <= self._previous:
            time = self._previous + self._step
        if (frame.width, frame.height) != self._size:
            frame = frame.reformat(width=self._size[0], height=self._size[1])
        self._previous = time
        declared = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else self._step
        return Picture(time, time + declared, frame)


def pictures_at(path: Path, times: Sequence[float]) -> Iterator[NDArray[np.uint8]]:
    """Decode the frame shown at each time, each on demand.

    Times before the first frame give the first frame; times after the end of the last frame give none.

    Args:
        path: A video of any frame rate, constant or variable.
        times: Seconds since the start of the file, in increasing order.

    Yields:
        (H, W, 3) RGB, upright; fewer than ``times`` if the video ends before.

    Raises:
        MediaError: When it is not a video, or is damaged in the part that is read.
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
    # PyAV's default slice threading is kept: frame threading drops errors, and frames with them.
    empty = True
    for frame in decoded(container, stream, path, complain):
        empty = False
        yield cast("VideoFrame", frame)
    if empty:
        raise MediaError(f"{path} has no frame that can be decoded: it is empty, cut off or damaged")


def _rate(stream: VideoStream) -> Fraction:
    return stream.average_rate or stream.guessed_rate or _USUAL_RATE


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def _turns(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return (transposed, rows reversed, columns reversed): the closest of the eight orientations.

    A display matrix maps (x, y) → (a x + c y, b x + d y), stored as 16.16 fixed-point a, b, u, c, d, v, x, y, w.
    """
    try:
        # Not frame.side_data: the frame keeps that container, and the container the frame, so that decoded frames would
        # stay in memory until the garbage collector finds the cycle.
        matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # missing in the stub
    except ValueError:  # PyAV lacks a kind of side data, such as the EXIF tags of a TIFF image, and reads none then
        return False, False, False
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(cast("bytes", matrix)), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def _matrix(frame: VideoFrame) -> int | None:
    """Return the matrix of an upright frame whose planes H.264 can take as they are; None for others."""
    return None if any(_turns(frame)) else matrix_of(frame)


def _upright_size(frame: VideoFrame) -> tuple[int, int]:
    return (frame.width, frame.height) if _turns(frame)[0] else (frame.height, frame.width)


def _upright(image: NDArray[np.uint8], frame: VideoFrame) -> NDArray[np.uint8]:
    transposed, upside_down, mirrored = _turns(frame)
    if transposed:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image[:: -1 if upside_down else 1, :: -1 if mirrored else 1])
