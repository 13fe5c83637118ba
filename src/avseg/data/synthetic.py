"""A synthetic benchmark: rendered objects of twelve classes with synthesised sounds, no download needed.

Each clip shows one to four objects of different classes before a varied background, with camera and object motion and
occlusion. Objects are sounding, silent, or off screen but audible; the masks mark the visible pixels of the objects
that sound in the second around a frame. Frame k is at k + 0.5 s, sounds switch at whole seconds.

The splits differ in appearance and sound: the range of each parameter (hue, proportion, pitch, tempo, ...) is divided
into cells, and within every cell train, val and test use disjoint parts
(:data:`avseg.synthesis.sprites.traits.REGIONS`).

Classes: person (speech), dog (bark), cat (meow), bird (chirps), guitar (plucked strings), drum (strokes), bell
(inharmonic ringing), clock (ticks), ambulance (siren), tractor (engine), helicopter (rotor), chainsaw (buzz).

Two subsets (``ambiguity``) test hard cases of audio-visual segmentation (arXiv 2503.12847). *Spatial*: two visually
similar objects, of which only one is sounding. They are of two classes, :data:`SIMILAR_KINDS`, which the sound
distinguishes: two objects of one class could not be distinguished, because appearance and sound of an object are
sampled independently. *Temporal*: sounds with frequent onsets and offsets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from avseg.data._base import AVSDataset, Sample, check_pixels, height_width
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


SIMILAR_KINDS = (
    _pair("dog", "cat"),
    _pair("drum", "clock"),
    _pair("ambulance", "tractor"),
    _pair("guitar", "chainsaw"),
)
"""Label pairs of visually similar classes: animals with fur, a pale disc in a coloured frame, vehicles from the side, a
body with a long neck at any angle. Selected for similarity, the two objects of a pair have a higher :func:`likeness`
(on average 0.57 … 0.74 in the four pairs) than two objects of one class (0.48)."""
_DRAFTS = 12
"""Number of candidates per object, of which the most similar pair is shown."""
_DRAFT = 32
"""Size of the candidates in pixels."""


class SpriteStock:
    """Stock of rendered objects and synthesised sounds, with the appearance and sound of one split.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        appearances: Label → seed of its appearance, for labels with a fixed appearance.
    """

    def __init__(self, split: str, appearances: Mapping[int, int] | None = None) -> None:
        self.split = split
        self._appearances = appearances or {}

    def cut_out(self, label: int, rng: np.random.Generator, px: int) -> CutOut:
        """Render an object of that class."""
        if label in self._appearances:
            rng = np.random.default_rng(self._appearances[label])
        return KINDS[label - 1].draw(Traits(rng, self.split), px)

    def sound(self, label: int, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Synthesise a sound of that class."""
        return KINDS[label - 1].sound(Traits(rng, self.split), count)

    def background(self, rng: np.random.Generator, width: int, height: int) -> Image.Image:
        """Render a background."""
        return scenery.background(Traits(rng, self.split), width, height)

    def clutter(self, rng: np.random.Generator, px: int) -> Image.Image:
        """Render an object that never sounds."""
        return scenery.clutter(Traits(rng, self.split), px)

    def finish(self, rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Apply exposure, tint and noise."""
        return scenery.through_camera(rng, frames)


def similar_appearances(split: str, labels: tuple[int, int], rng: np.random.Generator) -> dict[int, int]:
    """Return appearance seeds of two labels, for :class:`SpriteStock`: the most similar pair of several candidates.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        labels: The two labels.
        rng: Random generator.
    """
    seeds = rng.integers(2**32, size=(2, _DRAFTS)).tolist()
    drafts = [
        [SpriteStock(split, {label: seed}).cut_out(label, rng, _DRAFT) for seed in row]
        for label, row in zip(labels, seeds, strict=True)
    ]
    one, other = divmod(int(likeness(*drafts).argmax()), _DRAFTS)
    return {labels[0]: seeds[0][one], labels[1]: seeds[1][other]}


class Synthetic(AVSDataset):
    """Rendered objects with synthesised sounds; clip ``index`` depends only on seed, split, index and settings.

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
            variant: ``"s4"``: one object sounds throughout; in train only the first frame is labelled.
                ``"ms3"``: several start and stop; all frames labelled. ``"avss"``: like ms3, with class labels.
            size: Height and width of the frames, or (height, width).
            frames: T, seconds per clip.
            train: Number of clips in the training split.
            val: Number of clips in the validation split.
            test: Number of clips in the test split.
            seed: Seed of the data set.
            categories: Masks of s4 and ms3 hold the class of the sounding object instead of 1; frames, audio and K do
                not change. The masks of avss always do.
            ambiguity: ``"spatial"``: every clip shows a pair of :data:`SIMILAR_KINDS`, similar and equally large:
                object 0 of the :class:`~avseg.synthesis.scene.Scene` sounds, at times or throughout, object 1 never.
                ``"temporal"``, not for s4: a visible object sounds in every clip, and all sounds start or stop
                at about half of the seconds, at least once. ``"none"``: neither.
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
            if min(height_width(self.size)) < 8:
                raise ConfigError(f"size must be 8 pixels or more, got {self.size}")
            if min(self.frames, self.train, self.val, self.test) < 1:
                raise ConfigError("frames, train, val and test must be 1 or more")
            check_pixels(*height_width(self.size), self.frames)
            if self.seed < 0:
                raise ConfigError(f"seed must be 0 or more, got {self.seed}")
            if self.ambiguity not in get_args(Ambiguity):
                raise ConfigError(f"ambiguity must be 'none', 'spatial' or 'temporal', got {self.ambiguity!r}")
            if self.ambiguity == "temporal" and (self.variant == "s4" or self.frames < 2):
                raise ConfigError(
                    "ambiguity 'temporal' needs sounds that start and stop: variant 'ms3' or 'avss' and frames 2 or "
                    f"more, got {self.variant!r} and {self.frames}"
                )

    def __init__(self, config: Config, split: str) -> None:
        self.config = config
        self.split = split
        self.class_names = _NAMES if config.variant == "avss" else ("background", "sounding")

    @property
    def category_names(self) -> tuple[str, ...]:
        """Return label → name of the labels in the masks: the classes with ``categories``."""
        return _NAMES if self.config.categories else self.class_names

    def __len__(self) -> int:
        return {"train": self.config.train, "val": self.config.val, "test": self.config.test}[self.split]

    def scene(self, index: int) -> Scene:
        """Return the scene of clip ``index``: frames, waveform, objects, and when each sounds."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        config = self.config
        rng = np.random.default_rng([config.seed, _SPLITS[self.split], index])
        labels = range(1, len(KINDS) + 1)
        pairs = SIMILAR_KINDS if config.ambiguity == "spatial" else ()
        roles = write_script(
            rng, config.variant, labels, labels, config.frames, ambiguity=config.ambiguity, alike=pairs
        )
        appearances = similar_appearances(self.split, (roles[0].label, roles[1].label), rng) if pairs else {}
        return stage(SpriteStock(self.split, appearances), roles, rng, *height_width(config.size), twins=bool(pairs))

    def __getitem__(self, index: int) -> Sample:
        return self.sample_with_scene(index)[0]

    def sample_with_scene(self, index: int) -> tuple[Sample, Scene]:
        """Return clip ``index`` and its scene."""
        scene = self.scene(index)
        frames, labels = len(scene.frames), torch.from_numpy(scene.masks)
        labelled = torch.ones(1, frames, dtype=torch.bool)
        if self.config.variant == "s4" and self.split == "train":
            labelled[:, 1:] = False
        masks = labels if self.category_names == _NAMES else (labels > 0).long()
        audio = log_mel_at(torch.from_numpy(scene.waveform), torch.arange(frames) + 0.5)
        clip = Clip(normalise(torch.from_numpy(scene.frames))[None], audio[None])
        return Sample(clip, Target(masks[None], labelled), [f"{self.split}-{index:05d}"]), scene
