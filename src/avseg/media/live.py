"""Pictures and sound of live sources: pipes, cameras with microphones, and iterators of arrays, on one clock.

A live source is read once, from front to back, and each picture and each block of sound is used when it comes. A
:class:`Feed` reads on demand, so that a slow reader slows a pipe down; a :class:`ReceivedFeed` reads in threads as fast
as the source delivers, so that the reader can go on with the newest picture.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any, BinaryIO, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from avseg.errors import MediaError
from avseg.media.container import (
    Complain,
    audio_stream,
    check_pixels,
    check_rate,
    decoded,
    opened,
    refuse,
    seconds,
    video_stream,
)
from avseg.media.forking import protect_forks
from avseg.media.sound import Block, mono
from avseg.media.video import Picture, PictureClock

Item = Picture | Block

STDIN = "-"
"""Name of the standard input as a source."""
_KEPT = 10.0
"""Seconds of pictures and sound that wait at most, and by which the sound may be behind the picture."""
_USUAL_STEP = 0.04
"""Seconds that the first picture of an iterator is shown, if it is the only one."""
_POLL = 0.5
"""Seconds between two readings of the clock while nothing comes."""
_PIPE_OPTIONS = {"protocol_whitelist": "pipe,file,crypto,data"}
_PIPE_ADVICE = "a pipe needs a format that is readable from front to back, such as Matroska or MPEG-TS"
_ALSA_CONFIG = "/usr/share/alsa/alsa.conf"
"""Configuration of the system; the FFmpeg of PyAV looks for it in another place."""


@dataclass(frozen=True)
class Live:
    """A camera and a microphone as iterables, a source of :func:`avseg.stream`.

    Both have the same clock, in seconds from any origin, and come in order of time.

    Attributes:
        pictures: Time and RGB image (H, W, 3) uint8 of every picture.
        sound: Time of the first sample and samples of every block, (n,) or (channels, n): floats in -1..1, or int16.
            None without a microphone.
        rate: Sample rate of the sound in Hz.
    """

    pictures: Iterable[tuple[float, NDArray[np.uint8]]]
    sound: Iterable[tuple[float, NDArray[Any]]] | None
    rate: int = 48_000


class Feed:
    """Pictures and sound of a source in order of time, read on demand.

    Args:
        name: Name of the source, for messages.
        items: Pictures; the sound may be between them.
        sound: Sound that does not come with the pictures.
        has_sound: Whether there is sound.

    Attributes:
        name: Name of the source.
        has_sound: Whether there is sound.
        newest: Time of the newest picture that was read.
    """

    def __init__(
        self, name: str, items: Iterator[Item], sound: Iterator[Item] | None = None, *, has_sound: bool = True
    ) -> None:
        self.name, self.has_sound = name, has_sound
        self.newest = -np.inf
        self._items, self._sound = items, items if sound is None else sound
        self._pictures: deque[Picture] = deque()
        self._blocks: deque[Block] = deque()

    def pictures(self) -> Iterator[Picture]:
        """Yield the pictures."""
        while self._pictures or self._read(self._items, self._pictures):
            yield self._pictures.popleft()

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of sound.

        Raises:
            MediaError: When pictures go on for 10 s without sound.
        """
        while self._blocks or self._read(self._sound, self._blocks):
            yield self._blocks.popleft()

    def close(self) -> None:
        """End the reading."""

    def _read(self, origin: Iterator[Item], wanted: deque[Any]) -> bool:
        """Read until there is an item of the wanted kind; return False at the end."""
        while not wanted:
            item = next(origin, None)
            if item is None:
                return False
            self._keep(item)
            self._check(wanted)
        return True

    def _keep(self, item: Item) -> None:
        if isinstance(item, Picture):
            self._pictures.append(item)
            self.newest = item.time
        elif self.has_sound:
            self._blocks.append(item)

    def _check(self, wanted: deque[Any]) -> None:
        """Raise MediaError if the sound is wanted and too far behind the pictures that wait."""
        if wanted is self._blocks and not wanted and self._pictures:
            behind = self.newest - self._pictures[0].time
            if behind > _KEPT:
                raise MediaError(f"{self.name} has had no sound for {behind:.0f} s: check its sound")


