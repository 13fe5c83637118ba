"""A video's sound, heard through a window that moves forward: constant memory, exact in time.

What a window holds equals, sample for sample, what :func:`avseg.mel.mono16k` makes of the whole sound track.
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
from avseg.media.container import Complain, audio_stream, decoded, opened, refuse, seconds
from avseg.mel import PATCH_SAMPLES, SAMPLE_RATE, log_mel_at, mono16k

_TOLERANCE = 0.04
"""Seconds that time stamps may be off before they outweigh the count of samples: Matroska rounds to 1 ms."""
_SILENCE = 1e-4
"""-80 dB: what never rises above it is called silent."""
_HALF_FILTER = 10
"""Half the length of the resampling filter, in samples of the slower rate (scipy's resample_poly)."""


class Block(NamedTuple):
    """Some sound, as decoded, its channels averaged.

    Attributes:
        time: Of the first sample, in seconds since the start of the file; None when it does not say.
        rate: Hz.
        samples: (n,) float32 in -1..1.
    """

    time: float | None
    rate: int
    samples: NDArray[np.float32]


class Sound:
    """The sound track, to be asked about moments in rising order.

    Gaps in the time stamps, and what lies before and after the track, are silence.

    Args:
        blocks: The sound in order, taken when needed; none at all is silence for ever.
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
        """Up to where the sound was read so far, in seconds since the start of the file."""
        return self._origin + self._read / self._rate

    @property
    def silent(self) -> bool:
        """Whether nothing louder than -80 dB was read so far."""
        return self._peak < _SILENCE

    def log_mel_at(self, time: float) -> Tensor:
        """The log-mel patch centred on a moment, as :func:`avseg.mel.log_mel_at` defines it.

        Args:
            time: Seconds since the start of the file; not before the last one asked about.

        Returns:
            (1, 96, 64) float32.
        """
        return log_mel_at(self.waveform_at(time), tensor([PATCH_SAMPLES // 2 / SAMPLE_RATE]))[0]

    def waveform_at(self, time: float) -> Tensor:
        """The 0.975 s of sound centred on a moment: (15600,) float32 at 16 kHz."""
        step = gcd(self._rate, SAMPLE_RATE)
        up, down = SAMPLE_RATE // step, self._rate // step
        start = round((time - self._origin) * SAMPLE_RATE) - PATCH_SAMPLES // 2
        margin = ceil(_HALF_FILTER * max(up, down) / up) + 1
        # A first sample that is a multiple of `down` keeps the resampler in step with the whole track.
        first = (start * down // up - margin) // down * down
        last = ceil((start + PATCH_SAMPLES) * down / up) + margin
        skipped = start - first * up // down
        heard = mono16k(self._window(first, last), self._rate)[skipped : skipped + PATCH_SAMPLES]
        # The filter rings beyond the track's ends, where the resampled whole has no samples.
        heard[: max(-start, 0)] = 0.0
        if self._complete:
            heard[max(ceil(self._read * up / down) - start, 0) :] = 0.0
        return heard

    def finish(self) -> None:
        """Read on to the end, keeping nothing."""
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
            raise MediaError(f"the sound changes from {self._rate} to {block.rate} Hz on the way: convert it to one")
        if block.time is not None:
            gap = round((block.time - self._origin) * self._rate) - self._read
            self._read += gap if gap > _TOLERANCE * self._rate else 0
        self._held.append((self._read, block.samples))
        self._read += len(block.samples)
        self._peak = max(self._peak, float(np.abs(block.samples).max(initial=0.0)))
        return True


def silence() -> Sound:
    """No sound at all, for ever."""
    return Sound(iter(()))


def sound_blocks(path: Path, complain: Complain = refuse) -> Iterator[Block]:
    """The decoded sound of a video, in order; nothing when it has no sound track.

    Args:
        path: The video.
        complain: What to do with damage, see :func:`avseg.media.container.decoded`.
    """
    with opened(path) as container:
        stream = audio_stream(container, path)
        if stream is None:
            return
        for frame in decoded(container, stream, path, complain):
            audio = cast("AudioFrame", frame)
            yield Block(seconds(audio, container), audio.sample_rate, mono(audio))


def sound_of(path: Path) -> Sound:
    """The sound track, to be asked about moments.

    Raises:
        MediaError: When the file is no video, or has no sound.
    """
    with opened(path) as container:
        if audio_stream(container, path) is None:
            raise MediaError(f"{path} has no sound track: audio-visual segmentation needs one, leave this video out")
    return Sound(sound_blocks(path))


def sound_until(path: Path, end: float) -> Tensor:
    """The sound of the first ``end`` seconds of a file, or all there is if that is less.

    Returns:
        (n,) float32 at 16 kHz, the channels' mean; sample 0 is the start of the file.

    Raises:
        MediaError: When the file is no video, has no sound, or is damaged there.
    """
    sound = sound_of(path)
    wanted = round(end * SAMPLE_RATE)
    middles = [(k + 0.5) * PATCH_SAMPLES / SAMPLE_RATE for k in range(ceil(wanted / PATCH_SAMPLES))]
    heard = torch.cat([sound.waveform_at(middle) for middle in middles]) if middles else torch.zeros(0)
    # Of a track longer than that only a little more was read, so this is no limit.
    return heard[: min(wanted, ceil(sound.end * SAMPLE_RATE))]


def read_sound(path: Path) -> NDArray[np.float32]:
    """(n,) at 16 kHz, the channels' mean.

    Raises:
        DataError: When it is no sound that can be read.
    """
    try:
        with av.open(f"file:{path}") as container:
            if not container.streams.audio:
                raise DataError(f"{path} holds no sound")
            rate = container.streams.audio[0].rate
            blocks = [mono(frame) for frame in container.decode(audio=0)]
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path} is not a sound that can be read ({error.strerror})") from None
    waveform = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return mono16k(waveform, rate).numpy()


def write_wave(path: Path, samples: Tensor) -> None:
    """One channel of 16-bit samples at 16 kHz.

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
    """(n,) -1..1, the channels' mean. FFmpeg's own mix to one channel is louder, by the root of two for stereo."""
    samples: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mean: NDArray[np.float64] = samples.mean(0, dtype=np.float64)
    if samples.dtype == np.uint8:
        mean = mean / 128.0 - 1.0
    elif samples.dtype.kind == "i":
        mean /= 2.0 ** (8 * samples.itemsize - 1)
    return mean.astype(np.float32)
