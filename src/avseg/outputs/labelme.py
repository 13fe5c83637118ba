"""``labelme/000000.json`` …: the regions of every frame as polygons for LabelMe."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avseg.media import rle
from avseg.outputs._base import Output, OutputFrame, numbered
from avseg.outputs._polygons import PolygonConfig, polygons
from avseg.prediction.record import Record


class Labelme(Output):
    """One file per frame; the parts of a region share its ``group_id``. Images are those of the output frames."""

    @dataclass(frozen=True)
    class Config(PolygonConfig):
        """Settings of the annotations."""

    files = numbered("labelme", "json")

    def __init__(self, record: Record, folder: Path, config: Config) -> None:
        super().__init__(record, folder)
        self._config = config
        (folder / "labelme").mkdir()

    def add(self, frame: OutputFrame) -> None:
        """Write the annotations of one frame."""
        data: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": self._shapes(frame.index),
            "imagePath": f"../frames/{frame.index:06d}.{self._config.format}",
            "imageData": None,
            "imageHeight": self.record.size[0],
            "imageWidth": self.record.size[1],
        }
        path = self.folder / "labelme" / f"{frame.index:06d}.json"
        path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")

    def _shapes(self, index: int) -> list[dict[str, Any]]:
        return [
            {
                "label": self.record.class_names[region.label],
                "points": np.round(polygon, 2).tolist(),
                "group_id": region.label,
                "description": f"score {region.score}",
                "shape_type": "polygon",
                "flags": {},
            }
            for region in self.record.frames[index].regions
            for polygon in polygons(rle.decode(region.rle), self._config.tolerance)
        ]
