"""Photographs, cut-outs and recordings of one part of a stock, decoded once and shared by all processes.

A stock is a folder with the material of composed clips: photographs with masks, cut-out objects, and recordings. It has
``classes.yaml`` and a folder for each part (train, val, test, ...)::

    <root>/classes.yaml
    <root>/<part>/images/<class>/<name>.jpg              a photograph, RGB
    <root>/<part>/images/<class>/<name>.png              its mask: 0 background, 255 ignored, otherwise class numbers
    <root>/<part>/images/<class>/<name>.instances.png    optional: instance numbers, 0 for none
    <root>/<part>/cutouts/<class>/<name>.png             an object with an alpha channel
    <root>/<part>/sounds/<sound class>/<name>.<ext>      a recording

``classes.yaml`` lists the classes with their number in the masks and the sound classes that each of them makes;
without ``sounds``, a class makes no sound::

    classes:
      - {number: 1, name: person, sounds: [speech, singing]}
      - {number: 2, name: chair}
    background_sounds: {rain: [], traffic: [car]}   # sound class: classes that it could come from

Images are decoded and reduced once. The pixels and samples are stored in memory-mapped files of the cache folder,
so that workers share them.
"""

import hashlib
import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from avseg.errors import AvsegWarning, DataError
from avseg.files import replacing
from avseg.flags import read_yaml
from avseg.interface import IGNORE
from avseg.media.images import UNREADABLE, read_labels, read_picture
from avseg.media.sound import read_sound
from avseg.synthesis.recordings import find_sounds

Broken = Literal["error", "skip"]

_PHOTOS = (".jpg", ".jpeg")
_LEAST_ALPHA = 32
"""Cut-outs are cropped to the pixels of this alpha or more."""
_VERSION = 1
"""Version of the format of the cache, part of its name; increase it when the format changes."""


class StockClass(NamedTuple):
    """One class of objects.

    Attributes:
        number: Its value in the masks, from 1.
        name: Its name, and that of its folders.
        sounds: Sound classes that it makes; empty for objects that make no sound.
    """

    number: int
    name: str
    sounds: tuple[str, ...]


class StockImage(NamedTuple):
    """A photograph or cut-out in the cache.

    Attributes:
        file: Path below the part's folder.
        size: Height and width.
        start: Position of its pixels in the file of pixels.
        classes: Numbers in its mask, without 0 and 255; of a cut-out the number of its class.
        channels: 4 for a photograph (RGB, mask), 5 with instances (RGB, mask, instances); 4 for a cut-out (RGBA).
    """

    file: str
    size: tuple[int, int]
    start: int
    classes: tuple[int, ...]
    channels: int


class Recording(NamedTuple):
    """A recording in the cache.

    Attributes:
        file: Path below the part's folder.
        start: Position of its first sample in ``samples.bin``.
        length: Number of its samples.
    """

    file: str
    start: int
    length: int


