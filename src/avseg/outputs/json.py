"""``result.json``: the whole prediction as JSON (format 1), from which it is loaded again; and as COCO annotations."""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from avseg.documents import check_fields, is_count, is_list_of, is_number, is_text, read_json
from avseg.errors import MediaError
from avseg.media import rle
from avseg.media.container import MOST_PIXELS
from avseg.outputs._base import Output
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
        text = json.dumps(data, ensure_ascii=False)
        # A file name that is not UTF-8 becomes a JSON escape, which json.loads turns back.
        (self.folder / FILE).write_text(text, encoding="utf-8", errors="backslashreplace")


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
        MediaError: When the folder has none, or it is malformed.
    """
    return load_with_files(folder, kind)[0]


def load_with_files(folder: str | Path, kind: type[R]) -> tuple[R, dict[str, list[str]]]:
    """Return what :func:`load` returns, and the files that were written: output → paths relative to the folder."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise MediaError(f"{path} does not exist: give a folder written by avseg predict")
    data = read_json(path, MediaError, "a result of avseg")
    check_fields(data, _FIELDS, path, MediaError)
    height, width = data["size"]
    names, notes = tuple(data["class_names"]), tuple(data["notes"])
    try:
        frames = tuple(_frame(frame, (height, width), len(names)) for frame in data["frames"])
    except (KeyError, TypeError, ValueError, AttributeError, LookupError) as error:
        raise MediaError(f"{path} is not a result of avseg ({error!r}): restore it from a copy") from error
    source, model = Path(data["source"]), data["model"]
    made_by = data.get("weights_sha256"), data.get("avseg_version")
    record = kind(source, (height, width), names, frames, data["end"], model, data["options"], notes, *made_by)
    return record, data.get("files", {})


def _is_frame_size(value: object) -> bool:
    return is_list_of(value, is_count) and len(value) == 2 and value[0] * value[1] <= MOST_PIXELS  # type: ignore[arg-type,index]


_FIELDS = {
    "format": (lambda value: value == _FORMAT, f"{_FORMAT}; other formats need another version of avseg"),
    "source": (is_text, "the path of the video"),
    "size": (_is_frame_size, "a height and width in pixels"),
    "class_names": (lambda value: is_list_of(value, is_text) and 2 <= len(value) <= 256, "2 to 256 names"),
    "end": (is_number, "a number of seconds"),
    "model": (is_text, "the name of a model"),
    "options": (lambda value: isinstance(value, dict), "an object"),
    "notes": (lambda value: is_list_of(value, is_text), "a list of texts"),
    "frames": (lambda value: isinstance(value, list) and bool(value), "a list of one frame or more"),
}
"""Fields of result.json, with the test and the description of each."""


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
        "units": {name: unit for name, unit in UNITS.items() if name != "uncertainty" or record.has_uncertainty},
        "intervals": [interval._asdict() for interval in record.intervals],
        "frames": [
            {
                "time": frame.time,
                "score": round(float(score), 4),
                "regions": [_region_as_dict(region) for region in frame.regions],
                **({"uncertainty": _map_as_dict(frame.uncertainty)} if frame.uncertainty else {}),
            }
            for frame, score in zip(record.frames, record.scores, strict=True)
        ],
    }


def to_coco(record: Record) -> dict[str, Any]:
    """Return the masks as a COCO data set: images, annotations with run lengths, categories.

    The file name of an image is that of its mask (``masks/000012.png`` → ``000012.png``); ``time`` is in seconds. With
    uncertainty, an annotation has its mean ``uncertainty``.
    """
    height, width = record.size
    images = [
        {"id": i, "file_name": f"{i:06d}.png", "height": height, "width": width, "time": frame.time}
        for i, frame in enumerate(record.frames)
    ]
    annotations = [
        {
            "image_id": i,
            "category_id": region.label,
            "segmentation": {"size": list(region.rle.size), "counts": region.rle.counts.decode()},
            "area": rle.area(region.rle),
            "bbox": list(rle.box(region.rle)),
            "iscrowd": 0,
            "score": region.score,
            **_uncertainty(region),
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


def _uncertainty(region: Region) -> dict[str, float]:
    return {} if region.uncertainty is None else {"uncertainty": region.uncertainty}


def _region_as_dict(region: Region) -> dict[str, Any]:
    size, counts = list(region.rle.size), region.rle.counts.decode()
    return {"label": region.label, "score": region.score, "size": size, "counts": counts, **_uncertainty(region)}


def _map_as_dict(found: UncertaintyMap) -> dict[str, Any]:
    return {"mean": found.mean, "size": list(found.size), "png": b64encode(found.png).decode()}


def _frame(data: Mapping[str, Any], size: tuple[int, int], classes: int) -> Frame:
    found = data.get("uncertainty")
    if not is_number(data["time"]):
        raise ValueError(f"the time of a frame must be a number, got {data['time']!r}")
    return Frame(data["time"], tuple(_region(r, size, classes) for r in data["regions"]), found and _map(found))


def _region(data: Mapping[str, Any], size: tuple[int, int], classes: int) -> Region:
    label, score, doubt = data["label"], data["score"], data.get("uncertainty")
    if not (is_count(label, classes - 1) and is_number(score) and (doubt is None or is_number(doubt))):
        raise ValueError(f"a region has label {label!r}, score {score!r} and uncertainty {doubt!r}")
    mask = rle.RLE(size, data["counts"].encode())
    rle.counts(mask)  # raises ValueError here rather than when the mask is used
    return Region(label, score, mask, doubt)


def _map(data: Mapping[str, Any]) -> UncertaintyMap:
    return UncertaintyMap(data["mean"], (data["size"][0], data["size"][1]), b64decode(data["png"]))
