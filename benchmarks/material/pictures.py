"""Pictures with masks, and cut-outs, as items of a stock."""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from avseg.errors import DataError
from material.classes import classes, read
from material.masks import BORDER, Array, People, Saliency, plausible, renumber, uncornered, with_person
from material.stock import Item

LONGEST = 400
QUALITY = 95


def manifest(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file.

    Raises:
        DataError: When the file is missing.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: expected the manifest of a collected folder, check the folder's name")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fitted(size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height with a longest side of at most 400 pixels."""
    scale = min(1.0, LONGEST / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def values(path: Path) -> Array:
    """Return the values of a mask file; a palette's indices stay as they are."""
    with Image.open(path) as file:
        return np.asarray(file if file.mode in "LP" else file.convert("L"), np.uint8)


def pixels(path: Path) -> Array:
    """Return an image as RGB."""
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"), np.uint8)


def save_mask(path: Path, mask: Array, size: tuple[int, int]) -> None:
    """Write a mask of mode L, resized without blending values."""
    Image.fromarray(mask).resize(size, Image.Resampling.NEAREST).save(path, optimize=True)


@dataclass(frozen=True)
class Picture:
    """Writes an image, its mask and its instances.

    Attributes:
        image: Image file.
        mask: Returns image and class numbers of equal size, or None for an unusable picture.
        instances: File of instance numbers, where known.
    """

    image: Path
    mask: Callable[[], tuple[Array, Array] | None]
    instances: Path | None = None

    def __call__(self, stem: Path) -> list[tuple[Path, str]]:
        """Write ``<stem>.jpg``, ``<stem>.png`` and ``<stem>.instances.png``."""
        found = self.mask()
        if found is None:
            return []
        image, mask = found
        size = fitted((image.shape[1], image.shape[0]))
        files = [(Path(f"{stem}.jpg"), "image"), (Path(f"{stem}.png"), "mask")]
        with Image.open(self.image) as file:
            unchanged = file.format == "JPEG" and file.mode == "RGB" and file.size == size and not file.getexif()
            unchanged = unchanged and np.array_equal(np.asarray(file), image)
        if unchanged:  # a second compression would only lose quality
            files[0][0].write_bytes(self.image.read_bytes())
        else:
            smaller = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
            smaller.save(files[0][0], quality=QUALITY, subsampling=0)
        save_mask(files[1][0], mask, size)
        if self.instances is not None:
            files.append((Path(f"{stem}.instances.png"), "instances"))
            numbers = values(self.instances)
            save_mask(files[2][0], np.where(numbers == BORDER, 0, numbers).astype(np.uint8), size)
        return files


@dataclass(frozen=True)
class Teachers:
    """Optional models that improve pseudo-masks.

    Attributes:
        saliency: Marks the salient object, for implausible masks.
        people: Marks people.
    """

    saliency: Saliency | None = None
    people: People | None = None


def repaired(row: dict[str, str], folder: Path, label: str, teachers: Teachers) -> tuple[Array, Array] | None:
    """Return image and class numbers of one row of ``images.csv``, or None when its mask is implausible."""
    image, raw = pixels(folder / row["image"]), values(folder / row["mask"])
    number = classes().number(label)
    if not row["mask_kind"].startswith("pseudo"):
        return image, renumber(raw, {1: number, 255: number, 128: BORDER})
    mask = raw > 0
    if label in classes().rest["black_corners"]:
        if (filled := uncornered(image, mask)) is None:
            return None
        image, mask = filled
    elif not plausible(mask) and (teachers.saliency is None or not plausible(mask := teachers.saliency(image))):
        return None
    numbers = _people_added(image, np.where(mask, number, 0).astype(np.uint8), label, teachers)
    return None if numbers is None else (image, numbers)


def _people_added(image: Array, mask: Array, label: str, teachers: Teachers) -> Array | None:
    """Add people to a pseudo-mask of a class that people hold or ride, and bodies to those of people."""
    holding = classes().rest["with_person"]
    if teachers.people is None or label not in [*holding["apart"], *holding["held"]]:
        return mask
    return with_person(mask, teachers.people(image), classes().number("person"), apart=label in holding["apart"])


def original_image(row: dict[str, str]) -> str:
    """Return the group of a row of ``images.csv``: the image, or for Caltech faces a block of 20 images in sequence.

    Caltech faces are 27 people in the order of their photographs, about 17 each.
    """
    name = Path(row["image"]).stem
    if faces := re.fullmatch(r"cal_(Faces\w*?)_image_(\d+)", name):
        return f"{faces[1]}:{int(faces[2]) // 20}"
    return name


def collected(folder: Path, teachers: Teachers) -> Iterator[Item]:
    """Yield the images of ``images.csv``; those below ``research_only`` are for validation."""
    for row in manifest(folder / "images.csv"):
        path = Path(row["image"])
        if path.stem in classes().rest["left_out"]:
            continue

        def mask(row: dict[str, str] = row) -> tuple[Array, Array] | None:
            return repaired(row, folder, row["class"], teachers)

        write = Picture(folder / path, mask)
        research = path.parts[0] == "research_only"
        licence, group = row["licence"], original_image(row)
        yield Item("image", row["class"], path.stem, group, licence, "", row["source"], write, research)


def coco(folder: Path) -> Iterator[Item]:
    """Yield the images of ``manifest_images.csv`` (COCO and Oxford pets, masks with COCO's category numbers)."""
    names = {row["class"]: int(row["mask_value"]) for row in manifest(folder / "classes.csv") if row["class"]}
    other = classes().number("other_object")
    numbers = {value: classes().coco.get(name, other) for name, value in names.items() if 0 < value < BORDER}
    numbers[BORDER] = BORDER
    labels = {number: name for name, number in classes().numbers.items()}
    for row in manifest(folder / "manifest_images.csv"):
        path, instances = Path(row["image"]), folder / row["instance_mask"]
        label = labels[numbers[names[row["primary_class"]]]]

        def mask(row: dict[str, str] = row) -> tuple[Array, Array]:
            return pixels(folder / row["image"]), renumber(values(folder / row["mask"]), numbers)

        write = Picture(folder / path, mask, instances)
        source = row["flickr_url"] or row["source_repo"]
        research = path.parts[0] == "noncommercial"
        licence, author = row["image_licence"], row["author_page"]
        yield Item("image", label, path.stem, path.stem, licence, author, source, write, research)


def davis(folder: Path) -> Iterator[Item]:
    """Yield the frames of ``manifest_davis.csv``, one group for each sequence."""
    for row in manifest(folder / "manifest_davis.csv"):
        if row["sequence"] in classes().rest["left_out"]:
            continue
        name = f"davis_{row['sequence']}_{Path(row['image']).stem}"

        def mask(row: dict[str, str] = row) -> tuple[Array, Array]:
            number = classes().number(row["class"])
            marked = renumber(values(folder / row["mask"]), {1: number, BORDER: number})
            return pixels(folder / row["image"]), marked

        write = Picture(folder / row["image"], mask)
        group, source = f"davis:{row['sequence']}", row["source_repo"]
        yield Item("image", row["class"], name, group, row["licence"], "", source, write, research=True)


MSRC_VALUES = {
    "cow": 4, "horse": 5, "sheep": 6, "aeroplane": 9, "face": 11, "car": 12, "bicycle": 13, "flower": 14, "sign": 15,
    "bird": 16, "book": 17, "chair": 18, "cat": 20, "dog": 21, "body": 22, "boat": 23,
}  # fmt: skip
"""Objects in the masks of MSRC v2; the other values are background such as grass and sky."""


def msrc(folder: Path) -> Iterator[Item]:
    """Yield the images of ``MANIFEST.csv`` of MSRC v2 that show an object, filed under the largest one."""
    numbers = {MSRC_VALUES[name]: number for name, number in classes().msrc.items()} | {BORDER: BORDER}
    labels = {number: name for name, number in classes().numbers.items()}
    for row in manifest(folder / "MANIFEST.csv"):
        areas = dict(part.rsplit(":", 1) for part in row["classes_px"].split(";"))
        objects = {name: int(area) for name, area in areas.items() if name in MSRC_VALUES}
        if not objects:
            continue
        loud = {name: area for name, area in objects.items() if not classes().silent(classes().msrc[name])}
        label = labels[classes().msrc[max(loud or objects, key=objects.__getitem__)]]

        def mask(row: dict[str, str] = row) -> tuple[Array, Array]:
            return pixels(folder.parent / row["image"]), renumber(values(folder.parent / row["mask"]), numbers)

        path = Path(row["image"])
        write = Picture(folder.parent / path, mask)
        name = f"msrc_{path.stem}"
        yield Item("image", label, name, name, row["licence"], "", row["source"], write, research=True)


def stamps(folder: Path) -> Iterator[Item]:
    """Yield the photographic stamps of Tux Paint that ``stamps.yaml`` names, as cut-outs.

    Raises:
        DataError: When a stamp is missing.
    """
    for label, names in read("stamps.yaml").items():
        for name in names:
            path = folder / f"{name}.png"
            if not path.is_file():
                raise DataError(f"{path} is missing: expected the stamps of Debian's tuxpaint-stamps-default")
            item_name = f"tuxpaint_{name.replace('/', '_')}"
            source = f"tuxpaint-stamps-default:{name}.png"
            author = "Tux Paint stamps contributors"
            yield Item("cutout", label, item_name, item_name, "GPL-2.0", author, source, CutOut(path))


@dataclass(frozen=True)
class CutOut:
    """Writes an image with transparency, cropped to what is opaque.

    Attributes:
        path: Image file.
    """

    path: Path

    def __call__(self, stem: Path) -> list[tuple[Path, str]]:
        """Write ``<stem>.png``."""
        with Image.open(self.path) as file:
            image = file.convert("RGBA")
        image = image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox())
        # Premultiplied resizing keeps the colour of transparent pixels out of the edge.
        smaller = image.convert("RGBa").resize(fitted(image.size), Image.Resampling.LANCZOS).convert("RGBA")
        smaller.save(path := Path(f"{stem}.png"), optimize=True)
        return [(path, "cutout")]
