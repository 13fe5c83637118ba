"""The sound of a composed clip: events with onsets and offsets, their levels, and which frames they are audible in."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter, oaconvolve

from avseg.mel import PATCH_SECONDS, SAMPLE_RATE
from avseg.synthesis.sound_mix import room_response

SOUNDING, SILENT, UNCLEAR = 1, 0, 255
"""States of an event in a frame; ``UNCLEAR`` is not scored."""

AUDIBLE_DB = -20.0
"""An event this far below the loudest of the mixture, or more, is not audible for certain."""
INAUDIBLE_DB = -32.0
"""Below this an event is masked by the others."""
PAUSE_DB = -26.0
"""A window this far below the loudest one of its event is a pause."""
ACTIVE_DB = -14.0
"""Above this it is not."""
QUIET_DBFS = -56.0
"""Level below which an event may be inaudible by itself."""
GATE_DBFS = -62.0
"""Level below which nothing is audible."""


class Event(NamedTuple):
    """One sound source of a clip.

    Attributes:
        wave: (n,) float32, its samples with level, onsets and offsets applied.
        number: Number of its object in the pictures, or 0 for a source off screen.
    """

    wave: NDArray[np.float32]
    number: int


def decibels(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 10 log10 of a mean square; -140 dB at most for nothing."""
    return 10.0 * np.log10(np.maximum(power, 1e-14))


def window_levels(wave: NDArray[np.float32], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the level in dBFS of the 0.96 s around each time; beyond the ends there is silence."""
    total = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
    half = round(PATCH_SECONDS * SAMPLE_RATE / 2)
    centres = np.rint(times * SAMPLE_RATE).astype(np.int64)
    first, last = (np.clip(centres + step, 0, len(wave)) for step in (-half, half))
    return decibels((total[last] - total[first]) / (2 * half))


def states(events: Sequence[Event], mixture: NDArray[np.float32], times: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the state of each event in each frame, (events, T): SOUNDING, SILENT or UNCLEAR.

    An event sounds in a frame when the 0.96 s around it are neither a pause of the event nor masked by the rest of the
    mixture. Between the bounds its state is unclear.
    """
    whole = window_levels(mixture, times)
    rows = np.zeros((len(events), len(times)), np.uint8)
    for row, event in zip(rows, events, strict=True):
        level = window_levels(event.wave, times)
        loudest = max(float(level.max()), QUIET_DBFS)
        sounding = (level > loudest + ACTIVE_DB) & (level > whole + AUDIBLE_DB) & (level > QUIET_DBFS)
        silent = (level < loudest + PAUSE_DB) | (level < whole + INAUDIBLE_DB) | (level < GATE_DBFS)
        row[:] = np.where(silent, SILENT, np.where(sounding, SOUNDING, UNCLEAR))
    return rows


def filled(rng: np.random.Generator, waves: Sequence[NDArray[np.float32]], count: int) -> NDArray[np.float32]:
    """Return ``count`` samples of recordings of one kind, one after the other with pauses, from a random place on."""
    out = np.zeros(count, np.float32)
    place = 0
    while place < count:
        wave = waves[int(rng.integers(len(waves)))]
        start = int(rng.integers(len(wave) // 2 + 1)) if place == 0 else 0
        piece = wave[start : start + count - place]
        out[place : place + len(piece)] = piece
        place += len(piece) + round(float(rng.exponential(0.25)) * SAMPLE_RATE)
    return out


def gate(rng: np.random.Generator, count: int, on: float) -> NDArray[np.float32]:
    """Return (count,) 0..1: a sound that starts and stops at random times; with probability ``on`` it never stops."""
    if rng.random() < on:
        return np.ones(count, np.float32)
    seconds = count / SAMPLE_RATE
    changes = np.cumsum(rng.exponential(max(0.8, 0.4 * seconds), 8))
    at = np.arange(count) / SAMPLE_RATE
    active = (rng.integers(2) + np.searchsorted(changes, at)) % 2 == 1
    fade = round(float(rng.uniform(0.005, 0.06)) * SAMPLE_RATE)
    smooth = np.convolve(active.astype(np.float32), np.full(fade, 1.0 / fade, np.float32), "same")
    return smooth.astype(np.float32)


def at_level(wave: NDArray[np.float32], dbfs: float) -> NDArray[np.float32]:
    """Return the wave with its loudest 0.25 s at this level."""
    size = SAMPLE_RATE // 4
    blocks = np.resize(wave, (max(1, len(wave) // size), size))
    loudest = float((blocks.astype(np.float64) ** 2).mean(1).max())
    return wave * np.float32(10.0 ** (dbfs / 20.0) / max(np.sqrt(loudest), 1e-6))


def coloured_noise(rng: np.random.Generator, count: int, dbfs: float) -> NDArray[np.float32]:
    """Return noise between white and brown at this level."""
    noise = lfilter([1.0], [1.0, -rng.uniform(0.0, 0.98)], rng.standard_normal(count))
    return np.asarray(10.0 ** (dbfs / 20.0) * noise / noise.std(), np.float32)


def hum(rng: np.random.Generator, count: int, dbfs: float) -> NDArray[np.float32]:
    """Return mains hum with harmonics at this level."""
    base = float(rng.choice([50.0, 60.0]))
    at = np.arange(count) / SAMPLE_RATE
    wave = sum(rng.random() / k * np.sin(2 * np.pi * base * k * at + rng.uniform(0, 6.28)) for k in range(1, 8))
    return at_level(np.asarray(wave, np.float32), dbfs)


def reverberated(rng: np.random.Generator, wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the wave in a random room, as long as before."""
    return np.asarray(oaconvolve(wave, room_response(rng))[: len(wave)], np.float32)


def limited(rng: np.random.Generator, wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the wave as a cheap microphone or a lossy codec gives it: high frequencies damped."""
    damping = float(rng.uniform(0.2, 0.8))
    return np.asarray(lfilter([1.0 - damping], [1.0, -damping], wave), np.float32)
