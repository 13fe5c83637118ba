"""Synthesise the sounds of the rendered objects: each function returns any number of samples at 16 kHz, peak 1.

Each sound has an event in every 0.9 s, so that a sounding object is audible in each patch.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, lfilter, sosfilt

from avseg.mel import SAMPLE_RATE
from avseg.synthesis.sprites.traits import Traits

Wave = NDArray[np.float64]


def _peak(x: Wave) -> Wave:
    return x / max(float(np.abs(x).max()), 1e-9)


def _dense(x: Wave, drive: float) -> Wave:
    """Raise the level of short peaks by soft limiting."""
    return _peak(np.tanh(drive * _peak(x)))


def _seconds(count: int) -> Wave:
    return np.arange(count) / SAMPLE_RATE


def _band(x: Wave, low: float, high: float) -> Wave:
    return np.asarray(sosfilt(butter(2, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos"), x))


def _resonate(x: Wave, hertz: float, width: float) -> Wave:
    """Apply a formant: a two-pole resonator with approximately unit gain at its centre."""
    radius = np.exp(-np.pi * width / SAMPLE_RATE)
    poles = [1.0, -2.0 * radius * np.cos(2 * np.pi * hertz / SAMPLE_RATE), radius**2]
    return np.asarray(lfilter([1.0 - radius], poles, x))


def _phase(hertz: Wave) -> Wave:
    """Return the accumulated cycles of an oscillator with this frequency at each sample."""
    return np.cumsum(hertz) / SAMPLE_RATE


def _pulses(hertz: Wave) -> Wave:
    """Return one impulse per cycle."""
    turns = np.floor(_phase(hertz))
    return np.diff(turns, prepend=0.0)


def _buzz(hertz: Wave) -> Wave:
    """Return a sawtooth wave."""
    return 2.0 * (_phase(hertz) % 1.0) - 1.0


def _fill(count: int, pieces: Iterator[Wave]) -> Wave:
    """Concatenate pieces to ``count`` samples."""
    out, at = np.zeros(count), 0
    while at < count:
        piece = next(pieces)[: count - at]
        out[at : at + len(piece)] = piece
        at += len(piece)
    return out


def _strike(t: Traits, count: int, gap: tuple[float, float], event: Callable[[], Wave]) -> Wave:
    """Add overlapping events, ``gap`` seconds apart."""
    out, at = np.zeros(count), -int(t.free(0.0, gap[0]) * SAMPLE_RATE)
    while at < count:
        wave = event()
        first = max(0, -at)
        wave = wave[first : count - at]
        out[at + first : at + first + len(wave)] += wave
        at += int(t.free(*gap) * SAMPLE_RATE)
    return out


_VOWELS = (
    (730, 1090, 2440),
    (530, 1840, 2480),
    (270, 2290, 3010),
    (570, 840, 2410),
    (300, 870, 2240),
    (490, 1350, 1690),
)


def speech(t: Traits, count: int) -> Wave:
    """Synthesise syllables of a man, a woman or a child: pulses through formants, fricatives, pauses (person)."""
    pitch, rate = t.pitch(85.0, 320.0), t.uniform(3.6, 6.2)
    tract = (pitch / 120.0) ** 0.22  # higher voices have shorter vocal tracts
    breath = t.uniform(0.01, 0.05)

    def syllables() -> Iterator[Wave]:
        left = int(t.free(2, 8))
        while True:
            n = int(SAMPLE_RATE / rate * t.free(0.7, 1.4))
            s = np.linspace(0.0, 1.0, n)
            tone = pitch * t.free(0.85, 1.2) * (1.0 + 0.08 * np.sin(np.pi * s) - t.free(0.0, 0.15) * s)
            source = lfilter([8.0], [1.0, -0.9], _pulses(tone) + breath * t.rng.standard_normal(n))
            voice = (1.0 - s) * _vowel(t, source, tract) + s * _vowel(t, source, tract)
            yield t.free(0.5, 1.0) * voice * np.sin(np.pi * s) ** 0.5
            if t.chance(0.4):
                m = int(SAMPLE_RATE * t.free(0.04, 0.09))
                low = t.free(2200.0, 4000.0)
                yield 0.12 * _band(t.rng.standard_normal(m), low, min(7600.0, low * 1.9)) * np.hanning(m)
            left -= 1
            if left < 0:
                left = int(t.free(2, 8))
                yield np.zeros(int(SAMPLE_RATE * t.free(0.12, 0.35)))

    return _peak(_fill(count, syllables()))


def _vowel(t: Traits, source: Wave, tract: float) -> Wave:
    formants = enumerate(t.pick(_VOWELS))
    return sum(
        (_resonate(source, f * tract, 70.0 + 40.0 * k) * (1.0, 0.8, 0.6)[k] for k, f in formants),
        np.zeros(len(source)),
    )


def bark(t: Traits, count: int) -> Wave:
    """Synthesise short, rough bursts with a rising, then falling pitch (dog)."""
    pitch, rough, length = t.pitch(220.0, 620.0), t.uniform(0.25, 0.7), t.uniform(0.09, 0.2)
    pause = t.uniform(0.12, 0.45)

    def event() -> Wave:
        n = int(SAMPLE_RATE * length * t.free(0.85, 1.2))
        s = np.linspace(0.0, 1.0, n)
        tone = pitch * t.free(0.92, 1.08) * (1.0 + 0.7 * np.sin(np.pi * np.minimum(1.0, 1.6 * s)))
        source = _buzz(tone) * (1.0 - rough) + rough * t.rng.standard_normal(n)
        mouth = _resonate(source, pitch * 2.2, 260.0) + 0.7 * _resonate(source, pitch * 4.6, 420.0)
        return mouth * np.minimum(1.0, s * 14.0) * np.exp(-3.2 * s)

    return _peak(_strike(t, count, (length + pause, length + pause + 0.15), event))


def meow(t: Traits, count: int) -> Wave:
    """Synthesise long vowels that open and close, with rising and falling pitch (cat)."""
    pitch, length, bend = t.pitch(420.0, 820.0), t.uniform(0.42, 0.72), t.uniform(0.15, 0.5)

    def calls() -> Iterator[Wave]:
        while True:
            yield np.zeros(int(SAMPLE_RATE * t.free(0.02, 0.22)))
            n = int(SAMPLE_RATE * length * t.free(0.85, 1.15))
            s = np.linspace(0.0, 1.0, n)
            turns = _phase(pitch * t.free(0.93, 1.07) * (1.0 + bend * np.sin(np.pi * s**0.7) - 0.2 * s))
            mouth = 900.0 + 1900.0 * np.sin(np.pi * s**0.8) ** 2
            wave = np.zeros(n)
            for k in range(1, 9):
                near = np.exp(-(((k * pitch - mouth) / 900.0) ** 2))
                wave += (near + 0.35 / k) * np.sin(2 * np.pi * k * turns)
            yield wave * np.sin(np.pi * s) ** 0.6

    return _peak(_fill(count, calls()))


def chirp(t: Traits, count: int) -> Wave:
    """Synthesise short whistles between 2 and 7 kHz: rising, falling, warbling (bird)."""
    pitch, length, width = t.pitch(2300.0, 5200.0), t.uniform(0.05, 0.2), t.uniform(0.1, 0.4)
    pause, kind = t.uniform(0.03, 0.2), t.pick(("rise", "fall", "arch", "trill"))
    quiver = t.uniform(18.0, 40.0)

    def notes() -> Iterator[Wave]:
        while True:
            for _ in range(t.pick((2, 3, 5))):
                n = int(SAMPLE_RATE * length * t.free(0.8, 1.25))
                s = np.linspace(0.0, 1.0, n)
                shape = {
                    "rise": s,
                    "fall": 1.0 - s,
                    "arch": np.sin(np.pi * s),
                    "trill": np.sin(quiver * 6.28 * _seconds(n)),
                }
                turns = _phase(np.minimum(7200.0, pitch * (1.0 + width * (shape[kind] - 0.3))))
                yield np.sin(2 * np.pi * turns) * np.sin(np.pi * s) ** 0.5
                yield np.zeros(int(SAMPLE_RATE * pause))
            yield np.zeros(int(SAMPLE_RATE * t.free(0.0, 0.25)))

    return _peak(_fill(count, notes()))


def pluck(t: Traits, count: int) -> Wave:
    """Synthesise plucked strings by the closed form of Karplus-Strong synthesis (guitar)."""
    root, beat, sustain = t.pitch(82.0, 250.0), 1.0 / t.uniform(2.2, 6.0), t.uniform(0.992, 0.999)
    scale = t.pick(((0, 4, 7, 12, 16), (0, 3, 7, 12, 15), (0, 7, 12, 19), (0, 2, 4, 7, 9, 12)))

    def event() -> Wave:
        period = round(SAMPLE_RATE / (root * 2.0 ** (t.pick(scale) / 12.0)))
        spectrum = np.fft.rfft(t.rng.uniform(-1.0, 1.0, period))
        spectrum[0] = 0.0
        # averaging neighbours once per period multiplies harmonic k by cos(pi k / period)
        fade = sustain * np.cos(np.pi * np.arange(len(spectrum)) / period)
        rounds = np.arange(int(1.3 * SAMPLE_RATE / period))[:, None]
        return np.asarray(np.fft.irfft(spectrum * fade**rounds, period, axis=1).reshape(-1))

    return _peak(_strike(t, count, (beat * 0.95, beat * 1.05), event))


def beat(t: Traits, count: int) -> Wave:
    """Synthesise drum strokes: a tone of falling pitch with a noisy attack (drum)."""
    pitch, snare, decay = t.pitch(130.0, 330.0), t.uniform(0.1, 0.8), t.uniform(9.0, 22.0)
    tempo = 1.0 / t.uniform(2.2, 5.5)
    s = _seconds(int(0.45 * SAMPLE_RATE))

    def event() -> Wave:
        tone = np.sin(2 * np.pi * _phase(pitch * (0.75 + 0.6 * np.exp(-s * 45.0))))
        hiss = t.rng.standard_normal(len(s)) * np.exp(-s * decay * 2.0) * snare * 0.5
        return t.free(0.55, 1.0) * (tone * np.exp(-s * decay) + hiss)

    return _peak(_strike(t, count, (tempo * 0.97, tempo * 1.03), event))


def ring(t: Traits, count: int) -> Wave:
    """Synthesise bell strokes: inharmonic partials with long decay (bell)."""
    pitch, decay = t.pitch(420.0, 1500.0), t.uniform(1.2, 4.5)
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.66, 3.01, 4.07]) * (1.0 + 0.03 * t.rng.standard_normal(8))
    loud = np.array([0.5, 1.0, 0.7, 0.4, 0.8, 0.5, 0.4, 0.3]) * t.rng.uniform(0.5, 1.0, 8)
    gap = t.uniform(0.38, 0.8)
    s = _seconds(int(1.6 * SAMPLE_RATE))
    keep = ratios * pitch < 7600.0
    partials = np.sin(2 * np.pi * np.outer(ratios[keep] * pitch, s)) * np.exp(-np.outer(decay * ratios[keep] ** 0.7, s))
    stroke: Wave = loud[keep] @ partials

    def event() -> Wave:
        return t.free(0.7, 1.0) * stroke

    return _peak(_strike(t, count, (gap, gap * 1.08), event))


def tick(t: Traits, count: int) -> Wave:
    """Synthesise dry clicks, every other one lower (clock)."""
    pitch, gap, dull = t.pitch(1900.0, 4800.0), 1.0 / t.uniform(1.6, 5.0), t.uniform(0.65, 0.95)
    n = int(0.06 * SAMPLE_RATE)
    click = t.rng.standard_normal(n) * np.exp(-_seconds(n) * 900.0)
    tones = [_peak(_resonate(click, f, 350.0) + 0.15 * click) for f in (pitch, pitch * dull)]
    turn = iter(range(10**6))

    def event() -> Wave:
        return tones[next(turn) % 2]

    return _dense(_strike(t, count, (gap * 0.99, gap * 1.01), event), 4.0)


def siren(t: Traits, count: int) -> Wave:
    """Synthesise a siren: wail, yelp or two tones (ambulance)."""
    low, span = t.pitch(520.0, 820.0), t.uniform(1.35, 2.1)
    kind = t.pick(("wail", "yelp", "two tones"))
    rate = {"wail": t.uniform(0.25, 0.6), "yelp": t.uniform(2.4, 4.2), "two tones": t.uniform(0.7, 1.3)}[kind]
    place = (rate * _seconds(count) + t.free(0.0, 1.0)) % 1.0
    glide = np.where(place < 0.5, 0.0, 1.0) * 0.75 if kind == "two tones" else 0.5 - 0.5 * np.cos(2 * np.pi * place)
    turns = _phase(low * span**glide)
    return _peak(np.tanh(t.uniform(1.0, 4.0) * np.sin(2 * np.pi * turns)))


def engine(t: Traits, count: int) -> Wave:
    """Synthesise slow engine strokes over a rumble (tractor)."""
    firing, body, sway = t.pitch(17.0, 42.0), t.pitch(140.0, 330.0), t.uniform(0.02, 0.15)
    speed = firing * (1.0 + sway * np.sin(2 * np.pi * t.free(0.2, 0.7) * _seconds(count) + t.free(0.0, 6.28)))
    blows = _pulses(speed) * (1.0 + 0.25 * t.rng.standard_normal(count))
    noise = t.rng.standard_normal(count)
    thump = _resonate(blows * 60.0 + 0.3 * noise, body, 90.0) + 0.5 * _resonate(blows * 60.0, body * 2.7, 180.0)
    return _dense(thump, 4.0)


def rotor(t: Traits, count: int) -> Wave:
    """Synthesise noise modulated by the blades, with a turbine tone (helicopter)."""
    blades, top = t.pitch(8.5, 15.0), t.pitch(900.0, 2600.0)
    chop = 0.5 + 0.5 * np.cos(2 * np.pi * _phase(np.full(count, blades)) + t.free(0.0, 6.28))
    wash = _band(t.rng.standard_normal(count), 90.0, top)
    whine = np.sin(2 * np.pi * _phase(t.pitch(2400.0, 5200.0) * (1.0 + 0.01 * np.sin(3.0 * _seconds(count)))))
    return _peak(wash * (0.12 + chop ** t.uniform(2.0, 6.0)) + t.uniform(0.005, 0.03) * whine)


def saw(t: Traits, count: int) -> Wave:
    """Synthesise the buzz of a small motor with varying speed (chainsaw)."""
    idle, rev, swing = t.pitch(75.0, 120.0), t.uniform(1.25, 1.9), t.uniform(0.4, 1.1)
    place = np.clip(1.4 * np.sin(2 * np.pi * swing * _seconds(count) + t.free(0.0, 6.28)), -1.0, 1.0)
    buzz = _buzz(idle * rev ** (1.0 + place))
    harsh = np.tanh(2.5 * (buzz + 0.25 * t.rng.standard_normal(count)))
    return _peak(_band(harsh, 220.0, 7400.0) * (0.7 + 0.3 * place))
