"""A user's pictures and masks, as things that can be cut out."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, UnidentifiedImageError
from scipy import ndimage

from avseg.errors import DataError
from avseg.interface import IGNORE
from avseg.media.images import read_labels, read_picture
from avseg.synthesis.sprites.canvas import CutOut

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_SMALLEST_SHARE, _SMALLEST_SIDE = 0.01, 24
"""Of the picture, and in pixels: what is smaller is not worth cutting out."""
_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)
"""EXIF tag, and its values for pictures whose sides must be swapped."""


class Thing(NamedTuple):
    """One connected piece of one class in one picture.

    Attributes:
        image: The picture.
        mask: Its mask.
        name: Class.
        value: The mask's value for the class; None when any value but 0 and 255 is.
        box: Left, top, right, bottom in pixels.
    """

    image: Path
    mask: Path
    name: str
    value: int | None
    box: tuple[int, int, int, int]


class Picture(NamedTuple):
    """A picture and what is in it.

    Attributes:
        image: The file.
        mask: Its mask.
        values: Mask value → class, of all that is in it; the value None stands for any but 0 and 255.
        things: What is large enough to be cut out.
    """

    image: Path
    mask: Path
    values: dict[int | None, str]
    things: tuple[Thing, ...]

    @property
    def classes(self) -> set[str]:
        """All its classes."""
        return set(self.values.values())


def read_classes(path: Path) -> dict[int, str]:
    """Mask value → class from a CSV with the columns ``mask_value`` and ``class``.

    Raises:
        DataError: When it cannot be read, or a row is wrong.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        names = {int(row["mask_value"]): row["class"] for row in rows}
    except (OSError, UnicodeError, KeyError, ValueError, TypeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"cannot read {path}: expected the columns mask_value,class ({reason})") from None
    return {value: name for value, name in names.items() if value not in (0, IGNORE)}


def find_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and below, in order of their names.

    Raises:
        DataError: When there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: give a folder of pictures")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _PICTURES)
    if not found:
        raise DataError(f"no pictures in {folder}: expected {', '.join(_PICTURES)}")
    return found


def open_album(files: Iterable[Path], images: Path, masks: Path, names: Mapping[int, str] | None) -> Iterator[Picture]:
    """What is in each picture.

    Args:
        files: Pictures below ``images``.
        images: Folder of pictures.
        masks: Folder of masks: ``images/a/b.jpg`` has ``masks/a/b.png``, values are classes.
        names: Class of each mask value; None when the folder right below ``images`` names the class.

    Raises:
        DataError: When a mask is missing, does not fit its picture, or holds a value without a name.
    """
    if not masks.is_dir():
        raise DataError(f"no folder {masks}: give the folder of masks")
    for image in files:
        relative = image.relative_to(images)
        mask = (masks / relative).with_suffix(".png")
        if names is None and len(relative.parts) < 2:
            raise DataError(f"which class does {image} show? Sort pictures into folders, or give --classes FILE.csv")
        if not mask.is_file():
            raise DataError(f"{image} has no mask: expected {mask}")
        labels, size = read_labels(mask), _upright_size(image)
        if size != labels.shape[::-1]:
            other = labels.shape[::-1]
            raise DataError(f"{image} is {size[0]}x{size[1]} pixels, its mask {mask} is {other[0]}x{other[1]}")
        found = _classes(mask, labels, names, relative.parts[0])
        things = [thing for value, name in found.items() for thing in _things(image, mask, labels, name, value)]
        yield Picture(image, mask, found, tuple(things))


def _classes(
    mask: Path, labels: NDArray[np.uint8], names: Mapping[int, str] | None, folder: str
) -> dict[int | None, str]:
    """Mask value → class of what is in a mask; without ``names`` all values are the folder's class."""
    present = [int(v) for v in np.unique(labels) if v not in (0, IGNORE)]
    if names is None:
        return {None: folder} if present else {}
    unknown = [v for v in present if v not in names]
    if unknown:
        raise DataError(f"{mask} holds the value {unknown[0]}, which has no class in the --classes file")
    return {v: names[v] for v in present}


def _things(image: Path, mask: Path, labels: NDArray[np.uint8], name: str, value: int | None) -> Iterator[Thing]:
    pieces, count = ndimage.label(inside(labels, value))
    areas = np.bincount(pieces.reshape(-1), minlength=count + 1)
    for number, (rows, columns) in enumerate(ndimage.find_objects(pieces), start=1):
        sides = rows.stop - rows.start, columns.stop - columns.start
        if areas[number] >= _SMALLEST_SHARE * labels.size and min(sides) >= _SMALLEST_SIDE:
            yield Thing(image, mask, name, value, (columns.start, rows.start, columns.stop, rows.stop))


def inside(labels: NDArray[np.uint8], value: int | None) -> NDArray[np.bool_]:
    """Where the pixels of ``value`` are; None takes every label but background and 255."""
    return np.asarray((labels != 0) & (labels != IGNORE) if value is None else labels == value)


def cut_out(thing: Thing, px: int) -> CutOut:
    """The thing without its surroundings, its longer side ``px`` pixels, with a soft edge."""
    labels = read_labels(thing.mask)
    left, top, right, bottom = thing.box
    pieces, _ = ndimage.label(inside(labels, thing.value)[top:bottom, left:right])
    largest = np.bincount(pieces.reshape(-1))[1:].argmax() + 1
    alpha = Image.fromarray(np.where(pieces == largest, 255, 0).astype(np.uint8))
    picture = read_picture(thing.image).crop(thing.box)
    picture.putalpha(alpha.filter(ImageFilter.GaussianBlur(0.8)))
    factor = px / max(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    small = picture.resize(size, Image.Resampling.LANCZOS)
    return CutOut(small, rooted=bottom >= len(labels) - 2)


def _upright_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as file:
            lies = file.getexif().get(_ORIENTATION) in _LYING
            return (file.height, file.width) if lies else (file.width, file.height)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a picture that can be read: {error}") from None
