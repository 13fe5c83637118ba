"""Your own videos and masks: any container, frame rate, frame size and length.

::

    ROOT/videos/<name>.mp4            or .mkv, .mov, .webm, ...; subfolders are part of the name
    ROOT/masks/<name>/<k>.png         mask of second k, for the frame shown at k + 0.5 s
    ROOT/classes.txt                  one class per line: label 1, label 2, ...
    ROOT/split.csv                    video,split

Instead of ``masks`` there may be COCO JSON: ``annotations.json`` with images named ``<name>/<k>.png``, or
``annotations/<name>.json`` for each video. An image may have a ``time`` in seconds, as in the files written by
``Result.to_coco``; otherwise its number is the second. The frame of second k is taken at its labelled time, at the one
nearest to k + 0.5 s if there are several, and at k + 0.5 s if there is none.

A mask has the size of the frame. Without ``classes.txt`` the classes are COCO's categories; PNG masks then have one
class, and all values but 0 are sounding. With several classes the label 255 is not scored.

``split.csv`` may be replaced by ``train.txt``, ``val.txt`` and ``test.txt``, one name per line. Without any list the
videos are sorted by a checksum of their names: the first tenth is test, the second val, at least one video each.
Only ``split.csv`` can keep related recordings in one split.

A video is cut into clips of ``seconds``; a clip ends with its last labelled second. Clips and videos without labels are
left out. Videos are decoded in every epoch: ``avseg data prepare`` decodes them once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from avseg.data._annotations import Moment, clips_of, labelled_moments, read_annotations
from avseg.data._coco import Coco, CocoImage
from avseg.data._file_dataset import Entry, FileConfig, FileDataset, Labels, Part, Shot, check_labels
from avseg.data._log_mel import cached
from avseg.data._masks import read_binary
from avseg.data._splits import lines_of, splits_of
from avseg.errors import ConfigError, DataError, did_you_mean
from avseg.interface import IGNORE
from avseg.media.images import read_labels
from avseg.media.sound import sound_of
from avseg.media.video import pictures_at, probe

_LONG = 600
"""Number of seconds in a clip from which on the declared length of its video is checked first."""


class Videos(FileDataset):
    """Your own videos with masks as PNG or COCO JSON, decoded on access.

    Args:
        config: Settings.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ConfigError: When a setting cannot work.
        DataError: When a file is missing or does not fit the others.
        MediaError: When a video cannot be decoded, or has no audio track.
    """

    @dataclass(frozen=True)
    class Config(FileConfig):
        """Settings of :class:`Videos`; root is the folder that holds ``videos``.

        Attributes:
            audio: "wav_centred": the patch of 0.96 s centred on the time of each frame.
            seconds: Length of a clip; 0 makes each video one clip.
            classes: "all": the classes of the labels. "one": a single class, "sounding", for all labels.
        """

        audio: Literal["wav_centred"] = "wav_centred"
        seconds: int = 10
        classes: Literal["all", "one"] = "all"

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.seconds < 0:
                raise ConfigError(f"seconds must be 0 (the whole video) or more, got {self.seconds}")

    mark: ClassVar[str] = "videos and masks"
    ignored: ClassVar[frozenset[str]] = frozenset({"classes.txt", "split.csv", "train.txt", "val.txt", "test.txt"})

    @classmethod
    def recognise(cls, root: Path) -> list[dict[str, Any]]:
        """Return one data set if there are videos and labels."""
        labelled = any((root / name).exists() for name in ("masks", "annotations", "annotations.json"))
        return [{"root": str(root)}] if labelled and (root / "videos").is_dir() else []

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return label → name."""
        return ("background", "sounding") if self.config.classes == "one" else ("background", *self._stored_names)

    @cached_property
    def _stored_names(self) -> tuple[str, ...]:
        """Return the classes of ``classes.txt`` or COCO, without the background."""
        annotated = list(dict.fromkeys(name for coco in self._coco.values() for name in coco.class_names))
        listed = lines_of(self.root / "classes.txt")
        if listed is None:
            return tuple(annotated) or ("sounding",)
        names = [name for name in listed if name != "background"]
        if not names or len(set(names)) < len(names):
            raise DataError(f"{self.root / 'classes.txt'} must name each class once, one per line, got {names}")
        if unknown := [name for name in annotated if name not in names]:
            raise DataError(
                f"the annotations have a class {unknown[0]!r}, but {self.root / 'classes.txt'} does not name it. "
                f"{did_you_mean(unknown[0], names)}"
            )
        return tuple(names)

    @cached_property
    def _coco(self) -> dict[str, Coco]:
        return read_annotations(self.root)

    def find(self) -> list[Entry]:
        """List the clips of the split's videos, in order of name and time."""
        labelled, files = labelled_moments(self.root, self._coco), _by_name(self.root / "videos")
        found = []
        for name, split in splits_of(self.root, labelled, files).items():
            if split == self.split:
                video = _only(name, self.root / "videos", files.get(name, []))
                found += [_entry(name, video, clip) for clip in clips_of(labelled[name], self.config.seconds)]
        return found

    def shots(self, entry: Entry) -> list[Shot]:
        """Decode the frames of a clip and read their labels."""
        pictures = self._pictures(entry)
        return [Shot(picture, self._labels(m, picture.size)) for picture, m in zip(pictures, entry.notes, strict=True)]

    def parts(self, entry: Entry) -> Iterator[Part]:
        """Yield the frames, masks and audio of a clip; frames and audio are the video file."""
        size: list[tuple[int, int]] = []

        def video(path: Path) -> tuple[int, int]:
            size.append(self._pictures(entry)[0].size)
            return size[0]

        def mask(moment: Moment, path: Path) -> tuple[int, int]:
            labels = self._labels(moment, size[0] if size else None)
            return (0, 0) if labels is None else (labels.shape[1], labels.shape[0])

        def sound(path: Path) -> None:
            self.log_mel_of(entry)

        yield Part("frames", entry.frames[0], video)
        for moment in entry.notes:
            if moment.mask is not None:
                path = moment.mask.file if isinstance(moment.mask, CocoImage) else moment.mask
                yield Part("masks", path, partial(mask, moment))
        yield Part("sounds", entry.sounds[0], sound)

    def _pictures(self, entry: Entry) -> list[Image.Image]:
        """Decode the frames of a clip."""
        video, moments = entry.frames[0], entry.notes
        images = list(pictures_at(video, [moment.time for moment in moments]))
        if len(images) < len(moments):
            last = moments[-1].time
            raise DataError(f"{video} ends before {last:g} s, the time of a mask: name masks by second, from 0")
        return [Image.fromarray(image) for image in images]

    def _labels(self, moment: Moment, size: tuple[int, int] | None) -> Labels | None:
        """Read the labels of a moment, None without a mask; check ``size``, width and height of the frame, if given."""
        mask = moment.mask
        if mask is None:
            return None
        if isinstance(mask, CocoImage):
            labels, name = self._merged(mask.labels(("background", *self._stored_names))), f"{mask.file}: {mask.name}"
        else:
            labels, name = self.labels(mask), str(mask)
        if size is not None and labels.shape[::-1] != size:
            raise DataError(f"{name} is {labels.shape[::-1]} pixels, the frames of its video are {size}")
        return labels

    def labels(self, path: Path) -> Labels:
        """Read the labels of a PNG: with one class 1 for all values but 0, with several classes as stored."""
        if len(self._stored_names) == 1:
            return read_binary(path)
        labels = read_labels(path).astype(np.int64)
        return self._merged(check_labels(labels, path, len(self._stored_names) + 1, "classes.txt"))

    def _merged(self, labels: Labels) -> Labels:
        """Merge all classes into one if ``classes`` is "one"."""
        return np.where(labels == IGNORE, IGNORE, labels > 0) if self.config.classes == "one" else labels

    def log_mel_of(self, entry: Entry) -> Tensor:
        """Return log-mel patches (T, 1, 96, 64) centred on the times of the frames."""
        times = [moment.time for moment in entry.notes]

        def read() -> Tensor:
            sound = sound_of(entry.sounds[0])
            return torch.stack([sound.log_mel_at(time) for time in times])

        return cached(self.config.cache, entry.sounds, f"videos {times}", read)


def _entry(name: str, video: Path, moments: tuple[Moment, ...]) -> Entry:
    if len(moments) > _LONG:  # a forged time would make a clip of gigabytes
        _check_length(video, moments[-1].time)
    masks = tuple(moment.mask if isinstance(moment.mask, Path) else None for moment in moments)
    return Entry(f"{name}@{int(moments[0].time)}", (video,) * len(moments), masks, (video,), moments)


def _check_length(video: Path, last: float) -> None:
    """Raise DataError if a video declares to end before its last label."""
    declared = probe(video).duration
    if declared is not None and declared < last:
        raise DataError(f"{video} ends before {last:g} s, the time of a mask: name masks by second, from 0")


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Return name → files of that name with any suffix."""
    found: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return found


def _only(name: str, folder: Path, files: list[Path]) -> Path:
    if len(files) != 1:
        got = " and ".join(path.name for path in files) or "none"
        raise DataError(f"the masks of {name!r} need exactly one video, {folder / name}.<suffix>, got {got}")
    return files[0]
