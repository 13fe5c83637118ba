"""A benchmark that draws itself: twelve kinds of things that sound, nothing to download.

Each clip shows one to four things of different kinds before a varied background, with camera and object motion and
occlusion. Some sound, some are silent, some are heard without being seen; the masks mark the visible pixels of
what sounds in the second around a frame. Frame k is at k + 0.5 s, sounds switch at whole seconds.

The splits differ in appearance and sound: the range of each parameter (hue, proportion, pitch, tempo, ...) is cut
into cells, and within every cell train, val and test own separate parts
(:data:`avseg.synthesis.sprites.traits.REGIONS`).

Kinds: person (speech), dog (bark), cat (meow), bird (chirps), guitar (plucked strings), drum (strokes), bell
(inharmonic ringing), clock (ticks), ambulance (siren), tractor (engine), helicopter (rotor), chainsaw (buzz).

Two subsets (``ambiguity``) ask for what is hard in audio-visual segmentation (arXiv 2503.12847). *Spatial*: two things
that look alike, one of which sounds; which does a model mark? They are of two kinds, :data:`LOOKALIKES`, told apart by
how each kind sounds: two of one kind could not be told apart by anyone, since looks and voice of a thing are drawn
independently of each other. *Temporal*: sounds that start and stop all the time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from avseg.data._base import AVSDataset, Sample
from avseg.errors import ConfigError
from avseg.interface import Clip, Target
from avseg.media.images import normalise
from avseg.mel import log_mel_at
from avseg.synthesis.scene import Scene, stage
from avseg.synthesis.script import Ambiguity, Variant, write_script
from avseg.synthesis.sprites import creatures, machines, objects, scenery, sounds
from avseg.synthesis.sprites.canvas import CutOut
from avseg.synthesis.sprites.similarity import likeness
from avseg.synthesis.sprites.traits import Traits


class _Kind(NamedTuple):
    name: str
    draw: Callable[[Traits, int], CutOut]
    sound: Callable[[Traits, int], NDArray[np.float64]]


KINDS = (
    _Kind("person", creatures.person, sounds.speech),
    _Kind("dog", creatures.dog, sounds.bark),
    _Kind("cat", creatures.cat, sounds.meow),
    _Kind("bird", creatures.bird, sounds.chirp),
    _Kind("guitar", objects.guitar, sounds.pluck),
    _Kind("drum", objects.drum, sounds.beat),
    _Kind("bell", objects.bell, sounds.ring),
    _Kind("clock", objects.clock, sounds.tick),
    _Kind("ambulance", machines.ambulance, sounds.siren),
    _Kind("tractor", machines.tractor, sounds.engine),
    _Kind("helicopter", machines.helicopter, sounds.rotor),
    _Kind("chainsaw", machines.chainsaw, sounds.saw),
)
"""Label k + 1 is ``KINDS[k]``."""
_NAMES = ("background", *(kind.name for kind in KINDS))

_SPLITS = {"train": 0, "val": 1, "test": 2}


def _pair(one: str, other: str) -> tuple[int, int]:
    return _NAMES.index(one), _NAMES.index(other)


LOOKALIKES = (_pair("dog", "cat"), _pair("drum", "clock"), _pair("ambulance", "tractor"), _pair("guitar", "chainsaw"))
"""Labels of kinds that look alike: animals with fur, something round and pale in a frame of colour, vehicles from the
side, a body with a long neck at any angle. Drawn alike, the two of a pair have more :func:`likeness` (on average 0.57 …
0.74 in the four pairs) than two things of one kind have (0.48)."""
_DRAFTS = 12
"""Of this many drawings of each of the two, the pair most alike is shown."""
_DRAFT = 32
"""Pixels of these drawings."""


class Drawn:
    """The stock of drawn things, with one split's appearance and sound.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        looks: Label → seed of how it looks, for labels that shall not look different every time.
    """

    def __init__(self, split: str, looks: Mapping[int, int] | None = None) -> None:
        self.split = split
        self._looks = looks or {}

    def cut_out(self, label: int, rng: np.random.Generator, px: int) -> CutOut:
        """A drawn thing of that class."""
        if label in self._looks:
            rng = np.random.default_rng(self._looks[label])
        return KINDS[label - 1].draw(Traits(rng, self.split), px)

    def sound(self, label: int, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """A made sound of that class."""
        return KINDS[label - 1].sound(Traits(rng, self.split), count)

    def background(self, rng: np.random.Generator, width: int, height: int) -> Image.Image:
        """A drawn background."""
        return scenery.background(Traits(rng, self.split), width, height)

    def clutter(self, rng: np.random.Generator, px: int) -> Image.Image:
        """A drawn thing that never sounds."""
        return scenery.clutter(Traits(rng, self.split), px)

    def finish(self, rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Exposure, tint and noise."""
        return scenery.through_camera(rng, frames)


