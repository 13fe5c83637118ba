"""COCO's JSON of labelled pictures → labels: polygons, and run lengths compressed or not.

A picture that is listed is labelled, also when nothing is drawn in it. What is drawn later covers what was before.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avseg.errors import DataError
from avseg.media import rle

Labels = NDArray[np.int64]


class Drawing(NamedTuple):
    """The labels of one picture, as they are drawn.

    Attributes:
        file: Where they are listed.
        name: COCO's ``file_name``.
        size: (H, W).
        time: Seconds since the start of the video, where the file says.
        shapes: Class and segmentation of each thing, in order.
    """

    file: Path
    name: str
    size: tuple[int, int]
    time: float | None
    shapes: tuple[tuple[str, Any], ...]

    def labels(self, class_names: Sequence[str]) -> Labels:
        """(H, W) int64.

        Args:
            class_names: Label → name.

        Raises:
            DataError: When a segmentation cannot be drawn.
        """
        labels = np.zeros(self.size, np.int64)
        try:
            for name, segmentation in self.shapes:
                labels[mask_of(segmentation, self.size)] = class_names.index(name)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{self.file}: the {name} in {self.name} cannot be drawn: {error}") from None
        return labels


class Coco(NamedTuple):
    """What a file holds.

    Attributes:
        class_names: In the order of their ids, without the background.
        drawings: One for each picture.
    """

    class_names: tuple[str, ...]
    drawings: tuple[Drawing, ...]


def read_coco(path: Path) -> Coco:
    """The pictures of a COCO file.

    Raises:
        DataError: When it cannot be read or lacks something.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        names = {c["id"]: str(c["name"]) for c in sorted(tree["categories"], key=lambda c: int(c["id"]))}
        shapes: dict[Any, list[tuple[str, Any]]] = {image["id"]: [] for image in tree["images"]}
        for thing in tree["annotations"]:
            shapes[thing["image_id"]].append((names[thing["category_id"]], thing["segmentation"]))
        return Coco(
            tuple(names.values()), tuple(_drawing(path, image, shapes[image["id"]]) for image in tree["images"])
        )
    except KeyError as error:
        raise DataError(f"{path} is not COCO's JSON of instances: {error} is missing") from None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read {path} as COCO's JSON of instances: {error}") from None


def _drawing(file: Path, image: Mapping[str, Any], shapes: Sequence[tuple[str, Any]]) -> Drawing:
    time = image.get("time")
    if time is not None and not float(time) >= 0.0:
        raise ValueError(f"the time of {image['file_name']!r} is {time} s")
    size = int(image["height"]), int(image["width"])
    return Drawing(file, str(image["file_name"]), size, None if time is None else float(time), tuple(shapes))


def mask_of(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W): where a COCO segmentation is.

    Args:
        segmentation: A list of polygons ``[x, y, x, y, ...]``, or a dictionary of ``size`` and ``counts``.
        size: (H, W) of the picture.

    Raises:
        ValueError: When it does not fit the picture, or is neither.
    """
    if isinstance(segmentation, Mapping):
        if tuple(segmentation["size"]) != size:
            raise ValueError(f"its run lengths are of {segmentation['size']} pixels, the picture has {list(size)}")
        counts = segmentation["counts"]
        return rle.decode(rle.RLE(size, counts.encode())) if isinstance(counts, str) else _runs(counts, size)
    if not isinstance(segmentation, list):
        raise ValueError(f"a segmentation is a list of polygons or run lengths, got {segmentation!r}")
    mask = np.zeros(size, bool)
    for polygon in segmentation:
        mask |= _inside(np.asarray(polygon, np.float64).reshape(-1, 2), size)
    return mask


def _runs(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Uncompressed run lengths, column by column, the first of them background."""
    height, width = size
    if sum(counts) != height * width:
        raise ValueError(f"its run lengths fill {sum(counts)} pixels, not {list(size)}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _inside(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose middle is inside a polygon.

    Going right along a row of middles, each edge that is crossed switches between outside and inside.
    """
    height, width = size
    switches = np.zeros((height, width + 1), np.int64)
    middles = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        rows = np.flatnonzero((y0 <= middles) != (y1 <= middles))
        crossings = x0 + (middles[rows] - y0) * (x1 - x0) / (y1 - y0) if len(rows) else middles[rows]
        switches[rows, np.ceil(crossings - 0.5).clip(0, width).astype(np.int64)] += 1
    return np.asarray(switches[:, :-1].cumsum(1) % 2 == 1)
