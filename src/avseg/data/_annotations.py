"""The labelled moments of a user's videos, from PNG masks or COCO's JSON."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from avseg.data._coco import Coco, Drawing, read_coco
from avseg.errors import DataError


class Moment(NamedTuple):
    """One frame of a clip.

    Attributes:
        time: Seconds since the start of the video.
        mask: Its labels, a file or a drawing; None when it is not labelled.
    """

    time: float
    mask: Path | Drawing | None


def read_annotations(root: Path) -> dict[str, Coco]:
    """``annotations.json``, under the name "", and the files of ``annotations``, under those of their videos.

    Raises:
        DataError: When one cannot be read.
    """
    one, several = root / "annotations.json", root / "annotations"
    files = {path.relative_to(several).with_suffix("").as_posix(): path for path in sorted(several.rglob("*.json"))}
    return {name: read_coco(path) for name, path in (({"": one} if one.is_file() else {}) | files).items()}


def labelled_moments(root: Path, annotations: Mapping[str, Coco]) -> dict[str, list[Moment]]:
    """Name of each labelled video → its labelled moments in order, one for each second that has any.

    Of several in one second that closest to its middle counts.

    Args:
        root: Holds ``masks``, unless there are annotations.
        annotations: From :func:`read_annotations`.

    Raises:
        DataError: When there is none, or a name does not say of which second it is.
    """
    masks = root / "masks"
    if masks.is_dir() and annotations:
        raise DataError(f"{root} has masks and annotations: which are meant? Move one of them away")
    found: dict[str, dict[int, list[Moment]]] = {}
    for name, moment in _painted(masks) if masks.is_dir() else _drawn(annotations):
        found.setdefault(name, {}).setdefault(int(moment.time), []).append(moment)
    if not found:
        raise DataError(f"no masks in {root}: expected masks/<video>/<second>.png, or annotations.json")
    return {name: [_middle(found[name][k]) for k in sorted(found[name])] for name in sorted(found)}


def clips_of(moments: Iterable[Moment], seconds: int) -> Iterator[tuple[Moment, ...]]:
    """Labelled moments, and those between them, cut into clips; each ends with its last labelled one.

    Args:
        moments: Of one video.
        seconds: Length of a clip; 0 makes one of all.
    """
    known = {int(moment.time): moment for moment in moments}
    end = max(known) + 1
    length = seconds or end
    for start in range(0, end, length):
        if inside := [k for k in known if start <= k < start + length]:
            yield tuple(known.get(k, Moment(k + 0.5, None)) for k in range(start, max(inside) + 1))


def _middle(moments: list[Moment]) -> Moment:
    return min(moments, key=lambda moment: abs(moment.time % 1.0 - 0.5))


def _painted(masks: Path) -> Iterator[tuple[str, Moment]]:
    """The PNG masks: video, moment."""
    for path in sorted(masks.rglob("*.png")):
        if not path.stem.isdecimal():
            raise DataError(f"{path}: a mask is named after its second, such as 3.png for the picture at 3.5 s")
        yield path.parent.relative_to(masks).as_posix(), Moment(int(path.stem) + 0.5, path)


def _drawn(files: Mapping[str, Coco]) -> Iterator[tuple[str, Moment]]:
    """The drawings of COCO files: video, moment."""
    for video, coco in files.items():
        for drawing in coco.drawings:
            place = Path(drawing.name)
            if drawing.time is None and not place.stem.isdecimal():
                raise DataError(
                    f'{drawing.file}: image {drawing.name!r} needs a "time", or the name <video>/<second>.png'
                )
            time = int(place.stem) + 0.5 if drawing.time is None else drawing.time
            yield video or place.parent.as_posix(), Moment(time, drawing)