def looks_alike(split: str, labels: tuple[int, int], rng: np.random.Generator) -> dict[int, int]:
    """Looks for two labels, for :class:`Drawn`: of a few drawings of each, the two with the greatest likeness.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        labels: The two.
        rng: Source of chance.
    """
    seeds = rng.integers(2**32, size=(2, _DRAFTS)).tolist()
    drafts = [
        [Drawn(split, {label: seed}).cut_out(label, rng, _DRAFT) for seed in row]
        for label, row in zip(labels, seeds, strict=True)
    ]
    one, other = divmod(int(likeness(*drafts).argmax()), _DRAFTS)
    return {labels[0]: seeds[0][one], labels[1]: seeds[1][other]}


class Synthetic(AVSDataset):
    """Drawn things with made sounds; clip ``index`` is a function of seed, split, index and settings alone.

    Args:
        config: Settings.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ConfigError: When a setting cannot work.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of :class:`Synthetic`.

        Attributes:
            variant: ``"s4"``: one thing sounds throughout; in train only the first frame is labelled.
                ``"ms3"``: several start and stop; all frames labelled. ``"avss"``: like ms3, with class labels.
            size: Height and width of the frames, or (height, width).
            frames: T, seconds per clip.
            train: Clips in the split of that name.
            val: Clips in the split of that name.
            test: Clips in the split of that name.
            seed: Another seed, another data set.
            categories: Masks of s4 and ms3 hold the kind of what sounds instead of 1; pictures, sounds and classes stay
                as they are. The masks of avss do so anyway.
            ambiguity: ``"spatial"``: every clip shows two things of :data:`LOOKALIKES`, drawn alike and equally large:
                thing 0 of the :class:`~avseg.synthesis.scene.Scene` sounds, at times or throughout, thing 1 never does.
                ``"temporal"``, not for s4: something that is seen sounds in every clip, and all sounds start or stop
                at about half of the seconds, at least once. ``"none"``: neither is sought.
        """

        variant: Variant = "ms3"
        size: int | tuple[int, int] = 224
        frames: int = 5
        train: int = 2000
        val: int = 100
        test: int = 200
        seed: int = 0
        categories: bool = False
        ambiguity: Ambiguity = "none"

        def __post_init__(self) -> None:
            if self.variant not in ("s4", "ms3", "avss"):
                raise ConfigError(f"variant must be 's4', 'ms3' or 'avss', got {self.variant!r}")
            if min(self.height, self.width) < 8:
                raise ConfigError(f"size must be 8 pixels or more, got {self.size}")
            if min(self.frames, self.train, self.val, self.test) < 1:
                raise ConfigError("frames, train, val and test must be 1 or more")
            if self.seed < 0:
                raise ConfigError(f"seed must be 0 or more, got {self.seed}")
            if self.ambiguity not in get_args(Ambiguity):
                raise ConfigError(f"ambiguity must be 'none', 'spatial' or 'temporal', got {self.ambiguity!r}")
            if self.ambiguity == "temporal" and (self.variant == "s4" or self.frames < 2):
                raise ConfigError(
                    "ambiguity 'temporal' needs sounds that start and stop: variant 'ms3' or 'avss' and frames 2 or "
                    f"more, got {self.variant!r} and {self.frames}"
                )

        @property
        def height(self) -> int:
            """H in pixels."""
            return self.size if isinstance(self.size, int) else self.size[0]

        @property
        def width(self) -> int:
            """W in pixels."""
            return self.size if isinstance(self.size, int) else self.size[1]

    def __init__(self, config: Config, split: str) -> None:
        self.config = config
        self.split = split
        self.class_names = _NAMES if config.variant == "avss" else ("background", "sounding")

    @property
    def category_names(self) -> tuple[str, ...]:
        """Label → name of the labels in the masks: the kinds, where they are told."""
        return _NAMES if self.config.categories else self.class_names

    def __len__(self) -> int:
        return {"train": self.config.train, "val": self.config.val, "test": self.config.test}[self.split]

    def scene(self, index: int) -> Scene:
        """Clip ``index`` with everything known about it: pictures, sound, who sounds when."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        config = self.config
        rng = np.random.default_rng([config.seed, _SPLITS[self.split], index])
        everyone = range(1, len(KINDS) + 1)
        pairs = LOOKALIKES if config.ambiguity == "spatial" else ()
        roles = write_script(
            rng, config.variant, everyone, everyone, config.frames, ambiguity=config.ambiguity, alike=pairs
        )
        looks = looks_alike(self.split, (roles[0].label, roles[1].label), rng) if pairs else {}
        return stage(Drawn(self.split, looks), roles, rng, config.height, config.width, twins=bool(pairs))

    def __getitem__(self, index: int) -> Sample:
        return self.sample_with_scene(index)[0]

    def sample_with_scene(self, index: int) -> tuple[Sample, Scene]:
        """Clip ``index``, and everything known about it."""
        scene = self.scene(index)
        frames, labels = len(scene.frames), torch.from_numpy(scene.masks)
        labelled = torch.ones(1, frames, dtype=torch.bool)
        if self.config.variant == "s4" and self.split == "train":
            labelled[:, 1:] = False
        masks = labels if self.category_names == _NAMES else (labels > 0).long()
        audio = log_mel_at(torch.from_numpy(scene.waveform), torch.arange(frames) + 0.5)
        clip = Clip(normalise(torch.from_numpy(scene.frames))[None], audio[None])
        return Sample(clip, Target(masks[None], labelled), [f"{self.split}-{index:05d}"]), scene
