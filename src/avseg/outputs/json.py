"""``result.json``: the whole prediction as JSON (format 1), from which it is loaded again."""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from avseg.errors import MediaError
from avseg.media import rle
from avseg.outputs._base import Output
from avseg.prediction.grey_maps import GreyMap
from avseg.prediction.record import Record
from avseg.prediction.regions import Frame, Region
from avseg.prediction.uncertainty import UncertaintyMap

R = TypeVar("R", bound=Record)
FILE = "result.json"
_FORMAT = 1
"""Raised when a field of result.json changes or disappears; new fields keep it."""
UNITS = {
    "time": "seconds since the start of the file",
    "size": "[height, width] in pixels",
    "score": "mean probability, 0 to 1",
    "uncertainty": "0 (certain) to 1 (uncertain)",
    "probability": "0 to 1, of any sounding class",
    "counts": "COCO compressed run lengths, column by column",
}
"""Units of the fields of result.json; ``start`` and ``end`` are times."""


class Json(Output):
    """The prediction as JSON."""

    files = (FILE,)
    finishes_last = True

    def finish(self) -> None:
        """Write the file."""
        data = {**to_dict(self.record), "files": {**self.written, "json": [FILE]}}
        (self.folder / FILE).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of result.json."""
    text = files("avseg.outputs").joinpath("result.schema.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def load(folder: str | Path, kind: type[R]) -> R:
    """Read the result.json of a folder.

    Args:
        folder: Folder written by ``avseg predict``.
        kind: Class to create.

    Raises:
        MediaError: When the folder has none, or it is not valid JSON.
    """
    path = Path(folder) / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MediaError(f"{path} is no result of avseg ({error}): give a folder written by avseg predict") from error
    size = (data["size"][0], data["size"][1])
    frames = tuple(_frame(frame, size) for frame in data["frames"])
    names, notes = tuple(data["class_names"]), tuple(data["notes"])
    source, model = Path(data["source"]), data["model"]
    made_by = data.get("weights_sha256"), data.get("avseg_version")
    return kind(source, size, names, frames, data["end"], model, data["options"], notes, *made_by)


def to_dict(record: Record) -> dict[str, Any]:
    """Return the content of result.json as plain values."""
    return {
        "format": _FORMAT,
        "source": str(record.source),
        "size": list(record.size),
        "class_names": list(record.class_names),
        "end": record.end,
        "model": record.model,
        "options": dict(record.options),
        "notes": list(record.notes),
        "weights_sha256": record.weights_sha256,
        "avseg_version": record.version,
        "units": UNITS,
        "intervals": [interval._asdict() for interval in record.intervals],
        "frames": [
            {
                "time": frame.time,
                "score": round(float(score), 4),
                "regions": [_region_as_dict(region) for region in frame.regions],
                **({"uncertainty": _map_as_dict(frame.uncertainty)} if frame.uncertainty else {}),
                **({"probability": _grey_as_dict(frame.probability)} if frame.probability else {}),
            }
            for frame, score in zip(record.frames, record.scores, strict=True)
        ],
    }


def uncertainty_of(region: Region) -> dict[str, float]:
    """Return the field with the mean uncertainty of a region; empty if there is none."""
    return {} if region.uncertainty is None else {"uncertainty": region.uncertainty}


def _region_as_dict(region: Region) -> dict[str, Any]:
    size, counts = list(region.rle.size), region.rle.counts.decode()
    return {"label": region.label, "score": region.score, "size": size, "counts": counts, **uncertainty_of(region)}


def _map_as_dict(found: UncertaintyMap) -> dict[str, Any]:
    return {"mean": found.mean, **_grey_as_dict(GreyMap(found.size, found.png))}


def _grey_as_dict(found: GreyMap) -> dict[str, Any]:
    return {"size": list(found.size), "png": b64encode(found.png).decode()}


def _frame(data: Mapping[str, Any], size: tuple[int, int]) -> Frame:
    regions = (
        Region(r["label"], r["score"], rle.RLE(size, r["counts"].encode()), r.get("uncertainty"))
        for r in data["regions"]
    )
    uncertainty, probability = data.get("uncertainty"), data.get("probability")
    return Frame(
        data["time"],
        tuple(regions),
        uncertainty and UncertaintyMap(uncertainty["mean"], *_grey(uncertainty)),
        probability and _grey(probability),
    )


def _grey(data: Mapping[str, Any]) -> GreyMap:
    return GreyMap((data["size"][0], data["size"][1]), b64decode(data["png"]))