@dataclass(frozen=True)
class Stock:
    """One part of a stock folder.

    Attributes:
        classes: All classes of the stock, by number.
        background_sounds: Sound class without an object → numbers of the classes it could come from.
        photos: Main class → photographs.
        cutouts: Class → cut-outs.
        recordings: Sound class → recordings.
        cache: Folder of the decoded pixels and samples.
    """

    classes: Mapping[int, StockClass]
    background_sounds: Mapping[str, tuple[int, ...]]
    photos: Mapping[int, Sequence[StockImage]]
    cutouts: Mapping[int, Sequence[StockImage]]
    recordings: Mapping[str, Sequence[Recording]]
    cache: Path

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """Return the memory-mapped uint8 pixels of all photographs and cut-outs."""
        return _mapped(self.cache / "pixels.bin", np.uint8)

    @cached_property
    def samples(self) -> NDArray[np.int16]:
        """Return the memory-mapped int16 samples of all recordings at 16 kHz."""
        return _mapped(self.cache / "samples.bin", np.int16)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapped files out: another process maps them itself."""
        return {key: value for key, value in self.__dict__.items() if key not in ("pixels", "samples")}

    def sounds_of(self, number: int) -> list[str]:
        """Return the sound classes of a class that have recordings."""
        return [name for name in self.classes[number].sounds if name in self.recordings]

    def planes(self, image: StockImage) -> NDArray[np.uint8]:
        """Return (H, W, channels) uint8, read-only."""
        height, width = image.size
        count = height * width * image.channels
        return self.pixels[image.start : image.start + count].reshape(height, width, image.channels)

    def wave(self, recording: Recording) -> NDArray[np.float32]:
        """Return (n,) float32 in -1..1 at 16 kHz."""
        return self.samples[recording.start : recording.start + recording.length].astype(np.float32) / 32768.0

    def gaps(self) -> list[str]:
        """Return one line for each class that has pictures without recordings, or the reverse."""
        lines = []
        for number, entry in self.classes.items():
            seen = bool(self.photos.get(number) or self.cutouts.get(number))
            sounding = bool(self.sounds_of(number))
            if seen and entry.sounds and not sounding:
                lines.append(f"class {entry.name} has pictures, but no recordings of {', '.join(entry.sounds)}")
            if sounding and not seen:
                lines.append(f"class {entry.name} has recordings, but no pictures")
        return lines


def open_stock(
    root: Path,
    part: str,
    cache: Path | None = None,
    *,
    side: int = 320,
    broken: Broken = "error",
    progress: bool = True,
) -> Stock:
    """Read a part of a stock folder; decode what the cache does not hold.

    Args:
        root: Folder of ``classes.yaml``.
        part: Folder below it.
        cache: Folder of the decoded pixels and samples; ``<root>/.cache`` if None.
        side: Longest side in pixels to which photographs and cut-outs are reduced.
        broken: Raise at the first file that cannot be read, or skip such files and name them in a warning.
        progress: Show a bar while decoding.

    Raises:
        DataError: When a folder, ``classes.yaml`` or a mask is missing or wrong, or a file cannot be read.
    """
    classes, background = read_classes(root / "classes.yaml")
    folder = root / part
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: expected images/, cutouts/ and sounds/ in it")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.parent != folder)
    facts = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    digest = hashlib.sha256(repr((_VERSION, side, broken, sorted(classes.items()), facts)).encode()).hexdigest()[:20]
    kept = (cache or root / ".cache") / f"{part}-{digest}"
    if not (kept / "index.json").is_file():
        _decode(folder, {c.name: c.number for c in classes.values()}, kept, side, broken, progress)
    return _opened(kept, classes, background)


def read_classes(path: Path) -> tuple[dict[int, StockClass], dict[str, tuple[int, ...]]]:
    """Return the classes by number, and the background sounds with the classes they could come from.

    Raises:
        DataError: When the file cannot be read or an entry is wrong.
    """
    if not path.is_file():
        raise DataError(f"no {path}: expected the list of classes of a stock folder")
    tree = read_yaml(path)
    try:
        entries = [StockClass(int(e["number"]), str(e["name"]), tuple(e.get("sounds") or ())) for e in tree["classes"]]
        background = tree.get("background_sounds") or {}
        pairs = background.items() if isinstance(background, Mapping) else ((name, ()) for name in background)
        numbers = {entry.name: entry.number for entry in entries}
        sounds = {str(name): tuple(numbers[c] for c in sources or ()) for name, sources in pairs}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} must list classes with number, name and, if any, sounds: {error!r}") from None
    if len(numbers) < len(entries) or sorted(numbers.values()) != list(range(1, len(entries) + 1)):
        raise DataError(f"{path} must number its classes 1, 2, 3, … and give each a unique name")
    return {entry.number: entry for entry in entries}, sounds


def _decode(folder: Path, numbers: Mapping[str, int], kept: Path, side: int, broken: Broken, progress: bool) -> None:
    """Write the cache of a part: a folder of pixels.bin, samples.bin and index.json."""
    skipped: list[str] = []
    index: dict[str, Any] = {"photos": [], "cutouts": [], "recordings": []}
    console = Console(stderr=True)
    with replacing(kept) as temporary, _Writer(temporary, broken, skipped) as writer:
        for kind, suffixes, read in (("images", _PHOTOS, _photo), ("cutouts", (".png",), _cutout)):
            found = _by_class(folder / kind, suffixes, numbers)
            for number, path in track(found, kind, console=console, transient=True, disable=not progress):
                planes = writer.read(path, partial(read, side=side, classes=len(numbers)))
                if planes is None:
                    continue
                present = np.unique(planes[..., 3]).tolist() if kind == "images" else [number]
                row = [str(path.relative_to(folder)), planes.shape[:2], writer.pixels(planes), present, planes.shape[2]]
                index["photos" if kind == "images" else "cutouts"].append([number, *row])
        every = [(name, path) for name, paths in find_sounds(folder / "sounds").items() for path in paths]
        for name, path in track(every, "sounds", console=console, transient=True, disable=not progress):
            if (wave := writer.read(path, _wave)) is not None:
                index["recordings"].append([name, str(path.relative_to(folder)), writer.samples(wave), len(wave)])
        (temporary / "index.json").write_text(json.dumps(index), encoding="utf-8")
    if skipped:
        warnings.warn(
            f"{len(skipped)} files of {folder} cannot be used: {'; '.join(skipped)}", AvsegWarning, stacklevel=2
        )


class _Writer:
    """Append pixels and samples to the files of a cache, in a new folder."""

    def __init__(self, folder: Path, broken: Broken, skipped: list[str]) -> None:
        folder.mkdir()
        self._files = [(folder / f"{name}.bin").open("wb") for name in ("pixels", "samples")]
        self._broken, self._skipped = broken, skipped

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def read(self, path: Path, read: Callable[[Path], NDArray[Any]]) -> NDArray[Any] | None:
        """Return what ``read`` gives, or None for a file that is skipped."""
        try:
            return read(path)
        except DataError as error:
            if self._broken == "error":
                raise DataError(f"{error}. Repair or remove it, or set broken to skip") from None
            self._skipped.append(str(error))
            return None

    def pixels(self, planes: NDArray[np.uint8]) -> int:
        """Append pixels, return where they start."""
        return self._append(0, planes)

    def samples(self, wave: NDArray[np.int16]) -> int:
        """Append samples, return where they start."""
        return self._append(1, wave) // 2

    def _append(self, which: int, values: NDArray[Any]) -> int:
        start = self._files[which].tell()
        self._files[which].write(np.ascontiguousarray(values).tobytes())
        return start


def _by_class(folder: Path, suffixes: tuple[str, ...], numbers: Mapping[str, int]) -> list[tuple[int, Path]]:
    """Return (class number, file) of all files below ``<folder>/<class>/``."""
    found: list[tuple[int, Path]] = []
    for below in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not below.is_dir():
            continue
        if below.name not in numbers:
            raise DataError(f"{below} is no class of classes.yaml: add it there, or rename the folder")
        found += [(numbers[below.name], p) for p in sorted(below.iterdir()) if p.suffix.lower() in suffixes]
    return found


def _photo(path: Path, side: int, classes: int) -> NDArray[np.uint8]:
    """Return (H, W, 4 or 5) uint8: RGB, mask, and instances where there are any."""
    picture, mask = read_picture(path), path.with_suffix(".png")
    if not mask.is_file():
        raise DataError(f"{path} has no mask: expected {mask}")
    planes = [mask, *([extra] if (extra := path.with_suffix(".instances.png")).is_file() else [])]
    labels = [read_labels(plane) for plane in planes]
    for plane, values in zip(planes, labels, strict=True):
        if values.shape != picture.size[::-1]:
            raise DataError(
                f"{plane} is {values.shape[1]}x{values.shape[0]}, its picture {picture.size[0]}x{picture.size[1]}"
            )
    unknown = set(np.unique(labels[0]).tolist()) - {0, IGNORE, *range(1, classes + 1)}
    if unknown:
        raise DataError(f"{mask} holds the value {min(unknown)}, but classes.yaml has {classes} classes")
    size = _reduced(picture.size, side)
    small = np.asarray(picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
    rest = [np.asarray(Image.fromarray(v).resize(size, Image.Resampling.NEAREST)) for v in labels]
    return np.dstack([small, *rest])


def _cutout(path: Path, side: int, classes: int) -> NDArray[np.uint8]:
    """Return (H, W, 4) uint8: RGBA, cropped to the pixels of alpha 32 or more; ``classes`` is not used."""
    try:
        with Image.open(path) as file:
            if "A" not in file.getbands() and "transparency" not in file.info:
                raise DataError(f"{path} has no alpha channel: a cut-out needs one")
            picture = file.convert("RGBA")
    except UNREADABLE as error:
        raise DataError(f"cannot read {path} as an image: {error}") from None
    box = picture.getchannel("A").point([0] * _LEAST_ALPHA + [255] * (256 - _LEAST_ALPHA)).getbbox()
    if box is None:
        raise DataError(f"{path} has no pixel of alpha {_LEAST_ALPHA} or more: a cut-out needs some")
    picture = picture.crop(box)
    return np.asarray(picture.resize(_reduced(picture.size, side), Image.Resampling.LANCZOS))


def _reduced(size: tuple[int, int], side: int) -> tuple[int, int]:
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _wave(path: Path) -> NDArray[np.int16]:
    """Return (n,) int16 with its loudest sample at half of full scale."""
    wave = read_sound(path)
    peak = float(np.abs(wave).max(initial=0.0))
    if peak < 1e-4:
        raise DataError(f"{path} is silent: it would label an object that makes no sound")
    return (wave * (16384.0 / peak)).round().astype(np.int16)


def _opened(kept: Path, classes: Mapping[int, StockClass], background: Mapping[str, tuple[int, ...]]) -> Stock:
    index = json.loads((kept / "index.json").read_text(encoding="utf-8"))
    tables: dict[str, dict[int, list[StockImage]]] = {"photos": defaultdict(list), "cutouts": defaultdict(list)}
    for kind, table in tables.items():
        for number, file, size, start, present, channels in index[kind]:
            inside = tuple(v for v in present if v not in (0, IGNORE))
            table[number].append(StockImage(file, (size[0], size[1]), start, inside, channels))
    recordings: dict[str, list[Recording]] = defaultdict(list)
    for name, file, start, length in index["recordings"]:
        recordings[name].append(Recording(file, start, length))
    return Stock(classes, background, tables["photos"], tables["cutouts"], recordings, kept)


def _mapped(path: Path, kind: type[Any]) -> NDArray[Any]:
    return np.memmap(path, kind, "r") if path.stat().st_size else np.zeros(0, kind)
