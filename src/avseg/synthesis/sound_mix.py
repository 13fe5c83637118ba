"""Mix the waveform of a scene: each source with its own level and sounding seconds, all in one simulated room."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter, oaconvolve

from avseg.mel import SAMPLE_RATE
from avseg.synthesis.script import Role

_FADE = 160
"""Samples of the fade-in and fade-out within the sounding seconds: 10 ms."""

Source = Callable[[int, np.random.Generator, int], NDArray[np.float64]]


def mix(source: Source, roles: Sequence[Role], rng: np.random.Generator, seconds: int) -> NDArray[np.float32]:
    """Return the mixed sounds of the roles over a noise floor, (seconds · 16000,) float32, peak at most 1.

    Args:
        source: Returns the sound of a label: (label, rng, samples) → samples, peak 1.
        roles: Sounding seconds of each object.
        rng: Random generator.
        seconds: Length.
    """
    count = seconds * SAMPLE_RATE
    floor = lfilter([1.0], [1.0, -rng.uniform(0.0, 0.95)], rng.standard_normal(count))
    out = 10.0 ** rng.uniform(-4.0, -2.5) * floor / floor.std()
    room = room_response(rng)
    for role in roles:
        wave = oaconvolve(source(role.label, rng, count), room)[:count]
        level = 10.0 ** rng.uniform(-0.9, -0.2) / max(float(np.abs(wave).max()), 1e-9)
        out += level * wave * _gate(role.sounds)
    return np.asarray(out / max(1.0, float(np.abs(out).max())), dtype=np.float32)


def room_response(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the impulse response of a room and a microphone: reverberation of random length and level, random tilt."""
    length = int(rng.uniform(0.01, 0.25) * SAMPLE_RATE)
    echo = rng.standard_normal(length) * np.exp(-6.0 * np.arange(length) / length)
    echo *= rng.uniform(0.0, 0.6) / np.sqrt((echo**2).sum())
    echo[0] = 1.0
    return np.convolve(echo, [1.0, -rng.uniform(-0.4, 0.6)])


def _gate(sounds: Sequence[bool]) -> NDArray[np.float64]:
    """Return the gain per sample: 1 in the sounding seconds, 0 outside, with fades inside them."""
    gate = np.repeat(np.asarray(sounds, dtype=np.float64), SAMPLE_RATE)
    ramp = np.arange(_FADE) / _FADE
    for k in range(1, len(sounds)):
        at = k * SAMPLE_RATE
        if sounds[k] and not sounds[k - 1]:
            gate[at : at + _FADE] = ramp
        if sounds[k - 1] and not sounds[k]:
            gate[at - _FADE : at] = ramp[::-1]
    return gate