class ReceivedFeed(Feed):
    """Feed that is read in threads; what nobody takes is lost after 10 s.

    Args:
        feed: The source, which nothing else reads.
        patience: Seconds without a picture or without sound that are an error; None waits.
    """

    def __init__(self, feed: Feed, patience: float | None = None) -> None:
        super().__init__(feed.name, feed._items, feed._sound, has_sound=feed.has_sound)
        self._patience = patience
        self._changed = Condition()
        self._running: list[Iterator[Item]] = []
        self._error: BaseException | None = None
        self._closed = False
        self._origin: float | None = None

    def start(self) -> None:
        """Start to read."""
        self._running = [self._items] if self._items is self._sound else [self._items, self._sound]
        for origin in list(self._running):
            Thread(target=self._receive, args=[origin], name="avseg-live", daemon=True).start()

    def now(self) -> float | None:
        """Return the time on the clock of the source, by its earliest picture; None before the first one.

        A pipe delivers its first pictures late and together, because FFmpeg reads ahead to find the streams.
        """
        return None if self._origin is None else time.perf_counter() - self._origin

    def close(self) -> None:
        """End the threads, each after its next item."""
        self._closed = True

    def _receive(self, origin: Iterator[Item]) -> None:
        error: BaseException | None = None
        try:
            for item in origin:
                with self._changed:
                    self._keep(item)
                    self._changed.notify_all()
                if self._closed:
                    break
        except BaseException as caught:  # raised again in the thread that takes the items
            error = caught
        with self._changed:
            self._error = self._error or error
            self._running = [other for other in self._running if other is not origin]
            self._changed.notify_all()

    def _keep(self, item: Item) -> None:
        super()._keep(item)
        if isinstance(item, Picture):
            begin = time.perf_counter() - item.time
            self._origin = begin if self._origin is None else min(self._origin, begin)
        while self._pictures and self._pictures[-1].time - self._pictures[0].time > _KEPT:
            self._pictures.popleft()
        while self._blocks and (self._blocks[-1].time or 0.0) - (self._blocks[0].time or 0.0) > _KEPT:
            self._blocks.popleft()

    def _read(self, origin: Iterator[Item], wanted: deque[Any]) -> bool:
        begin = time.perf_counter()
        with self._changed:
            while not wanted:
                if self._error is not None:
                    raise self._error
                if not any(other is origin for other in self._running):
                    return False
                self._changed.wait(_POLL)
                waited = time.perf_counter() - begin
                if not wanted and self._patience is not None and waited > self._patience:
                    what = "sound" if wanted is self._blocks else "picture"
                    raise MediaError(f"{self.name} has had no {what} for {waited:.0f} s: check the device")
        return True


def feed_of(source: object, complain: Complain = refuse) -> Feed | None:
    """Return the feed of a live source; None if the source is the path of a file, or nothing that can be read.

    Args:
        source: ``"-"`` for the standard input, the path of a pipe, a binary file object, a :class:`Live`, or a feed.
        complain: Reaction to damage, see :func:`avseg.media.container.decoded`.

    Raises:
        MediaError: When nothing can be read from the pipe.
    """
    if isinstance(source, Feed):
        return source
    if isinstance(source, Live):
        return _array_feed(source)
    if isinstance(source, str) and source == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise MediaError("the standard input is a terminal: pipe a video into it")
        return _pipe_feed("pipe:0", "the standard input", complain)
    if isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        return _pipe_feed(f"file:{path}", str(path), complain) if path.is_fifo() else None
    if hasattr(source, "read"):
        return _pipe_feed(cast("BinaryIO", source), str(getattr(source, "name", "the file object")), complain)
    return None


def device_feed(camera: str, microphone: str | None, complain: Complain = refuse) -> Feed:
    """Open a camera and a microphone with FFmpeg.

    The clocks of the two are set to the arrival of their first data.

    Args:
        camera: FFmpeg's format and name of the device, such as ``v4l2:/dev/video0``.
        microphone: The same for sound, such as ``alsa:default``; None takes the sound of the camera, if it has any.
        complain: Reaction to damage, see :func:`avseg.media.container.decoded`.

    Raises:
        MediaError: When a device cannot be opened.
    """
    if Path(_ALSA_CONFIG).is_file():
        os.environ.setdefault("ALSA_CONFIG_PATH", _ALSA_CONFIG)
    opening = time.perf_counter()
    container = _open_device(camera, "camera")
    if not container.streams.video:
        raise MediaError(f"{camera} gives no pictures: choose another --camera")
    items = _since(_demuxed(container, camera, complain), opening)
    if microphone is None:
        return Feed(camera, items, has_sound=bool(container.streams.audio))
    sound = _open_device(microphone, "microphone")
    if not sound.streams.audio:
        raise MediaError(f"{microphone} gives no sound: choose another --microphone")
    return Feed(f"{camera} with {microphone}", items, _since(_sound_of(sound, microphone, complain), opening))


def played_feed(path: Path, complain: Complain = refuse) -> Feed:
    """Return the feed of a video file that delivers at the speed of the video, as a device does.

    Raises:
        MediaError: When it is not a video.
    """
    with opened(path) as container:
        has_sound = audio_stream(container, path) is not None

    def items() -> Iterator[Item]:
        with opened(path) as container:
            yield from _demuxed(container, str(path), complain)

    return Feed(str(path), _paced(items()), has_sound=has_sound)


def _pipe_feed(file: str | BinaryIO, name: str, complain: Complain) -> Feed:
    protect_forks()
    try:
        container = cast("InputContainer", av.open(file, metadata_errors="replace", options=dict(_PIPE_OPTIONS)))
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{name} has no video that can be read ({reason}): {_PIPE_ADVICE}") from error
    has_sound = audio_stream(container, Path(name)) is not None
    return Feed(name, _piped(_demuxed(container, name, complain), name), has_sound=has_sound)


