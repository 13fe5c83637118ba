"""Labelled frames of the user's videos, from PNG masks or COCO JSON."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from avseg.data._coco import MOST_SECONDS, Coco, CocoImage, read_coco
from avseg.errors import DataError


class Moment(NamedTuple):
    """One frame of a clip.

    Attributes:
        time: Seconds since the start of the video.
        mask: Its labels, a PNG file or an image of a COCO file; None if it is not labelled.
    """

    time: float
    mask: Path | CocoImage | None


def read_annotations(root: Path) -> dict[str, Coco]:
    """Read ``annotations.json``, with the key "", and the files in ``annotations``, with their videos' names as keys.

    Raises:
        DataError: When one cannot be read.
    """
    one, several = root / "annotations.json", root / "annotations"
    files = {path.relative_to(several).with_suffix("").as_posix(): path for path in sorted(several.rglob("*.json"))}
    return {name: read_coco(path) for name, path in (({"": one} if one.is_file() else {}) | files).items()}


def labelled_moments(root: Path, annotations: Mapping[str, Coco]) -> dict[str, list[Moment]]:
    """Return video name → its labelled moments in order, at most one per second.

    If a second has several labelled frames, the one closest to its middle is used.

    Args:
        root: Folder that holds ``masks``, unless there are annotations.
        annotations: Result of :func:`read_annotations`.

    Raises:
        DataError: When there are no labels, or a name does not give the second.
    """
    masks = root / "masks"
    if masks.is_dir() and annotations:
        raise DataError(f"{root} has both masks and annotations: remove one of them")
    found: dict[str, dict[int, list[Moment]]] = {}
    for name, moment in _from_masks(masks) if masks.is_dir() else _from_coco(annotations):
        found.setdefault(name, {}).setdefault(int(moment.time), []).append(moment)
    if not found:
        raise DataError(f"no masks in {root}: expected masks/<video>/<second>.png, or annotations.json")
    return {name: [_middle(found[name][k]) for k in sorted(found[name])] for name in sorted(found)}


def clips_of(moments: Iterable[Moment], seconds: int) -> Iterator[tuple[Moment, ...]]:
    """Cut labelled moments, and the unlabelled seconds between them, into clips that end with a labelled one.

    Args:
        moments: Labelled moments of one video.
        seconds: Length of a clip; 0 makes a single clip.
    """
    known = {int(moment.time): moment for moment in moments}
    end = max(known) + 1
    length = seconds or end
    lasts = {k // length: k for k in sorted(known)}  # clip → its last labelled second
    for clip, last in lasts.items():
        yield tuple(known.get(k, Moment(k + 0.5, None)) for k in range(clip * length, last + 1))


def _middle(moments: list[Moment]) -> Moment:
    return min(moments, key=lambda moment: abs(moment.time % 1.0 - 0.5))


def _from_masks(masks: Path) -> Iterator[tuple[str, Moment]]:
    """Yield video and moment of each PNG mask."""
    for path in sorted(masks.rglob("*.png")):
        if not path.stem.isdecimal():
            raise DataError(f"{path}: a mask is named after its second, such as 3.png for the frame at 3.5 s")
        yield path.parent.relative_to(masks).as_posix(), Moment(_second(path.stem, path) + 0.5, path)


def _second(stem: str, place: Path) -> int:
    """Return the second that a file name of digits gives."""
    if len(stem) > 18 or int(stem) > MOST_SECONDS:
        raise DataError(f"{place}: a label is at most at second {MOST_SECONDS}: rename or remove it")
    return int(stem)


def _from_coco(files: Mapping[str, Coco]) -> Iterator[tuple[str, Moment]]:
    """Yield video and moment of each image in COCO files."""
    for video, coco in files.items():
        for image in coco.images:
            place = Path(image.name)
            if image.time is None and not place.stem.isdecimal():
                raise DataError(f'{image.file}: image {image.name!r} needs a "time", or the name <video>/<second>.png')
            time = _second(place.stem, image.file / place) + 0.5 if image.time is None else image.time
            yield video or place.parent.as_posix(), Moment(time, image)
