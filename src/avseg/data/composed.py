"""Clips composed on the fly from photographs with masks and from recordings; unlimited, and reproducible from a seed.

A clip shows a whole photograph, two to four photographs side by side, or cut-outs before a photograph, with camera and
object motion. None, one or two of its classes sound, with onsets and offsets inside the clip; other sounds come from
off screen, or are noise, hum, music or near-silence. In about a third of the frames nothing visible sounds.

Frame k is at k + 0.5 s. An object is labelled in a frame when the 0.96 s around it contain its sound, and ignored when
that is unclear (:func:`avseg.synthesis.soundtrack.states`). The stock of photographs and recordings is a folder
(:mod:`avseg.synthesis.stock`); ``benchmarks/collect_material.py`` builds the one of the bundled model.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from avseg.data._base import AVSDataset, Sample, check_pixels, height_width
from avseg.errors import AvsegWarning, ConfigError, DataError, did_you_mean
from avseg.interface import IGNORE, Clip, Target
from avseg.media.images import normalise
from avseg.mel import SAMPLE_RATE, log_mel_at
from avseg.synthesis import soundtrack
from avseg.synthesis.composition import Composer, Composition, Kind
from avseg.synthesis.soundtrack import Event
from avseg.synthesis.stock import Broken, open_stock

Negative = Literal["silence", "noise", "hum", "off_screen", "background"]

_KINDS: dict[Kind, float] = {"photo": 0.42, "pair": 0.1, "mosaic": 0.2, "paste": 0.28}
_NEGATIVES: dict[Negative, float] = {"silence": 0.15, "noise": 0.15, "hum": 0.05, "off_screen": 0.45, "background": 0.2}
_Name = TypeVar("_Name", bound=str)
_SPLITS = {"train": 0, "val": 1, "test": 2}


class Composed(NamedTuple):
    """A composed clip with its objects, their states and the files used.

    Attributes:
        frames: (T, H, W, 3) uint8.
        waveform: (T · 16000,) float32 at 16 kHz.
        objects: (T, H, W) uint8, number of the object at each pixel; 0 none, 255 unknown.
        classes: Class number of object k + 1.
        states: (objects, T) uint8, see :mod:`avseg.synthesis.soundtrack`.
        files: Photographs, cut-outs and recordings used.
    """

    frames: NDArray[np.uint8]
    waveform: NDArray[np.float32]
    objects: NDArray[np.uint8]
    classes: list[int]
    states: NDArray[np.uint8]
    files: list[str]

    def labels(self, *, categories: bool) -> NDArray[np.int64]:
        """Return (T, H, W): class number, or 1, of objects that sound; 0 elsewhere, 255 where unknown."""
        table = np.zeros((len(self.frames), 256), np.int64)
        numbers = np.array(self.classes if categories else [1] * len(self.classes), np.int64)
        if len(numbers):
            states = self.states.T.astype(np.int64)
            table[:, 1 : len(numbers) + 1] = np.where(states == soundtrack.SOUNDING, numbers, states)
        table[:, IGNORE] = IGNORE
        return table[np.arange(len(table))[:, None, None], self.objects]


class ComposedClips(AVSDataset):
    """Composed clips; clip ``index`` is a function of the stock, seed, split, index and settings alone.

    Args:
        config: Settings.
        split: ``"train"``, ``"val"`` or ``"test"``: the part of the stock with that name, or ``part``.

    Raises:
        ConfigError: When a setting cannot work.
        DataError: When the stock cannot be read, or holds nothing that is both visible and audible.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of :class:`ComposedClips`.

        Attributes:
            root: Folder of the stock.
            part: Part of the stock to use in place of the one named like the split.
            cache: Folder for decoded pixels and samples; ``<root>/.cache`` if null.
            task: ``"binary"``: one class, "sounding". ``"semantic"``: the classes of the stock.
            categories: Masks of the binary task hold the class of each sounding object instead of 1.
            kind: Compose clips of this kind alone: one photograph, two, two to four, or cut-outs before one.
            size: Height and width of the frames, or (height, width).
            frames: T, seconds per clip.
            train: Number of clips in the training split.
            val: Number of clips in the validation split.
            test: Number of clips in the test split.
            negatives: Probability that nothing visible sounds in the whole clip.
            class_weights: Class name → factor of its probability to be shown.
            picture_weights: Beginning of a file's name → factor of its probability among the pictures of its class.
            broken: Raise at a file that cannot be read, or skip such files and name them.
            seed: Seed of the clips.
        """

        root: str = ""
        part: str | None = None
        cache: str | None = None
        task: Literal["binary", "semantic"] = "binary"
        categories: bool = False
        kind: Literal["all", "photo", "pair", "mosaic", "paste"] = "all"
        size: int | tuple[int, int] = 224
        frames: int = 5
        train: int = 10_000
        val: int = 200
        test: int = 500
        negatives: float = 0.28
        class_weights: dict[str, float] = field(default_factory=dict)
        picture_weights: dict[str, float] = field(default_factory=dict)
        broken: Broken = "error"
        seed: int = 0

        def __post_init__(self) -> None:
            if not self.root:
                raise ConfigError("data.root must name a stock folder with classes.yaml, got nothing")
            for name, choices in (
                ("task", ("binary", "semantic")),
                ("kind", ("all", *get_args(Kind))),
                ("broken", get_args(Broken)),
            ):
                if getattr(self, name) not in choices:
                    raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
            if min(height_width(self.size)) < 32:
                raise ConfigError(f"size must be 32 pixels or more, got {self.size}")
            if min(self.frames, self.train, self.val, self.test) < 1:
                raise ConfigError("frames, train, val and test must be 1 or more")
            check_pixels(*height_width(self.size), self.frames)
            if not 0 <= self.negatives <= 1 or self.seed < 0:
                raise ConfigError("negatives must lie in 0 … 1 and seed must be 0 or more")

    def __init__(self, config: Config, split: str) -> None:
        self.config, self.split = config, split
        cache = None if config.cache is None else Path(config.cache)
        self.stock = open_stock(Path(config.root), config.part or split, cache, broken=config.broken)
        names = [self.stock.classes[n].name for n in sorted(self.stock.classes)]
        unknown = sorted(set(config.class_weights) - set(names))
        if unknown:
            raise ConfigError(f"unknown class {unknown[0]!r} in data.class_weights. {did_you_mean(unknown[0], names)}")
        self._names = ("background", *names)
        self.class_names = self._names if config.task == "semantic" else ("background", "sounding")
        height, width = height_width(config.size)
        self._composer = Composer(self.stock, (width, height), config.class_weights, config.picture_weights)
        if gaps := self.stock.gaps():
            warnings.warn(
                f"part {config.part or split} of {config.root}: {'; '.join(gaps)}", AvsegWarning, stacklevel=2
            )
        if not any(self.stock.sounds_of(n) for n in (*self.stock.photos, *self.stock.cutouts)):
            raise DataError(
                f"part {config.part or split} of {config.root} has no class with both pictures and recordings: "
                "add recordings of a class that has pictures, or choose another part with data.part"
            )

    @property
    def category_names(self) -> tuple[str, ...]:
        """Return label → name of the labels in the masks."""
        return self._names if self.config.categories else self.class_names

    def __len__(self) -> int:
        return {"train": self.config.train, "val": self.config.val, "test": self.config.test}[self.split]

    def __getitem__(self, index: int) -> Sample:
        scene = self.compose(index)
        with_categories = self.config.categories or self.config.task == "semantic"
        labels = torch.from_numpy(scene.labels(categories=with_categories))
        times = torch.arange(len(labels)) + self.phase
        audio = log_mel_at(torch.from_numpy(scene.waveform), times)
        clip = Clip(normalise(torch.from_numpy(scene.frames))[None], audio[None])
        target = Target(labels[None], torch.ones(1, len(labels), dtype=torch.bool))
        return Sample(clip, target, [f"{self._sounding_class(scene)}/{self.split}-{index:06d}"])

    def _sounding_class(self, scene: Composed) -> str:
        """Return the class of the sounding object of a clip, ``"several"`` or ``"nothing"``."""
        states = scene.states == soundtrack.SOUNDING
        found = {c for c, row in zip(scene.classes, states, strict=True) if row.any()}
        return "several" if len(found) > 1 else self._names[found.pop()] if found else "nothing"

    def compose(self, index: int) -> Composed:
        """Return clip ``index`` with its objects, their states and the files used.

        Raises:
            IndexError: When there is no such clip.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        rng = np.random.default_rng([self.config.seed, _SPLITS[self.split], index])
        kind: Kind = _choice(rng, _KINDS) if self.config.kind == "all" else self.config.kind
        scene = self._composer.compose(rng, kind)
        events, noise, files = self._soundtrack(rng, scene)
        count = self.config.frames * SAMPLE_RATE
        waveform = np.sum([e.wave for e in events], 0, dtype=np.float32) + noise if events else noise
        if rng.random() < 0.15:
            waveform = soundtrack.limited(rng, waveform)
        waveform /= max(1.0, float(np.abs(waveform).max(initial=0.0)))
        times = np.arange(self.config.frames, dtype=np.float64) + self.phase
        event_states = soundtrack.states(events, waveform[:count], times)
        states = np.zeros((len(scene.classes), self.config.frames), np.uint8)
        for event, row in zip(events, event_states, strict=True):
            if event.number:
                states[event.number - 1] = row
        sounding = {k + 1: (row == soundtrack.SOUNDING).tolist() for k, row in enumerate(states)}
        frames, objects = self._composer.render(rng, scene, sounding, self.config.frames)
        return Composed(frames, waveform, objects, scene.classes, states, [*scene.files, *files])

    def _soundtrack(
        self, rng: np.random.Generator, scene: Composition
    ) -> tuple[list[Event], NDArray[np.float32], list[str]]:
        """Return the events of a clip, its noise (n,) float32, and the recordings used."""
        files: list[str] = []
        count = self.config.frames * SAMPLE_RATE
        audible = [k + 1 for k, c in enumerate(scene.classes) if self.stock.sounds_of(c)]
        floor_level = float(rng.uniform(-85, -48))
        noise = soundtrack.coloured_noise(rng, count, floor_level)
        if not audible or rng.random() < self.config.negatives:
            return self._negative_soundtrack(rng, scene, noise, files)
        sounding = rng.permutation(audible)[: 1 if rng.random() < 0.75 else 2].tolist()
        if scene.moving and set(sounding) & scene.moving:
            sounding = [*[n for n in sounding if n not in scene.moving][:1], int(rng.choice(sorted(scene.moving)))]
        level = float(rng.uniform(-34, -10))
        events = [
            self._event(rng, self._own_sounds(scene, n), n, level - float(rng.uniform(0, 8)) * (k > 0), files)
            for k, n in enumerate(dict.fromkeys(sounding))
        ]
        if rng.random() < 0.25:
            sound_class = self._off_screen(rng, scene, background=rng.random() < 0.5)
            if sound_class is not None:
                events.append(self._event(rng, [sound_class], 0, level - float(rng.uniform(4, 22)), files))
        elif rng.random() < 0.2:
            noise = noise + soundtrack.coloured_noise(rng, count, level - float(rng.uniform(10, 30)))
        return events, noise, files

    def _negative_soundtrack(
        self, rng: np.random.Generator, scene: Composition, noise: NDArray[np.float32], files: list[str]
    ) -> tuple[list[Event], NDArray[np.float32], list[str]]:
        """Return the sounds of a clip in which nothing visible sounds."""
        kind = _choice(rng, _NEGATIVES)
        count = len(noise)
        if kind == "silence":
            return [], noise * np.float32(rng.random() < 0.5), files
        if kind == "noise":
            return [], noise + soundtrack.coloured_noise(rng, count, float(rng.uniform(-60, -15))), files
        if kind == "hum":
            return [], noise + soundtrack.hum(rng, count, float(rng.uniform(-60, -25))), files
        sound_class = self._off_screen(rng, scene, background=kind == "background")
        if sound_class is None:
            return [], noise, files
        return [self._event(rng, [sound_class], 0, float(rng.uniform(-40, -10)), files)], noise, files

    def _event(
        self, rng: np.random.Generator, sound_classes: Sequence[str], number: int, level: float, files: list[str]
    ) -> Event:
        """Return one source at a level in dBFS, made of recordings of one of these sound classes."""
        weights = np.array([len(self.stock.recordings[name]) ** 0.5 for name in sound_classes])
        chosen = int(rng.choice(len(sound_classes), p=weights / weights.sum()))
        recordings = self.stock.recordings[sound_classes[chosen]]
        picked = [recordings[int(i)] for i in rng.integers(len(recordings), size=1 + int(rng.random() < 0.3))]
        files += [p.file for p in picked]
        count = self.config.frames * SAMPLE_RATE
        wave = soundtrack.filled(rng, [self.stock.wave(p) for p in picked], count)
        if rng.random() < 0.3:
            wave = soundtrack.reverberated(rng, wave)
        wave = soundtrack.at_level(wave, level) * soundtrack.gate(rng, count, 0.5)
        return Event(wave.astype(np.float32), number)

    def _own_sounds(self, scene: Composition, number: int) -> list[str]:
        """Return the sound classes of an object, if possible without those of other visible classes."""
        own = scene.classes[number - 1]
        others = {name for c in scene.classes if c != own for name in self.stock.classes[c].sounds}
        sounds = self.stock.sounds_of(own)
        return [name for name in sounds if name not in others] or sounds

    def _off_screen(self, rng: np.random.Generator, scene: Composition, *, background: bool) -> str | None:
        """Return a sound class that no visible class makes; None if there is none."""
        visible = set(scene.classes)
        visible_sounds = {name for c in visible for name in self.stock.classes[c].sounds}
        possible = [
            name
            for name in self.stock.recordings
            if name not in visible_sounds
            and not visible & set(self.stock.background_sounds.get(name, ()))
            and (name in self.stock.background_sounds) == background
        ]
        if not possible:
            return None
        weights = np.array([len(self.stock.recordings[name]) ** 0.5 for name in possible])
        return possible[int(rng.choice(len(possible), p=weights / weights.sum()))]


def _choice(rng: np.random.Generator, chances: Mapping[_Name, float]) -> _Name:
    names = list(chances)
    return names[int(rng.choice(len(names), p=list(chances.values())))]
