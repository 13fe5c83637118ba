"""Synthesised sounds as items of a stock: instruments of a SoundFont, and voices of espeak-ng."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from scipy.io import wavfile
from scipy.signal import fftconvolve, resample_poly

from avseg.errors import DataError
from material.classes import read
from material.masks import load
from material.stock import Item, digest

Samples = npt.NDArray[np.float32]
Note = tuple[float, float, int, int]
"""Start and end in seconds, MIDI note, velocity."""

RATE = 16000
SYNTH_RATE = 48000
SECONDS = 5.0
CLIPS = 30
DRUMS = 128
"""Bank of the drum kits."""
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))


def generator(name: str) -> np.random.Generator:
    """Return random numbers that depend on a name only."""
    return np.random.default_rng(int(digest(name)[:16], 16))


def write_flac(path: Path, samples: Samples) -> None:
    """Write mono samples at 16 kHz.

    Args:
        path: File to write.
        samples: (samples,), between -1 and 1.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        whole = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def melody(spec: dict[str, Any], random: np.random.Generator) -> list[Note]:
    """Return a random melody in a random scale, tempo and loudness; ``chords`` adds thirds and fifths at times."""
    low, high = spec["range"]
    scale = SCALES[random.integers(len(SCALES))]
    root = int(random.integers(12))
    tones = [tone for tone in range(low, high + 1) if (tone - root) % 12 in scale]
    beat, loud = 60 / random.uniform(60, 170), random.uniform(55, 115)
    place, time, notes = int(random.integers(len(tones))), 0.0, list[Note]()
    while time < SECONDS - 0.2:
        length = beat * float(random.choice([0.5, 0.5, 1, 1, 1.5, 2]))
        place = int(np.clip(place + random.integers(-3, 4), 0, len(tones) - 1))
        velocity = int(np.clip(random.normal(loud, 8), 30, 127))
        steps = (0, 2, 4) if spec["playing"] == "chords" and random.random() < 0.4 else (0,)
        if random.random() > 0.08:
            played = {tones[min(place + step, len(tones) - 1)] for step in steps}
            notes += [(time, time + 0.95 * length, tone, velocity) for tone in sorted(played)]
        time += length
    return notes


def tremolo(spec: dict[str, Any], random: np.random.Generator) -> list[Note]:
    """Return a melody whose notes are repeated fast, as on a mandolin."""
    rate = random.uniform(8, 13)
    return [
        (begin, begin + 0.9 / rate, tone, int(np.clip(velocity + random.integers(-10, 10), 30, 127)))
        for start, end, tone, velocity in melody(spec, random)
        for begin in np.arange(start, max(end, start + 0.1), 1 / rate).tolist()
        if begin < SECONDS - 0.1
    ]


def drums(_: dict[str, Any], random: np.random.Generator) -> list[Note]:
    """Return a random pattern of one bar for a drum kit, repeated: bass drum, snare, hi-hat or ride, toms, crash."""
    step = 60 / random.uniform(75, 160) / 2
    bar = [(place, 36) for place in range(8) if place == 0 or random.random() < 0.25]
    bar += [(place, 38) for place in (2, 6)] + [(place, int(random.choice([42, 46, 51]))) for place in range(8)]
    bar += [(place, int(random.choice([41, 45, 48, 38]))) for place in range(8) if random.random() < 0.15]
    notes: list[Note] = [(0.0, 0.5, 49, 100)] if random.random() < 0.5 else []
    for first in range(0, int(SECONDS / step) + 1, 8):
        for place, key in bar:
            start = (first + place) * step
            if start < SECONDS - 0.1:
                notes.append((start, start + 0.1, key, int(random.integers(60, 120))))
    return notes


def ticks(spec: dict[str, Any], random: np.random.Generator) -> list[Note]:
    """Return one note at a steady tempo, as of a metronome."""
    beat, tone = 60 / random.uniform(50, 200), int(random.integers(*spec["range"]))
    return [(start, start + 0.1, tone, 100) for start in np.arange(0.05, SECONDS - 0.1, beat).tolist()]


def ring(spec: dict[str, Any], random: np.random.Generator) -> list[Note]:
    """Return long notes with pauses, as of a telephone."""
    tone, length, pause = int(random.integers(*spec["range"])), random.uniform(0.5, 2), random.uniform(0.3, 2)
    return [(start, start + length, tone, 100) for start in np.arange(0, SECONDS - 0.3, length + pause).tolist()]


PLAYING = {"melody": melody, "chords": melody, "tremolo": tremolo, "drums": drums, "ticks": ticks, "ring": ring}