def _piped(items: Iterator[Item], name: str) -> Iterator[Item]:
    """Raise MediaError at the end of a pipe that had no picture."""
    empty = True
    for item in items:
        empty = empty and not isinstance(item, Picture)
        yield item
    if empty:
        raise MediaError(f"{name} ended before its first picture: {_PIPE_ADVICE}")


def _open_device(given: str, what: str) -> InputContainer:
    kind, _, name = given.partition(":")
    if not kind or not name:
        raise MediaError(f"a {what} is given as FORMAT:NAME, such as v4l2:/dev/video0 or alsa:default, got {given!r}")
    try:
        return av.open(name, format=kind, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        advice = "give this user access to it" if isinstance(error, PermissionError) else f"check --{what}"
        raise MediaError(f"cannot open the {what} {name} with {kind} ({reason}): {advice}") from error
    except ValueError as error:
        raise MediaError(
            f"FFmpeg has no input {kind!r} for a {what}: give v4l2, alsa, avfoundation or dshow"
        ) from error


def _demuxed(container: InputContainer, name: str, complain: Complain) -> Iterator[Item]:
    """Yield the pictures and the sound of a container in its order, and close it at the end."""
    path = Path(name)
    with container:
        video, audio = video_stream(container, path), audio_stream(container, path)
        clock = PictureClock(container, video, path)
        for frame in decoded(container, video, path, complain, also=audio):
            yield clock.picture(frame) if isinstance(frame, VideoFrame) else _block(frame, container, path)


def _sound_of(container: InputContainer, name: str, complain: Complain) -> Iterator[Item]:
    with container:
        for frame in decoded(container, container.streams.audio[0], Path(name), complain):
            yield _block(frame, container, Path(name))


def _block(frame: Any, container: InputContainer, path: Path) -> Block:
    audio = cast("AudioFrame", frame)
    check_rate(audio.sample_rate, path)
    return Block(seconds(audio, container), audio.sample_rate, mono(audio))


def _since(items: Iterator[Item], opening: float) -> Iterator[Item]:
    """Shift the times so that the first item ends when it comes, in seconds since ``opening``."""
    shift: float | None = None
    for item in items:
        began = item.time or 0.0
        if shift is None:
            length = 0.0 if isinstance(item, Picture) else len(item.samples) / item.rate
            shift = time.perf_counter() - opening - began - length
        if isinstance(item, Picture):
            yield item._replace(time=began + shift, end=item.end + shift)
        else:
            yield item._replace(time=None if item.time is None else began + shift)


def _paced(items: Iterator[Item]) -> Iterator[Item]:
    """Delay every item until its end, counted from the first one."""
    begin: float | None = None
    for item in items:
        if item.time is not None:
            end = item.time if isinstance(item, Picture) else item.time + len(item.samples) / item.rate
            now = time.perf_counter()
            begin = now - end if begin is None else begin
            time.sleep(max(0.0, begin + end - now))
        yield item


def _array_feed(live: Live) -> Feed:
    check_rate(live.rate, Path("the sound"))
    sound = None if live.sound is None else _blocks(live.sound, live.rate)
    return Feed("the source", _pictures(live.pictures), sound or iter(()), has_sound=sound is not None)


def _pictures(given: Iterable[tuple[float, NDArray[np.uint8]]]) -> Iterator[Item]:
    previous: Picture | None = None
    step = _USUAL_STEP
    for moment, image in _in_order(given, "picture"):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise MediaError(f"a picture must be an array (H, W, 3) of uint8, got {_described(image)}")
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        check_pixels(frame, Path("the source"))
        if previous is not None:
            step = moment - previous.time
            if previous.size != image.shape[:2]:
                raise MediaError(f"pictures must keep their size {previous.size}, got {image.shape[:2]}")
        previous = Picture(moment, moment + step, frame)
        yield previous


def _blocks(given: Iterable[tuple[float, NDArray[Any]]], rate: int) -> Iterator[Item]:
    for moment, samples in _in_order(given, "block of sound"):
        if not isinstance(samples, np.ndarray) or samples.ndim not in (1, 2):
            raise MediaError(f"a block of sound must be an array (n,) or (channels, n), got {_described(samples)}")
        if samples.dtype != np.int16 and samples.dtype.kind != "f":
            raise MediaError(f"sound must be floating point in -1..1 or int16, got {samples.dtype}")
        scale = 32768.0 if samples.dtype == np.int16 else 1.0
        wave = np.atleast_2d(samples).mean(0, dtype=np.float64) / scale
        if not np.isfinite(wave).all():
            raise MediaError(f"the sound at {moment:.2f} s contains NaN or infinity: record it again")
        yield Block(moment, rate, wave.astype(np.float32))


def _in_order(given: Iterable[tuple[float, Any]], what: str) -> Iterator[tuple[float, Any]]:
    """Check that times rise."""
    previous = -np.inf
    for moment, values in given:
        if not np.isfinite(moment) or moment <= previous:
            raise MediaError(f"the time of a {what} must be above {previous:g} s, that of the one before, got {moment}")
        previous = float(moment)
        yield previous, values


def _described(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
