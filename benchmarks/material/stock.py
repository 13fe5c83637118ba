"""Items of a stock: their parts by group, their files, and ``manifest.csv``."""

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PARTS = ("train", "val", "test", "research")
COLUMNS = ("file", "kind", "class", "licence", "author", "source", "sha256", "group")
SHARES = {"test": 0.10, "val": 0.06}
FEWEST = 6
"""A class with fewer items of a kind is kept whole for training."""


@dataclass(frozen=True)
class Item:
    """A picture, cut-out or sound of one class before it is written.

    Attributes:
        kind: ``image``, ``cutout`` or ``sound``.
        label: Name of the class.
        name: File name without its suffix.
        group: Original source; items of a group are never in two parts.
        licence: As stated by the source.
        author: As stated by the source; may be empty.
        source: Address of the original.
        write: Writes the files given a path without suffix; returns (file, kind) pairs, or nothing for an
            unusable item.
        research: True for material without a free licence, which is for validation only.
    """

    kind: str
    label: str
    name: str
    group: str
    licence: str
    author: str
    source: str
    write: Callable[[Path], list[tuple[Path, str]]] = field(repr=False)
    research: bool = False


def digest(text: str) -> str:
    """Return the SHA-256 of a text, by which groups are ordered."""
    return hashlib.sha256(text.encode()).hexdigest()


def split(items: Sequence[Item]) -> dict[str, str]:
    """Assign every group to a part.

    Groups of research items are ``research`` unless a free item has the same group. The other groups are taken per
    kind and class in the order of their hash until ``test`` has 10 % and ``val`` 6 % of the items (at least one each,
    for classes with six items or more in three groups or more); a group keeps the part of the first class that has it.

    Returns:
        Group → ``train``, ``val``, ``test`` or ``research``.
    """
    free: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    parts = {item.group: "research" for item in items if item.research}
    for item in items:
        if not item.research:
            free[item.kind, item.label][item.group] += 1
            parts.pop(item.group, None)
    for sizes in (free[key] for key in sorted(free)):
        _split_class(sizes, parts)
    return parts


def _split_class(sizes: Counter[str], parts: dict[str, str]) -> None:
    """Assign the groups of one class that have no part yet."""
    total, open_groups = sizes.total(), sorted((g for g in sizes if g not in parts), key=digest)
    for part, share in SHARES.items():
        wanted = max(1, round(share * total)) if total >= FEWEST and len(sizes) >= 3 else 0
        filled = sum(size for group, size in sizes.items() if parts.get(group) == part)
        for group in list(open_groups):
            if filled < wanted and filled + sizes[group] <= 1.5 * wanted:
                filled += sizes[group]
                parts[group] = part
                open_groups.remove(group)
        smallest = min(open_groups, key=lambda g: (sizes[g], digest(g)), default=None)
        if wanted and not filled and smallest is not None and sizes[smallest] <= total / 3:
            parts[smallest] = part
            open_groups.remove(smallest)
    parts.update(dict.fromkeys(open_groups, "train"))


FOLDERS = {"image": "images", "cutout": "cutouts", "sound": "sounds"}


def write(out: Path, items: Iterable[Item], parts: dict[str, str]) -> list[dict[str, str]]:
    """Write the files of all items and a ``manifest.csv`` in each part.

    Research items whose group is also in a free part are left out.

    Returns:
        The rows of all manifests, each with its ``part``.
    """
    rows: list[dict[str, str]] = []
    for item in items:
        part = parts[item.group]
        if item.research and part != "research":
            continue
        stem = out / part / FOLDERS[item.kind] / item.label / item.name
        stem.parent.mkdir(parents=True, exist_ok=True)
        rows += [_row(path, kind, part, item, out) for path, kind in item.write(stem)]
    for part in PARTS:
        _write_manifest(out / part / "manifest.csv", [row for row in rows if row["part"] == part])
    return rows


def _row(path: Path, kind: str, part: str, item: Item, out: Path) -> dict[str, str]:
    """Return the row of one written file."""
    return {
        "part": part,
        "file": path.relative_to(out / part).as_posix(),
        "kind": kind,
        "class": item.label,
        "licence": item.licence,
        "author": item.author,
        "source": item.source,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "group": item.group,
    }


def _write_manifest(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["file"]))