class Synth:
    """Renders notes with a SoundFont, which is loaded once.

    Args:
        path: ``.sf2`` or ``.sf3`` file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.synth = load("tinysoundfont").Synth(samplerate=SYNTH_RATE)
        self.font = self.synth.sfload(str(path))

    def __call__(self, notes: list[Note], program: int, bank: int) -> Samples:
        """Return mono samples at 16 kHz, 5 s long.

        Raises:
            DataError: When the SoundFont lacks the instrument.
        """
        try:
            self.synth.program_select(0, self.font, bank, program, bank == DRUMS)
        except RuntimeError as error:
            raise DataError(
                f"{self.path} has no program {program} in bank {bank}: use MuseScore_General.sf3"
            ) from error
        events = [(start, 1, tone, velocity) for start, _, tone, velocity in notes]
        events += [(min(end, SECONDS), 0, tone, 0) for _, end, tone, _ in notes]
        chunks, done = list[Samples](), 0
        for time, begins, tone, velocity in [*sorted(events), (SECONDS, -1, 0, 0)]:
            if (until := round(time * SYNTH_RATE)) > done:
                buffer = self.synth.generate(until - done)
                chunks.append(np.frombuffer(bytes(buffer), np.float32).reshape(-1, 2).mean(axis=1))
                done = until
            if begins == 1:
                self.synth.noteon(0, tone, velocity)
            elif begins == 0:
                self.synth.noteoff(0, tone)
        self.synth.sounds_off()
        self.synth.generate(SYNTH_RATE // 10)  # what sounds_off leaves fades here, not in the next clip
        return np.asarray(resample_poly(np.concatenate(chunks), 1, SYNTH_RATE // RATE), np.float32)


def reverberated(samples: Samples, random: np.random.Generator) -> Samples:
    """Return samples with a decaying noise as the echo of a small room."""
    seconds = random.uniform(0.2, 0.7)
    times = np.arange(round(seconds * RATE)) / RATE
    echo = random.standard_normal(times.size) * np.exp(-6.9 * times / seconds)
    wet = fftconvolve(samples, echo / np.linalg.norm(echo))[: samples.size]
    return np.asarray(samples + random.uniform(0.1, 0.35) * wet, np.float32)


@dataclass(frozen=True)
class Rendered:
    """Renders one clip of an instrument.

    Attributes:
        synth: The loaded SoundFont.
        spec: The instrument's row of ``instruments.yaml``.
        name: Name of the clip, which seeds it.
    """

    synth: Synth
    spec: dict[str, Any]
    name: str

    def __call__(self, stem: Path) -> list[tuple[Path, str]]:
        """Write ``<stem>.flac``."""
        random = generator(self.name)
        program = int(random.choice(self.spec["programs"]))
        notes = PLAYING[self.spec["playing"]](self.spec, random)
        samples = self.synth(notes, program, self.spec.get("bank", 0))
        if random.random() < 0.3:
            samples = reverberated(samples, random)
        samples = samples * np.float32(random.uniform(0.3, 0.9) / max(float(np.abs(samples).max()), 1e-4))
        write_flac(path := Path(f"{stem}.flac"), samples)
        return [(path, "sound")]


def instruments(font: Path) -> Iterator[Item]:
    """Yield 30 clips of 5 s for every instrument of ``instruments.yaml``."""
    synth = Synth(font)
    for label, spec in read("instruments.yaml").items():
        for place in range(CLIPS):
            name = f"rendered_{label}_{place:02}"
            source = f"rendered with {font.name}"
            yield Item("sound", label, name, name, "MIT (SoundFont)", "", source, Rendered(synth, spec, name))


@dataclass(frozen=True)
class Spoken:
    """Speaks one sentence with espeak-ng.

    Attributes:
        voice: Name of the voice.
        sentence: Text in the voice's language.
        name: Name of the clip, which seeds pitch and speed.
    """

    voice: str
    sentence: str
    name: str

    def __call__(self, stem: Path) -> list[tuple[Path, str]]:
        """Write ``<stem>.flac``, at most 5 s long."""
        random = generator(self.name)
        flags = ["-p", str(random.integers(20, 85)), "-s", str(random.integers(130, 190))]
        with tempfile.TemporaryDirectory() as folder:
            wave = Path(folder, "voice.wav")
            command = ["espeak-ng", "-v", self.voice, *flags, "-w", str(wave), self.sentence]
            subprocess.run(command, check=True, capture_output=True)
            rate, whole = wavfile.read(wave)
        samples = resample_poly(whole.astype(np.float32) / 32768, RATE, rate)[: round(SECONDS * RATE)]
        write_flac(path := Path(f"{stem}.flac"), np.asarray(samples, np.float32))
        return [(path, "sound")]


def voices() -> Iterator[Item]:
    """Yield the sentences of ``sentences.yaml`` as speech.

    Raises:
        DataError: When espeak-ng is not installed.
    """
    if shutil.which("espeak-ng") is None:
        raise DataError("espeak-ng is not installed, and --voices needs it: install the package espeak-ng")
    for voice, sentences in read("sentences.yaml").items():
        for place, sentence in enumerate(sentences):
            name = f"espeak_{voice.replace('+', '_')}_{place}"
            write = Spoken(voice, sentence, name)
            yield Item("sound", "speech", name, f"espeak:{voice}", "none claimed", "", "espeak-ng", write)
