"""Everything a composition is made of: the user's files, matched by class and divided among the splits."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from avseg.errors import DataError, did_you_mean
from avseg.synthesis.cutouts import Picture, Thing, find_pictures, open_album, read_classes
from avseg.synthesis.recordings import find_sounds, waveform_without_pauses
from avseg.synthesis.user_stock import Collected, share_out, source_of


class Material(NamedTuple):
    """What there is.

    Attributes:
        pictures: What is in each picture.
        sounds: Class → recordings; for a folder that is no picture's class, the folder's name.
        backgrounds: Pictures without anything that sounds in this data set.
    """

    pictures: list[Picture]
    sounds: dict[str, list[Path]]
    backgrounds: list[Path]

    @property
    def names(self) -> list[str]:
        """Label - 1 → class: first what is both seen and heard, then what is only seen, then what is only heard."""
        seen = {thing.name for picture in self.pictures for thing in picture.things}
        heard = set(self.sounds)
        return [*sorted(seen & heard), *sorted(seen - heard), *sorted(heard - seen)]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Label → name for the labels a mask can hold."""
        seen = {thing.name for picture in self.pictures for thing in picture.things}
        return ("background", *sorted(seen & set(self.sounds)))

    @property
    def files(self) -> list[Path]:
        """All files."""
        pictures = (path for picture in self.pictures for path in (picture.image, picture.mask))
        sounds = (path for paths in self.sounds.values() for path in paths)
        return sorted({*pictures, *sounds, *self.backgrounds})


def gather(
    images: Path, masks: Path, sounds: Path, classes: Path | None, pairs: str, backgrounds: Path | None, bar: Progress
) -> Material:
    """Find, read and match the files.

    Args:
        images: Folder of pictures.
        masks: Folder of their masks.
        sounds: Folder with a folder of recordings per class.
        classes: CSV of mask values and classes, or None.
        pairs: ``class=folder,...`` where names differ.
        backgrounds: Folder of pictures to stand before, or None: those of ``images`` that show nothing that sounds.
        bar: Shows how far it is.

    Raises:
        DataError: When anything is missing, cannot be read or does not fit.
    """
    files, folders = find_pictures(images), find_sounds(sounds)
    names = read_classes(classes) if classes else None
    album = bar.track(open_album(files, images, masks, names), len(files), description="pictures")
    pictures = list(album)
    seen = {thing.name for picture in pictures for thing in picture.things}
    matched = match(pairs, seen, folders)
    if not seen & set(matched):
        shown, heard = ", ".join(sorted(seen)) or "nothing", ", ".join(sorted(folders))
        raise DataError(f"no class has pictures and sounds. Seen: {shown}. Heard: {heard}. Name them alike, or --pairs")
    for path in bar.track([p for paths in matched.values() for p in paths], description="sounds"):
        waveform_without_pauses(path)
    behind = find_pictures(backgrounds) if backgrounds else [p.image for p in pictures if not p.classes & set(matched)]
    return Material(pictures, matched, behind)


def match(pairs: str, seen: Iterable[str], folders: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Class → recordings: of the folders paired with it, else of the folder with its name; then all other folders.

    Args:
        pairs: ``class=folder,...``; a class may be paired with several folders.
        seen: Classes there are pictures of.
        folders: Folder → recordings.

    Raises:
        DataError: When a pair names a class without pictures or a folder without sounds.
    """
    seen, matched, taken = set(seen), defaultdict[str, list[Path]](list), set()
    for pair in filter(None, pairs.split(",")):
        name, equals, folder = (part.strip() for part in pair.partition("="))
        if not equals:
            raise DataError(f"--pairs holds {pair!r}: expected class=folder, such as person=crying_baby")
        if name not in seen:
            raise DataError(f"--pairs: class {name!r} has no pictures. {did_you_mean(name, seen)}")
        if folder not in folders:
            raise DataError(f"--pairs: folder {folder!r} has no sounds. {did_you_mean(folder, folders)}")
        matched[name] += folders[folder]
        taken.add(folder)
    for folder, paths in folders.items():
        if folder not in taken and folder not in matched:
            matched[folder] = paths
    return dict(matched)


def divide(material: Material, splits: Sequence[str], seed: int, sound_source: str | None) -> dict[str, Collected]:
    """What each split may use: no picture and no recording is used by two.

    Args:
        material: From :func:`gather`.
        splits: Splits that are wanted.
        seed: Decides which source goes where.
        sound_source: See :func:`avseg.synthesis.user_stock.source_of`.

    Raises:
        DataError: When a split is left without any class that is both seen and heard.
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
            raise DataError(
                f"too few files: {split} has no class with a picture and a sound. Give more, or --{split} 0"
            )
        whole = [p for p in own_pictures if any(label.get(name) in sounds for name in p.classes)]
        behind = [path for path in material.backgrounds if owner[str(path)] == split]
        stocks[split] = Collected(split, dict(things), dict(sounds), whole, label, behind)
    return stocks
