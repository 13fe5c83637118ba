"""Log-mel patches of a waveform as VGGish was trained on, computed with torch.

Source of the constants: Hershey et al., arXiv 1609.09430, and the public VGGish front end. 16 kHz mono; frames of
25 ms every 10 ms, periodic Hann window, 512-point magnitude spectrum; 64 HTK-mel triangles from 125 to 7500 Hz;
log(mel + 0.01); 96 such frames, 0.96 s, are one patch.
"""

from functools import cache
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly
from torch import Tensor

from avseg.errors import MediaError

SAMPLE_RATE = 16_000
"""Hz."""
PATCH_SECONDS = 0.96
BANDS = 64
FRAMES = 96
OFFSET = 0.01
"""Added before the logarithm; silence is ln 0.01."""

_WINDOW, _HOP, _FFT = 400, 160, 512
_LOW, _HIGH = 125.0, 7500.0
_BINS = slice(4, 241)
"""Bins of the spectrum between the bounds of the filters; the others have weight 0."""
_FRAMES_AT_ONCE = 128
"""Frames that are transformed at once: intermediate results of more exceed the cache."""
_BANDS_AT_ONCE = 16
"""Bands that are computed by one product, with the bins of these bands only; the other weights are 0."""
PATCH_SAMPLES = (FRAMES - 1) * _HOP + _WINDOW
"""Samples in one patch: 0.975 s."""


def mono16k(waveform: Tensor | NDArray[np.generic], sample_rate: int) -> Tensor:
    """Convert a waveform to one channel at 16 kHz.

    Args:
        waveform: (n,) or (channels, n); floats in -1..1, or int16.
        sample_rate: Hz.

    Returns:
        (m,) float32.

    Raises:
        MediaError: When shape, type or rate are not as above, or a sample is NaN or infinite.
    """
    x = np.asarray(waveform)
    if x.ndim not in (1, 2) or sample_rate <= 0:
        raise MediaError(
            f"a waveform must be (n,) or (channels, n) at a rate above 0 Hz, got {x.shape} at {sample_rate} Hz"
        )
    if x.dtype == np.int16:
        x = x / 32768.0
    elif not np.issubdtype(x.dtype, np.floating):
        raise MediaError(f"a waveform must be floating point in -1..1 or int16, got {x.dtype}")
    if x.ndim == 2:
        x = x.mean(0, dtype=np.float64)
    if not np.isfinite(x).all():
        raise MediaError("the waveform contains NaN or infinity: decode the sound again")
    if sample_rate != SAMPLE_RATE and x.size:
        step = gcd(sample_rate, SAMPLE_RATE)
        x = resample_poly(x.astype(np.float64), SAMPLE_RATE // step, sample_rate // step)
    return torch.from_numpy(x.astype(np.float32))  # a copy: the caller may change its array


@cache
def _mel_matrix() -> Tensor:
    """Return (257, 64) triangular filters, linear in mel, not normalised by area; the DC bin has weight 0."""

    def mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1127.0 * np.log1p(hertz / 700.0)

    bins = mel(np.linspace(0.0, SAMPLE_RATE / 2, _FFT // 2 + 1))[:, None]
    low, high = mel(np.array([_LOW, _HIGH]))
    edges = np.linspace(low, high, BANDS + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0.0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
    weights[0] = 0.0
    return torch.from_numpy(weights)


@cache
def _groups() -> list[tuple[slice, slice, Tensor]]:
    """Return groups of filters: their bands, their bins counted from the first of _BINS, and float32 weights."""
    weights = _mel_matrix()[_BINS].float()
    groups = []
    for first in range(0, BANDS, _BANDS_AT_ONCE):
        bands = slice(first, first + _BANDS_AT_ONCE)
        used = weights[:, bands].any(1).nonzero()
        bins = slice(int(used[0]), int(used[-1]) + 1)
        groups.append((bands, bins, weights[bins, bands].contiguous()))
    return groups


@cache
def _window() -> Tensor:
    return torch.hann_window(_WINDOW, dtype=torch.float64)


def _spectrogram(x: Tensor) -> Tensor:
    """Return the log-mel spectrogram (frames, 64) of (n,) samples at 16 kHz, without padding at the ends."""
    if x.numel() < _WINDOW:
        return x.new_zeros(0, BANDS, dtype=torch.float32)
    frames = x.unfold(0, _WINDOW, _HOP)
    padded = torch.zeros(min(len(frames), _FRAMES_AT_ONCE), _FFT, dtype=torch.float64)
    mel = torch.empty(len(frames), BANDS)
    for piece, out in zip(frames.split(_FRAMES_AT_ONCE), mel.split(_FRAMES_AT_ONCE), strict=True):
        magnitudes = _magnitudes(piece, padded[: len(piece)])
        for bands, bins, weights in _groups():
            torch.mm(magnitudes[:, bins], weights, out=out[:, bands])
    np.log(mel.add_(OFFSET).numpy(), out=mel.numpy())  # seven times as fast as torch, as is abs below ten times
    return mel


def _magnitudes(frames: Tensor, padded: Tensor) -> Tensor:
    """Return the magnitudes of _BINS of frames (n, 400) in float32; ``padded`` is (n, 512) float64, zero after 400.

    Only the transform needs float64: in float32 the rounding errors of the loudest band would be in all bands. The rest
    adds positive numbers.
    """
    padded[:, :_WINDOW] = frames
    padded[:, :_WINDOW] *= _window()
    spectrum = torch.fft.rfft(padded)[:, _BINS].to(torch.complex64)
    return torch.from_numpy(np.abs(spectrum.numpy()))


def log_mel(waveform: Tensor | NDArray[np.generic], sample_rate: int) -> Tensor:
    """Return consecutive log-mel patches as in VGGish and AVSBench: patch k covers 0.96 k … 0.96 (k + 1) s.

    Args:
        waveform: (n,) or (channels, n); floats in -1..1, or int16.
        sample_rate: Hz.

    Returns:
        (patches, 1, 96, 64) float32; an incomplete last patch is dropped.

    Raises:
        MediaError: As for :func:`mono16k`.
    """
    mel = _spectrogram(mono16k(waveform, sample_rate))
    count = len(mel) // FRAMES
    return mel[: count * FRAMES].reshape(count, 1, FRAMES, BANDS)


def log_mel_at(waveform: Tensor, times: Tensor) -> Tensor:
    """Return one log-mel patch centred at each time; samples outside the waveform are silence.

    Args:
        waveform: (n,) at 16 kHz, from :func:`mono16k`.
        times: (T,) seconds, the centres of the patches.

    Returns:
        (T, 1, 96, 64) float32.
    """
    starts = (times.double() * SAMPLE_RATE).round().long() - PATCH_SAMPLES // 2
    patches = []
    for start in starts.tolist():
        piece = torch.zeros(PATCH_SAMPLES)
        first, last = max(start, 0), min(start + PATCH_SAMPLES, waveform.numel())
        if last > first:
            piece[first - start : last - start] = waveform[first:last]
        patches.append(_spectrogram(piece))
    return torch.stack(patches).unsqueeze(1)
