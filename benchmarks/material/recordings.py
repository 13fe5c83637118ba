"""Recorded sounds as items of a stock."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from material.classes import classes
from material.pictures import manifest
from material.stock import Item


def original_recording(name: str, source: str, url: str) -> str:
    """Return the group of a sound: the recording, speaker or child that it is from.

    Args:
        name: File name without suffix.
        source: Repository, commit and path of the original file.
        url: Page of the recording; may be empty.
    """
    for text in (url, source):
        if found := re.search(r"freesound\.org/(?:s|people/[^/]+/sounds)/(\d+)", text):
            return f"freesound:{found[1]}"
    if "donateacry" in source:
        return f"donateacry:{name[:36]}"
    if "asterisk" in source and (voice := re.match(r"ast_([^_]+_[^_]+_[^_]+_[^_]+)_", name)):
        return f"asterisk:{voice[1]}"
    if "joined" in source:  # clips of one series repeat the same words, notes or steps in another order
        return f"joined:{name.rpartition('_')[0]}"
    return re.sub(r"@[0-9a-f]{40}", "", source)


@dataclass(frozen=True)
class Linked:
    """Puts a file into the stock as it is: a hard link, or a copy on another file system.

    Attributes:
        path: Sound file.
    """

    path: Path

    def __call__(self, stem: Path) -> list[tuple[Path, str]]:
        """Write ``<stem><suffix>``."""
        target = Path(f"{stem}{self.path.suffix}")
        try:
            os.link(self.path, target)
        except OSError:
            shutil.copyfile(self.path, target)
        return [(target, "sound")]


def collected(folder: Path) -> Iterator[Item]:
    """Yield the sounds of ``sounds.csv``; those below ``research_only`` are for validation."""
    for row in manifest(folder / "sounds.csv"):
        path = Path(row["file"])
        group = original_recording(path.stem, row["source"], row["url"])
        label, research = classes().sound(row["class"]), path.parts[0] == "research_only"
        source = row["url"] or row["source"]
        yield Item(
            "sound", label, path.stem, group, row["licence"], row["author"], source, Linked(folder / path), research
        )


def esc(folder: Path) -> Iterator[Item]:
    """Yield the sounds of ``manifest_audio.csv`` (ESC-10 and UrbanSound8K)."""
    for row in manifest(folder / "manifest_audio.csv"):
        path = Path(row["file"])
        group = original_recording(path.stem, row["source_repo"], row["source_url"])
        label, research = classes().sound(row["class"]), path.parts[0] == "noncommercial"
        name = f"{'us8k' if 'us8k' in row['file'] else 'esc'}_{path.stem}"
        source, write = row["source_url"], Linked(folder / path)
        yield Item("sound", label, name, group, row["licence"], row["author"], source, write, research)
