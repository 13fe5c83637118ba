"""Cut objects out of the user's images with their masks."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from avseg.errors import DataError
from avseg.interface import IGNORE
from avseg.media.images import UNREADABLE, read_labels, read_picture
from avseg.synthesis.sprites.canvas import CutOut

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_SMALLEST_SHARE, _SMALLEST_SIDE = 0.01, 24
"""Smallest area, as part of the image, and smallest side in pixels of a cut-out."""
_ORIENTATION, _ROTATED = 0x0112, (5, 6, 7, 8)
"""EXIF tag, and its values for images with width and height swapped."""


class Thing(NamedTuple):
    """One connected component of one class in one image.

    Attributes:
        image: The image file.
        mask: Its mask file.
        name: Class name.
        value: Mask value of the class; None if all values but 0 and 255 have this class.
        box: Left, top, right, bottom in pixels.
    """

    image: Path
    mask: Path
    name: str
    value: int | None
    box: tuple[int, int, int, int]


class MaskedImage(NamedTuple):
    """An image and its labelled objects.

    Attributes:
        image: The image file.
        mask: Its mask file.
        values: Mask value → class name of all labels in it; the value None stands for all but 0 and 255.
        things: Objects that are large enough to be cut out.
    """

    image: Path
    mask: Path
    values: dict[int | None, str]
    things: tuple[Thing, ...]

    @property
    def classes(self) -> set[str]:
        """Return the names of all its classes."""
        return set(self.values.values())


def read_classes(path: Path) -> dict[int, str]:
    """Read mask value → class name from a CSV with the columns ``mask_value`` and ``class``.

    Raises:
        DataError: When it cannot be read, or a row is not valid.
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
    """List the images in a folder and its subfolders, in order of their names.

    Raises:
        DataError: When there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: give a folder of images")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _PICTURES)
    if not found:
        raise DataError(f"no images in {folder}: expected {', '.join(_PICTURES)}")
    return found


def find_objects(
    files: Iterable[Path], images: Path, masks: Path, names: Mapping[int, str] | None
) -> Iterator[MaskedImage]:
    """Find the objects in each image.

    Args:
        files: Images below ``images``.
        images: Folder of images.
        masks: Folder of masks: ``images/a/b.jpg`` has ``masks/a/b.png``, values are classes.
        names: Class name of each mask value; None if the first subfolder of ``images`` is the class name.

    Raises:
        DataError: When a mask is missing, does not fit its image, or holds a value without a name.
    """
    if not masks.is_dir():
        raise DataError(f"no folder {masks}: give the folder of masks")
    for image in files:
        relative = image.relative_to(images)
        mask = (masks / relative).with_suffix(".png")
        if names is None and len(relative.parts) < 2:
            raise DataError(f"{image} has no class: sort images into one folder per class, or give --classes FILE.csv")
        if not mask.is_file():
            raise DataError(f"{image} has no mask: expected {mask}")
        labels, size = read_labels(mask), _upright_size(image)
        if size != labels.shape[::-1]:
            other = labels.shape[::-1]
            raise DataError(f"{image} is {size[0]}x{size[1]} pixels, its mask {mask} is {other[0]}x{other[1]}")
        found = _classes(mask, labels, names, relative.parts[0])
        things = [thing for value, name in found.items() for thing in _things(image, mask, labels, name, value)]
        yield MaskedImage(image, mask, found, tuple(things))


def _classes(
    mask: Path, labels: NDArray[np.uint8], names: Mapping[int, str] | None, folder: str
) -> dict[int | None, str]:
    """Return mask value → class name of the values in a mask; without ``names`` all have the folder's class."""
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
    """Return the mask of the pixels of ``value``; None for all labels but background and 255."""
    return np.asarray((labels != 0) & (labels != IGNORE) if value is None else labels == value)


def cut_out(thing: Thing, px: int) -> CutOut:
    """Return an object without its background, with a longer side of ``px`` pixels and a soft edge."""
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
            rotated = file.getexif().get(_ORIENTATION) in _ROTATED
            return (file.height, file.width) if rotated else (file.width, file.height)
    except UNREADABLE as error:
        raise DataError(f"cannot read {path} as an image: {error}") from None
