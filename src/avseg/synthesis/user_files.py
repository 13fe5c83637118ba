"""The user's files for a composition, matched by class and divided among the splits."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from avseg.errors import DataError, did_you_mean
from avseg.synthesis.cutouts import MaskedImage, Thing, find_objects, find_pictures, read_classes
from avseg.synthesis.recordings import find_sounds, waveform_without_pauses
from avseg.synthesis.user_stock import Collected, share_out, source_of


class Material(NamedTuple):
    """Files to compose clips from.

    Attributes:
        pictures: Images with their objects.
        sounds: Class name → recordings; the folder's name for a folder without a class in the images.
        backgrounds: Images without objects that sound in this data set.
    """

    pictures: list[MaskedImage]
    sounds: dict[str, list[Path]]
    backgrounds: list[Path]

    @property
    def names(self) -> list[str]:
        """Return label - 1 → class: first classes with images and sounds, then only with images, then only sounds."""
        seen = {thing.name for picture in self.pictures for thing in picture.things}
        audible = set(self.sounds)
        return [*sorted(seen & audible), *sorted(seen - audible), *sorted(audible - seen)]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return label → name of the labels in masks."""
        seen = {thing.name for picture in self.pictures for thing in picture.things}
        return ("background", *sorted(seen & set(self.sounds)))

    @property
    def files(self) -> list[Path]:
        """Return all files."""
        pictures = (path for picture in self.pictures for path in (picture.image, picture.mask))
        sounds = (path for paths in self.sounds.values() for path in paths)
        return sorted({*pictures, *sounds, *self.backgrounds})


def gather(
    images: Path, masks: Path, sounds: Path, classes: Path | None, pairs: str, backgrounds: Path | None, bar: Progress
) -> Material:
    """Find, read and match the files.

    Args:
        images: Folder of images.
        masks: Folder of their masks.
        sounds: Folder with one subfolder of recordings per class.
        classes: CSV of mask values and classes, or None.
        pairs: ``class=folder,...`` for names that differ.
        backgrounds: Folder of background images; None for the images in ``images`` without sounding objects.
        bar: Progress bar.

    Raises:
        DataError: When a file is missing, cannot be read or does not fit.
    """
    files, folders = find_pictures(images), find_sounds(sounds)
    names = read_classes(classes) if classes else None
    pictures = list(bar.track(find_objects(files, images, masks, names), len(files), description="images"))
    seen = {thing.name for picture in pictures for thing in picture.things}
    matched = match(pairs, seen, folders)
    if not seen & set(matched):
        shown, audible = ", ".join(sorted(seen)) or "none", ", ".join(sorted(folders))
        raise DataError(
            f"no class has images and sounds. Images: {shown}. Sounds: {audible}. Use equal names, or give --pairs"
        )
    for path in bar.track([p for paths in matched.values() for p in paths], description="sounds"):
        waveform_without_pauses(path)
    behind = find_pictures(backgrounds) if backgrounds else [p.image for p in pictures if not p.classes & set(matched)]
    return Material(pictures, matched, behind)


def match(pairs: str, seen: Iterable[str], folders: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Return class name → recordings: of the folders paired with it, or of the folder with its name.

    All other folders are added under their own names.

    Args:
        pairs: ``class=folder,...``; a class may be paired with several folders.
        seen: Classes with images.
        folders: Folder name → recordings.

    Raises:
        DataError: When a pair names a class without images or a folder without sounds.
    """
    seen, matched, taken = set(seen), defaultdict[str, list[Path]](list), set()
    for pair in filter(None, pairs.split(",")):
        name, equals, folder = (part.strip() for part in pair.partition("="))
        if not equals:
            raise DataError(f"--pairs holds {pair!r}: expected class=folder, such as person=crying_baby")
        if name not in seen:
            raise DataError(f"--pairs: class {name!r} has no images. {did_you_mean(name, seen)}")
        if folder not in folders:
            raise DataError(f"--pairs: folder {folder!r} has no sounds. {did_you_mean(folder, folders)}")
        matched[name] += folders[folder]
        taken.add(folder)
    for folder, paths in folders.items():
        if folder not in taken and folder not in matched:
            matched[folder] = paths
    return dict(matched)


def divide(material: Material, splits: Sequence[str], seed: int, sound_source: str | None) -> dict[str, Collected]:
    """Divide images and recordings among the splits; no file is in two of them.

    Args:
        material: Result of :func:`gather`.
        splits: Splits to create.
        seed: Seed of the assignment.
        sound_source: See :func:`avseg.synthesis.user_stock.source_of`.

    Raises:
        DataError: When a split has no class with both images and sounds.
    """
    shown: dict[str, list[str]] = {str(p.image): [*p.classes, ""] for p in material.pictures}
    shown.update({str(path): ["", "background"] for path in material.backgrounds if str(path) not in shown})
    owner = share_out(shown, splits, seed)
    sources: dict[str, set[str]] = defaultdict(set)
    for name, paths in material.sounds.items():
        for path in paths:
            sources[source_of(path, sound_source)].add(name)
    sound_owner = share_out(sources, splits, seed)
    label = {name: k for k, name in enumerate(material.names, start=1)}
    stocks = {}
    for split in splits:
        things, sounds = defaultdict[int, list[Thing]](list), defaultdict[int, list[Path]](list)
        own_pictures = [p for p in material.pictures if owner[str(p.image)] == split]
        for thing in (t for p in own_pictures for t in p.things):
            things[label[thing.name]].append(thing)
        for name, paths in material.sounds.items():
            own = [path for path in paths if sound_owner[source_of(path, sound_source)] == split]
            sounds.update({label[name]: own} if own else {})
        if not set(things) & set(sounds):
            raise DataError(f"too few files: {split} has no class with an image and a sound. Give more, or --{split} 0")
        whole = [p for p in own_pictures if any(label.get(name) in sounds for name in p.classes)]
        behind = [path for path in material.backgrounds if owner[str(path)] == split]
        stocks[split] = Collected(split, dict(things), dict(sounds), whole, label, behind)
    return stocks
