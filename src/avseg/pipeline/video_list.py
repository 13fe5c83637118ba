"""Find the videos that words of a command line name: files, patterns, folders and CSV lists."""

import csv
import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from avseg.errors import MediaError

SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm .wmv".split()  # noqa: SIM905
)
"""Suffixes, in lower case, of the files that are taken from a folder."""
_COLUMNS = ("video", "path", "file")
"""Headers of the column of a CSV list that has the paths."""
_RESULT = "result.json"


def names_many(given: str | Path) -> bool:
    """Return whether a word names a set of videos, a folder, CSV list or pattern, and not one file."""
    path = Path(given)
    return path.is_dir() or (path.is_file() and path.suffix.lower() == ".csv") or _is_pattern(path)


def find_videos(given: Iterable[str | Path]) -> list[Path]:
    """Return the videos that some words name, each once, in order.

    Args:
        given: Files of any name; patterns such as ``clips/*.mp4``; folders, of which all files with a suffix of a video
            are taken, those in subfolders too, except hidden ones and results of avseg; CSV lists, with one path per
            row in the column ``video``, ``path`` or ``file``, or else in the first column. Paths in a list are relative
            to the list.

    Returns:
        Paths; a file that does not exist is one of them if it is named without a pattern.

    Raises:
        MediaError: When a pattern, a folder or a list has no video, or a list cannot be read.
    """
    found: dict[Path, Path] = {}
    for word in given:
        videos = list(_expand(Path(word)))
        if not videos:
            raise MediaError(f"no video in {word}: give files, folders, CSV lists or patterns that have some")
        for video in videos:
            found.setdefault(video.resolve(), video)
    return list(found.values())


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path)) and not path.exists()


def _expand(path: Path) -> Iterator[Path]:
    if _is_pattern(path):
        for match in sorted(glob.glob(str(path), recursive=True)):
            yield from _expand(Path(match))
    elif path.is_dir():
        yield from _in_folder(path)
    elif path.is_file() and path.suffix.lower() == ".csv":
        yield from _in_list(path)
    else:
        yield path


def _in_folder(folder: Path) -> Iterator[Path]:
    entries = sorted(folder.iterdir())
    if any(entry.name == _RESULT for entry in entries):  # its overlay is no input
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _in_folder(entry)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry


def _in_list(path: Path) -> Iterator[Path]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeError, csv.Error) as error:
        raise MediaError(
            f"cannot read the list {path} ({error}): give a CSV file in UTF-8 with one path per row"
        ) from None
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((header.index(name) for name in _COLUMNS if name in header), None)
    for row in rows if column is None else rows[1:]:
        if len(row) > (column or 0) and (cell := row[column or 0].strip()):
            yield path.parent / cell
