"""Rasterise COCO JSON annotations to labels: polygons, and compressed or uncompressed run lengths.

A listed image is labelled even if it has no annotation. Later annotations cover earlier ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avseg.documents import read_json
from avseg.errors import DataError
from avseg.media import rle
from avseg.media.container import MOST_PIXELS

Labels = NDArray[np.int64]

MOST_SECONDS = 7 * 86_400
"""Largest time of a label: a week."""
_FARTHEST = 1e6
"""Largest coordinate of a polygon, which may extend beyond its image."""


class CocoImage(NamedTuple):
    """One image of a COCO file, with its annotations.

    Attributes:
        file: The COCO file.
        name: COCO's ``file_name``.
        size: (H, W).
        time: Seconds since the start of the video, if the file gives it.
        shapes: Class and segmentation of each object, in order.
    """

    file: Path
    name: str
    size: tuple[int, int]
    time: float | None
    shapes: tuple[tuple[str, Any], ...]

    def labels(self, class_names: Sequence[str]) -> Labels:
        """Rasterise the annotations to (H, W) int64 labels.

        Args:
            class_names: Label → name.

        Raises:
            DataError: When a segmentation is not valid.
        """
        labels = np.zeros(self.size, np.int64)
        try:
            for name, segmentation in self.shapes:
                labels[mask_of(segmentation, self.size)] = class_names.index(name)
        except (ValueError, TypeError, KeyError, ArithmeticError) as error:
            raise DataError(f"{self.file}: the segmentation of {name} in {self.name} is not valid: {error}") from None
        return labels


class Coco(NamedTuple):
    """Content of a COCO file.

    Attributes:
        class_names: Names in the order of their ids, without the background.
        images: The images.
    """

    class_names: tuple[str, ...]
    images: tuple[CocoImage, ...]


def read_coco(path: Path) -> Coco:
    """Read a COCO file.

    Raises:
        DataError: When it cannot be read or a field is missing.
    """
    try:
        tree = read_json(path, DataError, "a COCO instances file")
        names = {c["id"]: str(c["name"]) for c in sorted(tree["categories"], key=lambda c: int(c["id"]))}
        shapes: dict[Any, list[tuple[str, Any]]] = {image["id"]: [] for image in tree["images"]}
        for annotation in tree["annotations"]:
            shapes[annotation["image_id"]].append((names[annotation["category_id"]], annotation["segmentation"]))
        return Coco(tuple(names.values()), tuple(_image(path, image, shapes[image["id"]]) for image in tree["images"]))
    except KeyError as error:
        raise DataError(f"{path} is not a COCO instances file: {error} is missing") from None
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise DataError(f"cannot read {path} as a COCO instances file: {error}") from None


def _image(file: Path, image: Mapping[str, Any], shapes: Sequence[tuple[str, Any]]) -> CocoImage:
    time = image.get("time")
    if time is not None and not 0.0 <= float(time) <= MOST_SECONDS:
        raise ValueError(f"the time of {image['file_name']!r} must be 0 to {MOST_SECONDS} s, got {time}")
    size = int(image["height"]), int(image["width"])
    if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
        raise ValueError(
            f"the height and width of {image['file_name']!r} must be 1 or more and have at most "
            f"{MOST_PIXELS // 10**6} megapixels, got {list(size)}"
        )
    return CocoImage(file, str(image["file_name"]), size, None if time is None else float(time), tuple(shapes))


def mask_of(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Rasterise a COCO segmentation to an (H, W) mask.

    Args:
        segmentation: A list of polygons ``[x, y, x, y, ...]``, or a dictionary of ``size`` and ``counts``.
        size: (H, W) of the image.

    Raises:
        ValueError: When it does not fit the image, or has another form.
    """
    if isinstance(segmentation, Mapping):
        if tuple(segmentation["size"]) != size:
            raise ValueError(f"its run lengths are of {segmentation['size']} pixels, the image has {list(size)}")
        counts = segmentation["counts"]
        return rle.decode(rle.RLE(size, counts.encode())) if isinstance(counts, str) else _runs(counts, size)
    if not isinstance(segmentation, list):
        raise ValueError(f"a segmentation is a list of polygons or run lengths, got {segmentation!r}")
    mask = np.zeros(size, bool)
    for polygon in segmentation:
        corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        if not (np.abs(corners) <= _FARTHEST).all():
            raise ValueError(f"the coordinates of a polygon must be numbers within {_FARTHEST:.0e} pixels")
        mask |= _inside(corners, size)
    return mask


def _runs(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode uncompressed run lengths, which go down the columns and begin with background."""
    height, width = size
    if sum(counts) != height * width:
        raise ValueError(f"its run lengths add up to {sum(counts)} pixels, not {list(size)}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _inside(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels with their centre inside a polygon.

    Even-odd rule: along a row of pixel centres, each crossed edge switches between outside and inside.
    """
    height, width = size
    switches = np.zeros((height, width + 1), np.int64)
    middles = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        rows = np.flatnonzero((y0 <= middles) != (y1 <= middles))
        crossings = x0 + (middles[rows] - y0) * (x1 - x0) / (y1 - y0) if len(rows) else middles[rows]
        switches[rows, np.ceil(crossings - 0.5).clip(0, width).astype(np.int64)] += 1
    return np.asarray(switches[:, :-1].cumsum(1) % 2 == 1)
