"""Compose a data set from your own images, masks and sounds (``avseg data compose``).

Cut-outs of the images are arranged like the rendered objects of the built-in benchmark, each with a recording of its
class: objects that start and stop, silent objects, sounds from off screen; the masks follow from the arrangement.
Pairing images and sounds by class alone is the method of VPO (Chen et al., arXiv 2304.02970).
"""

import dataclasses
import hashlib
import json
import os
import re
import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image
from rich.progress import Progress

from avseg.colours import palette
from avseg.errors import ConfigError, DataError
from avseg.files import recover, replacing, write_text
from avseg.interface import IGNORE, SPLITS
from avseg.mel import SAMPLE_RATE
from avseg.synthesis.scene import Scene, stage
from avseg.synthesis.script import Variant, write_script
from avseg.synthesis.stage import Setting, setting_size
from avseg.synthesis.user_files import Material, divide, gather
from avseg.synthesis.user_stock import Collected


@dataclass(frozen=True)
class ComposeSettings:
    """Settings of :func:`compose`.

    Attributes:
        images: Folder of images; with ``classes`` in any order, else ``<class>/<any name>.jpg``.
        masks: Folder of masks, ``x.png`` for ``x.jpg``: palette or grey, values are classes (without ``classes`` any
            but 0), 255 is ignored.
        sounds: Folder of recordings, ``<class>/<any name>.wav`` (or flac, ogg, mp3, ...).
        out: Folder to write; an interrupted composition is resumed.
        classes: CSV with the columns ``mask_value`` and ``class``.
        pairs: Folders of sounds for classes of another name: ``person=crying_baby,bird=rooster``.
        backgrounds: Folder of background images; null for the images in ``images`` without sounding objects. Half of
            the backgrounds are rendered.
        whole: Share of clips that show a whole image with its own objects, as in VPO; the others show cut-outs. Set 0
            if the masks do not mark every object that could sound.
        sound_source: Regular expression with a group that matches the common part in the names of takes of one
            recording, which are then kept in one split.
        variant: Sounding seconds and labels, see the data set ``synthetic``.
        size: Height and width of the frames in pixels, or (height, width).
        frames: Seconds, and frames, per clip.
        train: Number of clips in the training split; 0 for no such split.
        val: Number of clips in the validation split.
        test: Number of clips in the test split.
        seed: Seed of the data set.
    """

    images: str
    masks: str
    sounds: str
    out: str
    classes: str | None = None
    pairs: str = ""
    backgrounds: str | None = None
    whole: float = 0.5
    sound_source: str | None = None
    variant: Variant = "avss"
    size: int | tuple[int, int] = 224
    frames: int = 5
    train: int = 700
    val: int = 150
    test: int = 150
    seed: int = 0

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise ConfigError(f"variant must be 's4', 'ms3' or 'avss', got {self.variant!r}")
        if min(self.shape) < 8:
            raise ConfigError(f"size must be 8 pixels or more, got {self.size}")
        if self.frames < 1 or min(self.counts.values()) < 0 or not any(self.counts.values()) or self.seed < 0:
            raise ConfigError("frames must be 1 or more; train, val, test and seed 0 or more, and not all splits 0")
        if not 0.0 <= self.whole <= 1.0:
            raise ConfigError(f"whole must be between 0 and 1, got {self.whole}")
        try:
            groups = re.compile(self.sound_source or "()").groups
        except re.error as error:
            raise ConfigError(f"sound_source {self.sound_source!r} is not a regular expression: {error}") from None
        if groups < 1:
            raise ConfigError(f"sound_source {self.sound_source!r} needs a group: put the common part in parentheses")

    @property
    def shape(self) -> tuple[int, int]:
        """Return H and W."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def counts(self) -> dict[str, int]:
        """Return split → number of clips."""
        return {"train": self.train, "val": self.val, "test": self.test}


def compose(settings: ComposeSettings, *, progress: bool = True) -> Path:
    """Write a data set that is read by ``folder``.

    Clips are written atomically, and ``dataset.json`` when all clips are complete: the same command resumes an
    interrupted composition.

    Args:
        settings: Settings of the composition.
        progress: Show progress bars.

    Returns:
        The folder, ``settings.out``.

    Raises:
        ConfigError: When a setting cannot work.
        DataError: When a file is missing, cannot be read or written, or does not fit the others.
    """
    out = Path(settings.out)
    splits = [split for split in SPLITS if settings.counts[split]]
    with Progress(disable=not progress, transient=True) as bar:
        material = gather(
            Path(settings.images), Path(settings.masks), Path(settings.sounds),
            Path(settings.classes) if settings.classes else None, settings.pairs,
            Path(settings.backgrounds) if settings.backgrounds else None, bar,
        )  # fmt: skip
        stocks = divide(material, splits, settings.seed, settings.sound_source)
        card = _card(settings, material)
        try:
            if _begin(out, card):
                jobs = [(split, k) for split in splits for k in range(settings.counts[split])]
                for split, k in bar.track(jobs, description="clips"):
                    _make(settings, material, stocks[split], out / split / f"{k:05d}", k)
                os.replace(out / _UNFINISHED, out / _FINISHED)
        except OSError as error:
            raise DataError(f"cannot write {out}: {error}") from None
    return out


_LARGE = 0.02
"""Smallest part of the image that a sounding object covers."""
_FINISHED, _UNFINISHED = "dataset.json", ".dataset.json"


def _card(settings: ComposeSettings, material: Material) -> dict[str, Any]:
    """Return the content of ``dataset.json``: class names, variant, sizes and settings."""
    made = {k: v for k, v in asdict(settings).items() if k not in ("out", "variant", "frames", "size", "seed")}
    sizes = "\n".join(f"{path.as_posix()} {path.stat().st_size}" for path in material.files)
    return {
        "class_names": list(material.class_names),
        "variant": settings.variant,
        "frames": settings.frames,
        "size": list(settings.shape),
        "seed": settings.seed,
        "source": {**made, "files": hashlib.sha256(sizes.encode()).hexdigest()},
    }


def _begin(out: Path, card: dict[str, Any]) -> bool:
    """Prepare the folder; return False if it is already complete.

    Raises:
        DataError: When it has other content.
    """
    text = json.dumps(card, indent=2) + "\n"
    recover(out / _UNFINISHED)
    for name in (_FINISHED, _UNFINISHED):
        if (out / name).is_file():
            if (out / name).read_text(encoding="utf-8") != text:
                raise DataError(f"{out} holds a data set of other settings or files: give another -o, or remove it")
            return name == _UNFINISHED
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not a data set: give a new folder")
    write_text(out / _UNFINISHED, text)
    return True


def _make(settings: ComposeSettings, material: Material, stock: Collected, folder: Path, index: int) -> None:
    """Compose and write one clip, unless it exists."""
    if folder.exists():
        return
    stock = dataclasses.replace(stock, used=[])
    rng = np.random.default_rng([settings.seed, SPLITS.index(stock.split), index])
    scene = _scene(settings, stock, rng)
    names = material.names
    story = {
        "things": [
            {"class": names[label - 1], "seen": seen, "sounds": sounds}
            for label, seen, sounds in zip(scene.labels, scene.seen, scene.sounds.tolist(), strict=True)
        ],
        "files": sorted({path.as_posix() for path in stock.used}),
    }
    with replacing(folder) as temporary:
        _write(temporary, scene, story)


def _scene(settings: ComposeSettings, stock: Collected, rng: np.random.Generator) -> Scene:
    """Compose a whole image with probability ``whole``, if a large enough object in it has sounds; else cut-outs."""
    (height, width), audible = settings.shape, sorted(stock.sounds)
    if stock.pictures and rng.random() < settings.whole:
        image, labels = stock.whole(rng, *setting_size((width, height)))
        top, left = len(labels) // 6, len(labels[0]) // 6  # the camera may not show the margin
        shares = np.bincount(labels[top:-top, left:-left].reshape(-1), minlength=256) / labels.size
        large = [label for label in range(1, IGNORE) if shares[label] >= _LARGE]
        if set(large) & set(audible):
            cast = [label for label in range(1, IGNORE) if (labels == label).any()]
            roles = write_script(rng, settings.variant, large, audible, settings.frames, cast)
            numbers = np.zeros(256, dtype=np.uint8)
            numbers[[role.label for role in roles if role.seen]] = [k for k, r in enumerate(roles, 1) if r.seen]
            numbers[IGNORE] = IGNORE
            return stage(stock, roles, rng, height, width, Setting(image, Image.fromarray(numbers[labels])))
    roles = write_script(rng, settings.variant, sorted(stock.things), audible, settings.frames)
    return stage(stock, roles, rng, height, width)


def _write(folder: Path, scene: Scene, story: dict[str, Any]) -> None:
    """Write the files of one clip; ``clip.json`` lists its objects and source files."""
    for name in ("frames", "masks"):
        (folder / name).mkdir(parents=True)
    for k, (frame, mask) in enumerate(zip(scene.frames, scene.masks.astype(np.uint8), strict=True)):
        Image.fromarray(frame).save(folder / "frames" / f"{k}.jpg", quality=95)
        labels = Image.fromarray(mask)
        labels.putpalette(palette().tobytes())
        labels.save(folder / "masks" / f"{k}.png")
    with wave.open(str(folder / "audio.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((scene.waveform * 32767.0).round().astype("<i2").tobytes())
    (folder / "clip.json").write_text(json.dumps(story) + "\n", encoding="utf-8")
