"""The sound of a scene: every voice in the same room, at its own level, in its own seconds."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter, oaconvolve

from avseg.mel import SAMPLE_RATE
from avseg.synthesis.script import Role

_FADE = 160
"""Samples in which a sound swells and ends, within its seconds: 10 ms."""

Voice = Callable[[int, np.random.Generator, int], NDArray[np.float64]]


def mix(voice: Voice, roles: Sequence[Role], rng: np.random.Generator, seconds: int) -> NDArray[np.float32]:
    """(seconds · 16000,) float32: the roles' sounds over a noise floor, peak at most 1.

    Args:
        voice: Makes the sound of a label: (label, rng, samples) → samples, peak 1.
        roles: Who sounds when.
        rng: Source of chance.
        seconds: Length.
    """
    count = seconds * SAMPLE_RATE
    floor = lfilter([1.0], [1.0, -rng.uniform(0.0, 0.95)], rng.standard_normal(count))
    out = 10.0 ** rng.uniform(-4.0, -2.5) * floor / floor.std()
    room = room_response(rng)
    for role in roles:
        wave = oaconvolve(voice(role.label, rng, count), room)[:count]
        level = 10.0 ** rng.uniform(-0.9, -0.2) / max(float(np.abs(wave).max()), 1e-9)
        out += level * wave * _gate(role.sounds)
    return np.asarray(out / max(1.0, float(np.abs(out).max())), dtype=np.float32)


def room_response(rng: np.random.Generator) -> NDArray[np.float64]:
    """Impulse response of a room and a microphone: an echo of random length and strength, a random tilt."""
    length = int(rng.uniform(0.01, 0.25) * SAMPLE_RATE)
    echo = rng.standard_normal(length) * np.exp(-6.0 * np.arange(length) / length)
    echo *= rng.uniform(0.0, 0.6) / np.sqrt((echo**2).sum())
    echo[0] = 1.0
    return np.convolve(echo, [1.0, -rng.uniform(-0.4, 0.6)])


def _gate(sounds: Sequence[bool]) -> NDArray[np.float64]:
    """1 in the seconds of sound, 0 outside, with fades that lie within."""
    gate = np.repeat(np.asarray(sounds, dtype=np.float64), SAMPLE_RATE)
    ramp = np.arange(_FADE) / _FADE
    for k in range(1, len(sounds)):
        at = k * SAMPLE_RATE
        if sounds[k] and not sounds[k - 1]:
            gate[at : at + _FADE] = ramp
        if sounds[k - 1] and not sounds[k]:
            gate[at - _FADE : at] = ramp[::-1]
    return gate
