"""Random windows of sound for ``benchmarks/distill_audio.py``: crops, mixtures, noise, reverberation, levels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from avseg.mel import PATCH_SAMPLES, SAMPLE_RATE
from sound_library import Entry, Library, Wave

_AUDIBLE = 1e-3
"""Peak below which a crop counts as a pause."""


@dataclass(frozen=True)
class Mixing:
    """Probabilities and ranges of the random windows.

    Attributes:
        instruments: Part of the sounds that are rendered instruments.
        second: Probability of a second sound, 0 to 20 dB below or above the first.
        noise: Probability of added noise, 0 to 40 dB below the sound.
        reverb: Probability of reverberation.
        equalise: Probability of a random equaliser or low-pass filter.
        speed: Probability of playback at 0.8 to 1.25 times the speed.
        empty: Probability of a window without a sound: digital silence or noise.
        quiet: Probability of a peak of -80 to -40 dBFS instead of -40 to 0.
    """

    instruments: float = 0.25
    second: float = 0.4
    noise: float = 0.4
    reverb: float = 0.25
    equalise: float = 0.35
    speed: float = 0.25
    empty: float = 0.06
    quiet: float = 0.1


class Mixer:
    """Random windows of the sounds of a library.

    Args:
        library: Sounds to draw from; classes are drawn by the square root of their number of sounds.
        mixing: Probabilities.
    """

    def __init__(self, library: Library, mixing: Mixing) -> None:
        self._library, self._mixing = library, mixing
        kinds: dict[bool, dict[str, list[Entry]]] = {True: {}, False: {}}
        for entry in library.entries:
            kinds[entry.label.startswith("midi_")].setdefault(entry.label, []).append(entry)
        self._kinds = {kind: _Classes(list(of.values())) for kind, of in kinds.items() if of}

    def window(self, rng: np.random.Generator) -> Wave:
        """Return a random window, (15600,) float32 in -1..1."""
        chance = self._mixing
        if rng.random() < chance.empty:
            wave = np.zeros(PATCH_SAMPLES) if rng.random() < 0.3 else coloured_noise(rng, PATCH_SAMPLES)
        else:
            wave = self._sound(rng)
            if rng.random() < chance.second:
                wave = add(wave, self._sound(rng), rng.uniform(-20, 20))
            if rng.random() < chance.reverb:
                wave = reverberate(wave, rng)
            if rng.random() < chance.equalise:
                wave = equalise(wave, rng)
            if rng.random() < chance.noise:
                wave = add(wave, coloured_noise(rng, PATCH_SAMPLES), rng.uniform(-40, 0))
        level = rng.uniform(-80, -40) if rng.random() < chance.quiet else rng.uniform(-40, 0)
        return (wave * 10 ** (level / 20) / max(float(np.abs(wave).max()), 1e-9)).astype(np.float32)

    def _sound(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return a random crop of a random sound; a crop in a pause is sampled again, at most twice."""
        instrument = rng.random() < self._mixing.instruments
        kind = instrument if instrument in self._kinds else not instrument
        wave = self._library.wave(self._kinds[kind].draw(rng))
        if rng.random() < self._mixing.speed:
            wave = change_speed(wave, rng.uniform(0.8, 1.25))
        for _ in range(3):
            piece = crop(wave, rng)
            if np.abs(piece).max() > _AUDIBLE:
                break
        return piece


class _Classes:
    """Entries by class."""

    def __init__(self, classes: Sequence[Sequence[Entry]]) -> None:
        self._classes = classes
        weights = np.sqrt([len(entries) for entries in classes])
        self._weights = weights / weights.sum()

    def draw(self, rng: np.random.Generator) -> Entry:
        entries = self._classes[int(rng.choice(len(self._classes), p=self._weights))]
        return entries[int(rng.integers(len(entries)))]


def crop(wave: Wave, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random window; a shorter sound is repeated or lies at a random place in silence."""
    spare = len(wave) - PATCH_SAMPLES
    if spare >= 0:
        start = rng.integers(spare + 1)
        return wave[start : start + PATCH_SAMPLES].astype(np.float64)
    if len(wave) and rng.random() < 0.4:
        return np.roll(np.resize(wave.astype(np.float64), PATCH_SAMPLES), rng.integers(PATCH_SAMPLES))
    out = np.zeros(PATCH_SAMPLES)
    start = rng.integers(-spare + 1)
    out[start : start + len(wave)] = wave
    return out


def change_speed(wave: Wave, factor: float) -> Wave:
    """Return the wave played ``factor`` times as fast, by linear interpolation."""
    places = np.arange(0, max(len(wave) - 1, 0), factor)
    return np.interp(places, np.arange(len(wave)), wave).astype(np.float32) if len(wave) else wave


def add(wave: NDArray[np.float64], other: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Add a sound whose power is ``level`` dB above that of the first; if either is silent, both stay as they are."""
    powers = float(np.mean(wave**2)), float(np.mean(other**2))
    gain = np.sqrt(powers[0] / powers[1]) if min(powers) > 0 else 1.0
    return wave + gain * 10 ** (level / 20) * other


def coloured_noise(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return white, pink or brown noise."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 20.0)
    noise: NDArray[np.float64] = np.fft.irfft(spectrum / frequency ** rng.choice([0.0, 0.5, 1.0]), count)
    return noise


def reverberate(wave: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Convolve with noise that decays by 60 dB in 0.1 to 1 s, mixed with the dry sound."""
    seconds = rng.uniform(0.1, 1.0)
    count = int(seconds * SAMPLE_RATE)
    response = rng.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    response /= np.sqrt(np.sum(response**2))
    wet: NDArray[np.float64] = fftconvolve(wave, response)[: len(wave)]
    return wave + float(rng.uniform(0.1, 1.0)) * wet


def equalise(wave: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Apply a smooth random gain of up to ±12 dB over frequency, or a low-pass filter at 1 to 7 kHz."""
    frequency = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    if rng.random() < 0.5:
        octaves = np.log2(np.maximum(frequency, 62.5))
        gain = np.interp(octaves, np.linspace(octaves[0], octaves[-1], 7), rng.uniform(-12, 12, 7))
    else:
        gain = -24 * np.maximum(np.log2(np.maximum(frequency, 1.0) / rng.uniform(1000, 7000)), 0)
    equalised: NDArray[np.float64] = np.fft.irfft(np.fft.rfft(wave) * 10 ** (gain / 20), len(wave))
    return equalised
