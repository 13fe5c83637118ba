"""Sounds for ``benchmarks/distill_audio.py``: recordings by class folder, and notes of General MIDI instruments.

All sounds are decoded once, to 16 kHz mono int16, and kept in one array.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from avseg.errors import ConfigError, DataError
from avseg.files import write_text
from avseg.media.sound import read_sound
from avseg.mel import SAMPLE_RATE
from avseg.synthesis.recordings import find_sounds

Wave = NDArray[np.float32]

DRUMS = 128
"""Index of the drum kit, after the 128 programs of General MIDI."""

_CLIP_SECONDS = 4.0
_FULL_SCALE = 32767.0


@dataclass(frozen=True)
class Folder:
    """A folder of sounds.

    Attributes:
        path: Holds one folder of sound files per class.
        manifest: CSV file with a column ``file`` (path of a sound, of which the last three parts are compared), if any.
        group: Column of the manifest that names the source; sounds of one source are never on both sides of the split.
    """

    path: str
    manifest: str | None = None
    group: str = "source"


@dataclass(frozen=True)
class Entry:
    """One sound of a library: its class, its source, and its samples ``start`` to ``end``."""

    label: str
    group: str
    start: int
    end: int

    @property
    def held_out(self) -> bool:
        """Return whether the source is one of the tenth that is never trained on; decided by a hash of its name."""
        return int(hashlib.sha256(self.group.encode()).hexdigest(), 16) % 10 == 0


@dataclass(frozen=True)
class Library:
    """Decoded sounds.

    Attributes:
        samples: (n,) int16, all sounds one after another.
        entries: Which samples belong to which sound.
    """

    samples: NDArray[np.int16]
    entries: Sequence[Entry]

    def wave(self, entry: Entry) -> Wave:
        """Return a sound as float32 in -1..1."""
        return self.samples[entry.start : entry.end].astype(np.float32) / _FULL_SCALE

    def part(self, *, held_out: bool) -> "Library":
        """Return the sounds of one side of the split."""
        return Library(self.samples, [e for e in self.entries if e.held_out == held_out])


def cached(path: Path, sounds: Iterable[tuple[str, str, Wave]]) -> Library:
    """Return the library at ``path``, made of (class, source, wave) if it is not there yet.

    Args:
        path: ``path.npy`` holds the samples, ``path.json`` the entries.
        sounds: Iterated only if there is no library at ``path``.
    """
    samples, index = path.with_suffix(".npy"), path.with_suffix(".json")
    if not index.is_file():
        pieces, entries, end = [np.zeros(0, np.int16)], [], 0
        for label, group, wave in sounds:
            pieces.append(np.round(wave.clip(-1, 1) * _FULL_SCALE).astype(np.int16))
            entries.append(asdict(Entry(label, group, end, end + len(wave))))
            end += len(wave)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(samples, np.concatenate(pieces))
        write_text(index, json.dumps(entries))
    entries_read = [Entry(**fields) for fields in json.loads(index.read_text(encoding="utf-8"))]
    return Library(np.load(samples, mmap_mode="r"), entries_read)


def recordings(root: Path, folders: Sequence[Folder]) -> Iterator[tuple[str, str, Wave]]:
    """Yield class, source and wave of each recording.

    Raises:
        DataError: When a folder, manifest or sound cannot be read.
    """
    for folder in folders:
        groups = _groups(root, folder)
        found = find_sounds(root / folder.path)
        files = [(label, path) for label, paths in found.items() for path in paths]
        for label, path in track(files, f"decode {folder.path}"):
            yield label, groups.get(_key(path), path.stem), read_sound(path)


def _key(path: Path) -> str:
    return "/".join(path.parts[-3:])


def _groups(root: Path, folder: Folder) -> dict[str, str]:
    """Return last three parts of a file's path → its source."""
    if folder.manifest is None:
        return {}
    try:
        with (root / folder.manifest).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"no manifest {root / folder.manifest}: give a CSV file, or leave manifest out") from error
    if not rows or not {"file", folder.group} <= set(rows[0]):
        raise DataError(
            f"{root / folder.manifest} has no columns 'file' and {folder.group!r}: correct manifest or group"
        )
    return {_key(Path(row["file"])): row[folder.group] or row["file"] for row in rows}


@dataclass(frozen=True)
class Note:
    """A note: seconds from the start, seconds long, MIDI pitch and velocity."""

    start: float
    length: float
    pitch: int
    velocity: int


def phrase(rng: np.random.Generator, *, drums: bool = False) -> list[Note]:
    """Return random notes for a clip: one to three voices, each with its own tempo, in a random register."""
    notes = []
    centre = rng.integers(45, 80)
    for _ in range(rng.integers(1, 4)):
        step = rng.uniform(0.12, 1.2)
        start = rng.uniform(0, 0.5)
        while start < _CLIP_SECONDS - 0.2:
            pitch = rng.integers(35, 82) if drums else centre + rng.integers(-10, 11)
            notes.append(Note(start, step * rng.uniform(0.4, 1.5), int(pitch), int(rng.integers(50, 128))))
            start += step * rng.choice([0.5, 1, 1, 2])
    return notes


def instruments(font: Path, clips: int, seed: int) -> Iterator[tuple[str, str, Wave]]:
    """Yield clips of the 128 General MIDI programs and of the drum kit, 4 s each, peak at -6 dBFS or below.

    Args:
        font: SoundFont file (.sf2 or .sf3).
        clips: Clips per program.
        seed: Seed of the notes.

    Raises:
        ConfigError: When the package ``tinysoundfont`` is not installed.
        DataError: When the file is missing.
    """
    if not font.is_file():
        raise DataError(f"no SoundFont at {font}: install one (Debian: fluid-soundfont-gm) or set soundfonts to []")
    try:
        import tinysoundfont
    except ImportError as error:
        raise ConfigError("instruments need the package tinysoundfont: pip install tinysoundfont") from error
    synth = tinysoundfont.Synth(samplerate=SAMPLE_RATE)
    loaded = synth.sfload(str(font))
    for program in track(range(DRUMS + 1), f"render {font.name}"):
        drums = program == DRUMS
        synth.program_select(0, loaded, 128 if drums else 0, 0 if drums else program, drums)
        for clip in range(clips * (8 if drums else 1)):
            rng = np.random.default_rng([seed, program, clip])
            wave = _render(synth, phrase(rng, drums=drums))
            yield f"midi_{program:03d}", f"midi {font.name} {program} {clip}", wave


def _render(synth: Any, notes: Sequence[Note]) -> Wave:
    """Play the notes on channel 0 of a synthesiser."""
    events = [(n.start, n.pitch, n.velocity) for n in notes] + [(n.start + n.length, n.pitch, 0) for n in notes]
    pieces, time = [], 0.0
    for at, pitch, velocity in [*sorted(events), (_CLIP_SECONDS, 0, 0)]:
        at = min(at, _CLIP_SECONDS)
        count = round(at * SAMPLE_RATE) - round(time * SAMPLE_RATE)
        if count > 0:
            pieces.append(np.frombuffer(bytes(synth.generate(count)), np.float32).reshape(-1, 2).mean(1))
        time = at
        if velocity:
            synth.noteon(0, pitch, velocity)
        else:
            synth.noteoff(0, pitch)
    synth.sounds_off(0)
    wave = np.concatenate(pieces)
    return (wave * min(1.0, 0.5 / max(float(np.abs(wave).max()), 1e-6))).astype(np.float32)
