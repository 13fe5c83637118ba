"""Read a video's audio track in a window that moves forward: constant memory, exact timing.

A window equals, sample for sample, the same part of :func:`avseg.mel.mono16k` applied to the whole audio track.
"""

import wave
from collections import deque
from collections.abc import Iterator
from itertools import chain
from math import ceil, gcd
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import numpy as np
import torch
from av.audio.frame import AudioFrame
from numpy.typing import NDArray
from torch import Tensor, tensor

from avseg.errors import DataError, MediaError
from avseg.media.container import (
    Complain,
    audio_stream,
    check_rate,
    decodable,
    decoded,
    open_media,
    opened,
    refuse,
    seconds,
)
from avseg.mel import PATCH_SAMPLES, SAMPLE_RATE, log_mel_at, mono16k

_TOLERANCE = 0.04
"""Seconds by which a time stamp must exceed the sample count to be a gap: Matroska rounds time stamps to 1 ms."""
_SILENCE = 1e-4
"""Peak of a silent track: -80 dB."""
_HALF_FILTER = 10
"""Half the length of the resampling filter, in samples of the slower rate (scipy's resample_poly)."""


class Block(NamedTuple):
    """A block of decoded audio, channels averaged.

    Attributes:
        time: Time of the first sample, in seconds since the start of the file; None without a time stamp.
        rate: Sample rate in Hz.
        samples: (n,) float32 in -1..1.
    """

    time: float | None
    rate: int
    samples: NDArray[np.float32]


