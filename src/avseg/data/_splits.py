"""Assign the videos of a folder to splits: by lists, or by a checksum of their names."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from zlib import crc32

from avseg.data._tables import read_rows
from avseg.errors import DataError, did_you_mean

_SPLITS = ("train", "val", "test")
_SHARE = 10
"""Without lists, one of ten videos is in val, and one in test."""


def splits_of(root: Path, labelled: Collection[str], videos: Collection[str]) -> dict[str, str]:
    """Return the split of each labelled video, by name.

    Args:
        root: Folder with ``split.csv`` (video,split), or ``train.txt``, ``val.txt`` and ``test.txt``, or neither.
        labelled: Names of videos that have masks.
        videos: Names of all videos.

    Raises:
        DataError: When a listed name is not a video, or a labelled video is in no list or in two.
    """
    listed = list(_listed(root))
    if not listed:
        return _by_rule(labelled)
    splits = dict(listed)
    if unknown := [name for name in splits if name not in videos and name not in labelled]:
        raise DataError(
            f"the split lists of {root} name {unknown[0]!r}, which is not a video there. "
            f"{did_you_mean(unknown[0], videos)}"
        )
    if twice := [name for name, split in listed if splits[name] != split]:
        raise DataError(f"the split lists of {root} have {twice[0]!r} in two splits: keep it in one")
    if missing := [name for name in labelled if name not in splits]:
        raise DataError(f"{missing[0]!r} has masks, but is in no split list of {root}: add it to one")
    return {name: splits[name] for name in labelled}


def lines_of(path: Path) -> list[str] | None:
    """Return the lines of a text file that are not empty; None if there is no such file.

    Raises:
        DataError: When it cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None


def _listed(root: Path) -> Iterator[tuple[str, str]]:
    table = root / "split.csv"
    if table.is_file():
        yield from ((row["video"], row["split"]) for row in read_rows(table, ("video", "split")))
    for split in _SPLITS:
        yield from ((name, split) for name in lines_of(root / f"{split}.txt") or ())


def _by_rule(names: Iterable[str]) -> dict[str, str]:
    """Sort by checksum: the first tenth is test, the second tenth val, at least one video each."""
    order = sorted(names, key=lambda name: (crc32(name.encode("utf-8", "surrogateescape")), name))
    share = max(1, len(order) // _SHARE)
    return {name: "test" if i < share else "val" if i < 2 * share else "train" for i, name in enumerate(order)}
