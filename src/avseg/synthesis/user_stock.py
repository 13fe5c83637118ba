"""A stock of the user's photographs and recordings."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.interface import IGNORE
from avseg.media.images import read_labels, read_picture
from avseg.synthesis.cutouts import MaskedImage, Thing, cut_out, inside
from avseg.synthesis.recordings import looped_waveform
from avseg.synthesis.sprites import scenery
from avseg.synthesis.sprites.canvas import CutOut
from avseg.synthesis.sprites.traits import Traits

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
"""Shares of the splits in the images and sounds of every class."""


@dataclass(frozen=True)
class Collected:
    """Images and recordings of one split.

    Attributes:
        split: Split of the rendered clutter and backgrounds.
        things: Label → objects of that class.
        sounds: Label → recordings of that class.
        pictures: Images with sounding objects.
        labels: Class name → label.
        backgrounds: Background images; half of the scenes, or all without any image, have a rendered background.
        used: Files used so far, in order.
    """

    split: str
    things: Mapping[int, Sequence[Thing]]
    sounds: Mapping[int, Sequence[Path]]
    pictures: Sequence[MaskedImage]
    labels: Mapping[str, int]
    backgrounds: Sequence[Path]
    used: list[Path] = field(default_factory=list)

    def cut_out(self, label: int, rng: np.random.Generator, px: int) -> CutOut:
        """Return a random object of that class."""
        thing = self.things[label][int(rng.integers(len(self.things[label])))]
        self.used.append(thing.image)
        return cut_out(thing, px)

    def sound(self, label: int, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Return a random recording of that class, from a random offset."""
        path = self.sounds[label][int(rng.integers(len(self.sounds[label])))]
        self.used.append(path)
        return looped_waveform(path, rng, count)

    def background(self, rng: np.random.Generator, width: int, height: int) -> Image.Image:
        """Return a random crop of a background image, or a rendered background."""
        if not self.backgrounds or rng.random() < 0.5:
            return scenery.background(Traits(rng, self.split), width, height)
        path = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        self.used.append(path)
        picture = read_picture(path)
        return picture.resize((width, height), Image.Resampling.LANCZOS, box=_part(rng, picture.size, width, height))

    def whole(self, rng: np.random.Generator, width: int, height: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Return a random crop of an image with objects, and its labels (H, W), 255 where unknown."""
        picture = self.pictures[int(rng.integers(len(self.pictures)))]
        self.used.append(picture.image)
        image, mask = read_picture(picture.image), read_labels(picture.mask)
        labels = np.where(mask == IGNORE, IGNORE, 0).astype(np.uint8)
        for value, name in picture.values.items():
            labels[inside(mask, value)] = self.labels.get(name, 0)
        box = _part(rng, image.size, width, height)
        small = image.resize((width, height), Image.Resampling.LANCZOS, box=box)
        return small, np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST, box=box))

    def clutter(self, rng: np.random.Generator, px: int) -> Image.Image:
        """Render an object that never sounds."""
        return scenery.clutter(Traits(rng, self.split), px)

    def finish(self, rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Apply exposure, tint and noise."""
        return scenery.through_camera(rng, frames)


def _part(
    rng: np.random.Generator, size: tuple[int, int], width: int, height: int
) -> tuple[float, float, float, float]:
    """Return a random box of the aspect ratio ``width`` : ``height``, 0.8 to 1 times the largest possible."""
    shrink = min(size[0] / width, size[1] / height) * float(rng.uniform(0.8, 1.0))
    left, top = rng.random() * (size[0] - width * shrink), rng.random() * (size[1] - height * shrink)
    return left, top, min(left + width * shrink, size[0]), min(top + height * shrink, size[1])


def share_out(sources: Mapping[str, Iterable[str]], splits: Sequence[str], seed: int) -> dict[str, str]:
    """Assign each source to a split, such that every class is divided as closely to :data:`SHARES` as possible.

    A class with as many sources as splits has one in each, unless other classes share them.

    Args:
        sources: Source (an image or a recording) → its classes.
        splits: Splits to create.
        seed: Seed of the assignment.
    """
    classes = {source: tuple(names) for source, names in sources.items()}
    total = Counter(name for names in classes.values() for name in names)
    order = np.random.default_rng(seed).permutation(np.array(sorted(classes), dtype=object)).tolist()
    order.sort(key=lambda source: min((total[name] for name in classes[source]), default=0))
    have: Counter[tuple[str, str]] = Counter()
    whole = sum(SHARES[split] for split in splits)

    def need(source: str, split: str) -> float:
        return sum(
            SHARES[split] / whole - have[name, split] / total[name] + (not have[name, split])
            for name in classes[source]
        )

    chosen: dict[str, str] = {}
    for source in order:
        chosen[source] = max(splits, key=lambda split: need(source, split))
        have.update((name, chosen[source]) for name in classes[source])
    return chosen


def source_of(path: Path, pattern: str | None) -> str:
    """Return the source of a file: its name, or the first group of a regular expression found in the name."""
    found = re.search(pattern, path.name) if pattern else None
    return f"{path.parent.name}/{found.group(1) if found else path.name}"
