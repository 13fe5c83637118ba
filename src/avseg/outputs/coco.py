"""``coco.json`` and ``coco_polygons.json``: the regions as COCO annotations, exact run lengths and polygons."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avseg.media import rle
from avseg.outputs._base import Output
from avseg.outputs._polygons import PolygonConfig, polygons
from avseg.outputs.frames import Format
from avseg.outputs.json import uncertainty_of
from avseg.prediction.record import Record
from avseg.prediction.regions import Region

Segmentation = Callable[[Region], Any]


class Coco(Output):
    """Run lengths are the masks themselves; polygons can be edited in every annotation tool."""

    @dataclass(frozen=True)
    class Config(PolygonConfig):
        """Settings of the annotations."""

    files = ("coco.json", "coco_polygons.json")

    def __init__(self, record: Record, folder: Path, config: Config) -> None:
        super().__init__(record, folder)
        self._config = config

    def finish(self) -> None:
        """Write both files."""

        def polygon_lists(region: Region) -> list[list[float]]:
            found = polygons(rle.decode(region.rle), self._config.tolerance)
            return [np.round(polygon, 2).ravel().tolist() for polygon in found]

        for name, segmentation in (("coco.json", run_lengths), ("coco_polygons.json", polygon_lists)):
            data = to_coco(self.record, self._config.format, segmentation)
            (self.folder / name).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def run_lengths(region: Region) -> dict[str, Any]:
    """Return the mask of a region as COCO's compressed run lengths."""
    return {"size": list(region.rle.size), "counts": region.rle.counts.decode()}


def to_coco(record: Record, image_format: Format = "png", segmentation: Segmentation = run_lengths) -> dict[str, Any]:
    """Return the masks as a COCO data set: images, annotations, categories.

    The file name of an image is that of the output ``frames``, and of its mask (``masks/000012.png`` →
    ``000012.png``); ``time`` is in seconds. With uncertainty, an annotation has its mean ``uncertainty``.

    Args:
        record: The prediction.
        image_format: Suffix of the file names.
        segmentation: Returns the field of that name for a region.
    """
    height, width = record.size
    images = [
        {"id": i, "file_name": f"{i:06d}.{image_format}", "height": height, "width": width, "time": frame.time}
        for i, frame in enumerate(record.frames)
    ]
    annotations = [
        {
            "image_id": i,
            "category_id": region.label,
            "segmentation": segmentation(region),
            "area": rle.area(region.rle),
            "bbox": list(rle.box(region.rle)),
            "iscrowd": 0,
            "score": region.score,
            **uncertainty_of(region),
        }
        for i, frame in enumerate(record.frames)
        for region in frame.regions
    ]
    return {
        "info": {"description": f"Sounding objects in {record.source.name}, predicted by avseg's {record.model}"},
        "images": images,
        "annotations": [{"id": i, **annotation} for i, annotation in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": n} for i, n in enumerate(record.class_names) if i],
    }