class Sound:
    """Audio track that is read at times in increasing order.

    Gaps in the time stamps, and times before and after the track, are silence.

    Args:
        blocks: Audio blocks in order, consumed on demand; no blocks give silence.
    """

    def __init__(self, blocks: Iterator[Block]) -> None:
        first = next(blocks, Block(0.0, SAMPLE_RATE, np.zeros(0, np.float32)))
        self._blocks = chain([first], blocks)
        self._rate = first.rate
        self._origin = first.time or 0.0
        self._held: deque[tuple[int, NDArray[np.float32]]] = deque()
        self._read = 0
        self._complete = False
        self._peak = 0.0

    @property
    def end(self) -> float:
        """Return the time up to which the track has been read, in seconds since the start of the file."""
        return self._origin + self._read / self._rate

    @property
    def silent(self) -> bool:
        """Return whether the peak of the track read so far is below -80 dB."""
        return self._peak < _SILENCE

    def log_mel_at(self, time: float) -> Tensor:
        """Return the log-mel patch centred on a time, as defined by :func:`avseg.mel.log_mel_at`.

        Args:
            time: Seconds since the start of the file; not before the time of the previous call.

        Returns:
            (1, 96, 64) float32.
        """
        return log_mel_at(self.waveform_at(time), tensor([PATCH_SAMPLES // 2 / SAMPLE_RATE]))[0]

    def waveform_at(self, time: float) -> Tensor:
        """Return the samples of the patch centred on a time: (15600,) float32 at 16 kHz, 0.975 s."""
        step = gcd(self._rate, SAMPLE_RATE)
        up, down = SAMPLE_RATE // step, self._rate // step
        start = round((time - self._origin) * SAMPLE_RATE) - PATCH_SAMPLES // 2
        margin = ceil(_HALF_FILTER * max(up, down) / up) + 1
        # A first sample that is a multiple of `down` keeps the resampler in phase with the whole track.
        first = (start * down // up - margin) // down * down
        last = ceil((start + PATCH_SAMPLES) * down / up) + margin
        skipped = start - first * up // down
        waveform = mono16k(self._window(first, last), self._rate)[skipped : skipped + PATCH_SAMPLES]
        # The filter rings beyond the track's ends, where the resampled track has no samples.
        waveform[: max(-start, 0)] = 0.0
        if self._complete:
            waveform[max(ceil(self._read * up / down) - start, 0) :] = 0.0
        return waveform

    def finish(self) -> None:
        """Read to the end without keeping samples."""
        while self._read_block():
            self._held.clear()

    def _window(self, first: int, last: int) -> NDArray[np.float32]:
        while self._read < last and self._read_block():
            while self._held and self._held[0][0] + len(self._held[0][1]) <= first:
                self._held.popleft()
        window = np.zeros(last - first, np.float32)
        for position, samples in self._held:
            low, high = max(position, first), min(position + len(samples), last)
            if low < high:
                window[low - first : high - first] = samples[low - position : high - position]
        return window

    def _read_block(self) -> bool:
        block = next(self._blocks, None)
        if block is None:
            self._complete = True
            return False
        if block.rate != self._rate:
            raise MediaError(f"the audio changes from {self._rate} to {block.rate} Hz: convert it to one sample rate")
        if block.time is not None:
            gap = round((block.time - self._origin) * self._rate) - self._read
            self._read += gap if gap > _TOLERANCE * self._rate else 0
        self._held.append((self._read, block.samples))
        self._read += len(block.samples)
        self._peak = max(self._peak, float(np.abs(block.samples).max(initial=0.0)))
        return True


def silence() -> Sound:
    """Return a silent track."""
    return Sound(iter(()))


def sound_blocks(path: Path, complain: Complain = refuse) -> Iterator[Block]:
    """Decode the audio of a video, in order; no blocks without an audio track.

    Args:
        path: The video.
        complain: Reaction to damage, see :func:`avseg.media.container.decoded`.
    """
    with opened(path) as container:
        stream = audio_stream(container, path)
        if stream is None:
            return
        for frame in decoded(container, stream, path, complain):
            audio = cast("AudioFrame", frame)
            check_rate(audio.sample_rate, path)
            yield Block(seconds(audio, container), audio.sample_rate, mono(audio))


def sound_of(path: Path) -> Sound:
    """Open the audio track of a video.

    Raises:
        MediaError: When the file is not a video, or has no audio track.
    """
    with opened(path) as container:
        if audio_stream(container, path) is None:
            raise MediaError(f"{path} has no sound track: audio-visual segmentation needs one, leave this video out")
    return Sound(sound_blocks(path))


def sound_until(path: Path, end: float) -> Tensor:
    """Read the audio of the first ``end`` seconds of a file, or of the whole file if it is shorter.

    Returns:
        (n,) float32 at 16 kHz, mean of the channels; sample 0 is the start of the file.

    Raises:
        MediaError: When the file is not a video, has no audio track, or is damaged in this part.
    """
    sound = sound_of(path)
    wanted = round(end * SAMPLE_RATE)
    pieces = []
    for k in range(ceil(wanted / PATCH_SAMPLES)):
        pieces.append(sound.waveform_at((k + 0.5) * PATCH_SAMPLES / SAMPLE_RATE))
        if sound.end * SAMPLE_RATE <= (k + 1) * PATCH_SAMPLES:  # the track has ended
            break
    waveform = torch.cat(pieces) if pieces else torch.zeros(0)
    # A longer track has been read beyond `wanted`, so that sound.end shortens only shorter tracks.
    return waveform[: min(wanted, ceil(sound.end * SAMPLE_RATE))]


def read_sound(path: Path) -> NDArray[np.float32]:
    """Read an audio file, (n,) at 16 kHz, mean of the channels.

    Raises:
        DataError: When it has no audio, or cannot be read.
    """
    if not path.is_file():
        raise DataError(f"cannot read {path} as audio: it is not a file")
    try:
        with open_media(path) as container:
            if not container.streams.audio:
                raise DataError(f"{path} has no audio stream: give an audio file")
            stream = decodable(container.streams.audio, path)
            rate = stream.rate
            check_rate(rate, path)
            blocks = [mono(frame) for frame in container.decode(stream)]
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"cannot read {path} as audio ({error.strerror})") from None
    waveform = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return mono16k(waveform, rate).numpy()


def write_wave(path: Path, samples: Tensor) -> None:
    """Write a WAV file: one channel, 16 bits, 16 kHz.

    Args:
        path: The file to write.
        samples: (n,) in -1..1.
    """
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples.clamp(-1, 1) * 32767.0).round().numpy().astype("<i2").tobytes())


def mono(frame: AudioFrame) -> NDArray[np.float32]:
    """Return the mean of the channels, (n,) in -1..1.

    FFmpeg's own downmix to one channel is louder, by the square root of two for stereo.
    """
    samples: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mean: NDArray[np.float64] = samples.mean(0, dtype=np.float64)
    if samples.dtype == np.uint8:
        mean = mean / 128.0 - 1.0
    elif samples.dtype.kind == "i":
        mean /= 2.0 ** (8 * samples.itemsize - 1)
    return mean.astype(np.float32)
