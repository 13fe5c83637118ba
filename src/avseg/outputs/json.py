"""``result.json``: the whole prediction as JSON (format 1), from which it is loaded again."""

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
from avseg.prediction.grey_maps import GreyMap
from avseg.prediction.objects import NamedObject
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
        written = {"files": {**self.written, "json": [FILE]}, "output_settings": self.settings}
        data = {**to_dict(self.record), **written}
        # A file name that is not UTF-8 becomes a JSON escape, which json.loads turns back.
        text = json.dumps(data, ensure_ascii=False)
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


def load_with_files(folder: str | Path, kind: type[R]) -> tuple[R, dict[str, list[str]], dict[str, Any]]:
    """Return what :func:`load` returns, the files that were written, and the settings of their outputs.

    Files are paths relative to the folder; both are mappings of the name of an output.
    """
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
    return record, data.get("files") or {}, data.get("output_settings") or {}


def _is_frame_size(value: Any) -> bool:
    return is_list_of(value, is_count) and len(value) == 2 and value[0] * value[1] <= MOST_PIXELS


def _is_text_or_none(value: object) -> bool:
    return value is None or is_text(value)


def _is_files(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(is_list_of(paths, is_text) for paths in value.values()))


_FIELDS = {
    "format": (lambda value: value == _FORMAT, f"{_FORMAT}; other formats need another version of avseg"),
    "source": (is_text, "the path of the video"),
    "size": (_is_frame_size, "a height and width in pixels"),
    "class_names": (lambda value: is_list_of(value, is_text) and 2 <= len(value) <= 256, "2 to 256 names"),
    "end": (is_number, "a number of seconds"),
    "model": (is_text, "the name of a model"),
    "options": (lambda value: isinstance(value, dict), "an object"),
    "notes": (lambda value: is_list_of(value, is_text), "a list of texts"),
    "weights_sha256": (_is_text_or_none, "a checksum, or null"),
    "avseg_version": (_is_text_or_none, "a version, or null"),
    "files": (_is_files, "paths by output"),
    "frames": (lambda value: isinstance(value, list) and bool(value), "a list of one frame or more"),
}
"""Fields of result.json, with the test and the description of each."""


def listed_files(folder: Path) -> frozenset[str]:
    """Return the paths, relative to a folder, of the files that its result.json lists; none without a valid one.

    A result.json without the field ``files``, as written by earlier versions, lists the images of all its frames.
    """
    try:
        data = read_json(folder / FILE, MediaError, "a result of avseg")
        check_fields(data, _FIELDS, folder / FILE, MediaError)
    except (MediaError, OSError):
        return frozenset()
    if isinstance(files := data.get("files"), dict):
        return frozenset(name for names in files.values() if is_list_of(names, is_text) for name in names)
    return frozenset(f"{kind}/{i:06d}.png" for kind in ("masks", "uncertainty") for i in range(len(data["frames"])))


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
        "intervals": [
            {**interval._asdict(), **({"object": found._asdict()} if found else {})}
            for interval, found in zip(record.intervals, record.objects, strict=True)
        ],
        "frames": [
            {
                "time": frame.time,
                "score": round(float(score), 4),
                "regions": [_region_as_dict(region) for region in frame.regions],
                **({"uncertainty": _map_as_dict(frame.uncertainty)} if frame.uncertainty else {}),
                **({"probability": _grey_as_dict(frame.probability)} if frame.probability else {}),
                **({"objects": [found._asdict() for found in frame.objects]} if frame.objects else {}),
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


def _frame(data: Mapping[str, Any], size: tuple[int, int], classes: int) -> Frame:
    uncertainty, probability = data.get("uncertainty"), data.get("probability")
    if not is_number(data["time"]):
        raise ValueError(f"the time of a frame must be a number, got {data['time']!r}")
    return Frame(
        data["time"],
        tuple(_region(r, size, classes) for r in data["regions"]),
        uncertainty and UncertaintyMap(uncertainty["mean"], *_grey(uncertainty)),
        probability and _grey(probability),
        tuple(_object(found) for found in data.get("objects", ())),
    )


def _object(data: Mapping[str, Any]) -> NamedObject:
    if not (is_text(data["name"]) and is_number(data["score"])):
        raise ValueError(f"an object has name {data['name']!r} and score {data['score']!r}")
    return NamedObject(data["name"], data["score"])


def _region(data: Mapping[str, Any], size: tuple[int, int], classes: int) -> Region:
    label, score, doubt = data["label"], data["score"], data.get("uncertainty")
    if not (is_count(label, classes - 1) and is_number(score) and (doubt is None or is_number(doubt))):
        raise ValueError(f"a region has label {label!r}, score {score!r} and uncertainty {doubt!r}")
    mask = rle.RLE(size, data["counts"].encode())
    rle.counts(mask)  # raises ValueError here rather than when the mask is used
    return Region(label, score, mask, doubt)


def _grey(data: Mapping[str, Any]) -> GreyMap:
    return GreyMap((data["size"][0], data["size"][1]), b64decode(data["png"]))
