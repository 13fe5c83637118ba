"""Read every file of a data set as in training, and collect all faults."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from avseg.data import dataset_class, list_datasets
from avseg.data._file_dataset import Entry, FileDataset, NoClipsError, Part
from avseg.errors import AvsegError, DataError
from avseg.interface import SPLITS, make_config

Settings = dict[str, Any]
Size = tuple[int, int]


@dataclass
class SplitReport:
    """Files and faults of one split.

    Attributes:
        clips: Number of listed clips.
        published: Published number of clips; None for the user's own data.
        listed: Kind of file → number of files that are listed.
        readable: Kind of file → number of files that exist and can be read.
        faults: One line per file that is missing, cannot be read, or does not fit; without faults of earlier splits.
        absent: Reason why there are no clips although the list can be read; empty if there are clips.
        broken: True if the list cannot be used, which is a fault.
    """

    clips: int = 0
    published: int | None = None
    listed: Counter[str] = field(default_factory=Counter)
    readable: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    absent: str = ""
    broken: bool = False


@dataclass
class Report:
    """Files and faults of one data set.

    Attributes:
        settings: ``name`` and the settings that load it.
        splits: Split name → report.
        strays: Files and folders in its folder that are in no list; not searched if a list is broken.
    """

    settings: Settings
    splits: dict[str, SplitReport]
    strays: list[Path] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """Return every fault once; or a single fault if no split has clips."""
        if all(split.absent for split in self.splits.values()):
            return [f"{self.settings['root']} has no clips in any split"]
        return [fault for split in self.splits.values() for fault in split.faults]


def examine(path: Path, *, progress: bool = True) -> list[Report]:
    """Read every file of every data set in a folder, or in its direct subfolders.

    Raises:
        DataError: When no data set is recognised.
    """
    reports, known = [], dict[Path, set[Path]]()
    with Progress(console=Console(stderr=True), transient=True, disable=not progress) as bar:
        for settings in recognised(path):
            sets = {split: _build(settings, split) for split in SPLITS}
            files = known.setdefault(sets["train"].root, set())
            reports.append(Report(settings, _splits(sets, files, bar)))
    layout = layouts()
    for root, files in known.items():
        in_root = [report for report in reports if Path(report.settings["root"]) == root]
        ignored = frozenset[str]().union(*(layout[report.settings["name"]].ignored for report in in_root))
        if files and not any(split.broken for report in in_root for split in report.splits.values()):
            in_root[0].strays = list(strays(root, files, ignored))
    return reports


def layouts() -> dict[str, type[FileDataset]]:
    """Return the classes of the data sets on disk, by name."""
    found = {name: dataset_class(name) for name in list_datasets()}
    return {name: kind for name, kind in found.items() if issubclass(kind, FileDataset)}


def recognised(path: Path) -> list[Settings]:
    """Return ``name`` and settings of each data set in a folder, or if there are none, in its direct subfolders.

    Raises:
        DataError: When no data set is recognised.
    """
    if not path.is_dir():
        raise DataError(f"no folder {path}: give the folder of a data set")
    kinds = layouts()

    def inside(folder: Path) -> list[Settings]:
        return [{"name": name, **settings} for name, kind in kinds.items() for settings in kind.recognise(folder)]

    content = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    found = inside(path) or [settings for p in content if p.is_dir() for settings in inside(p)]
    if not found:
        names = ", ".join(p.name for p in content[:8]) + ", …" * (len(content) > 8) or "nothing"
        marks = ", ".join(f"{name} ({kind.mark})" if kind.mark else name for name, kind in kinds.items())
        raise DataError(f"{path} holds no supported data set: expected one of {marks}; found {names}")
    return found


def strays(root: Path, known: set[Path], ignored: frozenset[str]) -> Iterator[Path]:
    """Yield files that are not known; a folder without any known file is yielded as a whole.

    Args:
        root: Folder to search.
        known: Files that are read.
        ignored: Names that are ignored in all folders, in addition to those that begin with a dot.
    """
    nearest = {path.parent for path in known}
    folders = nearest.union(*(folder.parents for folder in nearest))

    def below(folder: Path) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            if path in folders:
                yield from below(path)
            elif path not in known and path.name not in ignored and not path.name.startswith("."):
                yield path

    return below(root)


def _build(settings: Settings, split: str) -> FileDataset:
    kind = layouts()[settings["name"]]
    return kind(make_config(kind, {key: value for key, value in settings.items() if key != "name"}), split)


def _splits(sets: dict[str, FileDataset], known: set[Path], bar: Progress) -> dict[str, SplitReport]:
    """Read all splits; a fault of several splits, such as a broken list, is reported at the first of them only."""
    reports, reported = {name: _split(dataset, known, bar) for name, dataset in sets.items()}, set[str]()
    for report in reports.values():
        report.faults = [fault for fault in dict.fromkeys(report.faults) if fault not in reported]
        reported.update(report.faults)
    return reports


def _split(dataset: FileDataset, known: set[Path], bar: Progress) -> SplitReport:
    """Read a split, and add its files to ``known``."""
    report = SplitReport(published=dataset.published)
    try:
        entries = dataset.entries
    except NoClipsError as error:
        report.absent = f"no {dataset.split}: {error}"
        return report
    except DataError as error:
        report.broken, report.faults = True, [str(error)]
        return report
    report.clips = len(entries)
    names = Counter(entry.name for entry in entries)
    report.faults += [f"{name} is listed {count} times" for name, count in names.items() if count > 1]
    sounds: set[Path] = set()
    for entry in bar.track(entries, description=dataset.split):
        parts = [part for part in dataset.parts(entry) if part.kind != "sounds" or part.path not in sounds]
        report.faults += _clip(dataset, entry, parts, report)
        sounds.update(part.path for part in parts if part.kind == "sounds")
        known.update(part.path for part in parts)
    return report


def _clip(dataset: FileDataset, entry: Entry, parts: list[Part], report: SplitReport) -> Iterator[str]:
    """Count the files of a clip, and yield their faults."""
    sizes: list[tuple[Part, Size]] = []
    for part in parts:
        report.listed[part.kind] += 1
        if not part.path.parent.is_dir():
            yield f"no folder {part.path.parent}: the {part.kind} of {entry.name} belong there"
            continue
        try:
            size = part.read(part.path)
        except AvsegError as error:
            yield str(error)
            continue
        report.readable[part.kind] += 1
        if size is not None and (part.kind == "frames" or dataset.masks_fit):
            sizes.append((part, size))
    for part, size, usual in _odd(sizes):
        report.readable[part.kind] -= 1
        yield f"{part.path} is {size} pixels, the frames of {entry.name} are {usual}"


def _odd(sizes: list[tuple[Part, Size]]) -> Iterator[tuple[Part, Size, Size]]:
    """Yield each file of another size than most frames, with its size and theirs; of equal counts the first wins."""
    frames = Counter(size for part, size in sizes if part.kind == "frames")
    for usual, _ in frames.most_common(1):
        yield from ((part, size, usual) for part, size in sizes if size != usual)
