"""Your own videos and masks, as they are: any container, frame rate, picture size and length.

::

    ROOT/videos/<name>.mp4            or .mkv, .mov, .webm, ...; folders below are part of the name
    ROOT/masks/<name>/<k>.png         of second k, drawn on the picture shown at k + 0.5 s
    ROOT/classes.txt                  one class a line: label 1, label 2, ...
    ROOT/split.csv                    video,split

Instead of ``masks`` there may be COCO's JSON: ``annotations.json``, whose images are named ``<name>/<k>.png``, or
``annotations/<name>.json`` for each video. An image may say its ``time`` in seconds, as those of
``Result.to_coco`` do; else its number is that of the second. A second is shown at its labelled moment, at the one
nearest to k + 0.5 s if there are several, and at k + 0.5 s if there is none.

A mask is as large as the picture. Without ``classes.txt`` the classes are COCO's categories; PNG masks then mean one
class, and everything but 0 sounds. With several classes the label 255 is not scored.

``split.csv`` may be left out for ``train.txt``, ``val.txt`` and ``test.txt``, one name a line. Without either a
checksum of the names sorts the videos; of that order the first tenth is test, the second val, each one video at least.
Recordings that belong together are kept together by ``split.csv`` alone.

A video is cut into clips of ``seconds``; a clip ends with its last labelled second, and one without any is left out,
as is a video without masks. Decoding costs time in every epoch: ``avseg data prepare`` does it once.
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
from avseg.data._coco import Coco, Drawing
from avseg.data._file_dataset import Entry, FileConfig, FileDataset, Labels, Part, Shot, check_labels
from avseg.data._masks import read_binary
from avseg.data._sound import remembered
from avseg.data._splits import lines_of, splits_of
from avseg.errors import ConfigError, DataError, did_you_mean
from avseg.interface import IGNORE
from avseg.media.images import read_labels
from avseg.media.sound import sound_of
from avseg.media.video import pictures_at


class Videos(FileDataset):
    """Your own videos with masks as PNG or COCO JSON, decoded when they are asked for.

    Args:
        config: Settings.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ConfigError: When a setting cannot work.
        DataError: When a file is missing or does not fit the others.
        MediaError: When a video cannot be decoded, or has no sound.
    """

    @dataclass(frozen=True)
    class Config(FileConfig):
        """Settings of :class:`Videos`; root is the folder that holds ``videos``.

        Attributes:
            audio: "wav_centred": a frame hears the 0.96 s around its moment.
            seconds: Length of a clip; 0 takes a video as one clip.
            classes: "all": those there are. "one": whatever is labelled sounds.
        """

        audio: Literal["wav_centred"] = "wav_centred"
        seconds: int = 10
        classes: Literal["all", "one"] = "all"

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.seconds < 0:
                raise ConfigError(f"seconds must be 0 (the whole video) or more, got {self.seconds}")

    mark: ClassVar[str] = "videos and masks"
    besides: ClassVar[frozenset[str]] = frozenset({"classes.txt", "split.csv", "train.txt", "val.txt", "test.txt"})

    @classmethod
    def recognise(cls, root: Path) -> list[dict[str, Any]]:
        """One data set, where there are videos and masks."""
        labelled = any((root / name).exists() for name in ("masks", "annotations", "annotations.json"))
        return [{"root": str(root)}] if labelled and (root / "videos").is_dir() else []

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Label → name."""
        return ("background", "sounding") if self.config.classes == "one" else ("background", *self._stored_names)

    @cached_property
    def _stored_names(self) -> tuple[str, ...]:
        """The classes of ``classes.txt`` or COCO, without the background."""
        drawn = list(dict.fromkeys(name for coco in self._coco.values() for name in coco.class_names))
        listed = lines_of(self.root / "classes.txt")
        if listed is None:
            return tuple(drawn) or ("sounding",)
        names = [name for name in listed if name != "background"]
        if not names or len(set(names)) < len(names):
            raise DataError(f"{self.root / 'classes.txt'} must name each class once, one a line, got {names}")
        if unknown := [name for name in drawn if name not in names]:
            raise DataError(
                f"the annotations have a class {unknown[0]!r}, but {self.root / 'classes.txt'} does not name it. "
                f"{did_you_mean(unknown[0], names)}"
            )
        return tuple(names)

    @cached_property
    def _coco(self) -> dict[str, Coco]:
        return read_annotations(self.root)

    def find(self) -> list[Entry]:
        """The clips of the split's videos, in order of name and time."""
        labelled, files = labelled_moments(self.root, self._coco), _by_name(self.root / "videos")
        found = []
        for name, split in splits_of(self.root, labelled, files).items():
            if split == self.split:
                video = _only(name, self.root / "videos", files.get(name, []))
                found += [_entry(name, video, clip) for clip in clips_of(labelled[name], self.config.seconds)]
        return found

    def shots(self, entry: Entry) -> list[Shot]:
        """The pictures at the moments of a clip, and their labels."""
        pictures = self._seen(entry)
        return [Shot(picture, self._marked(m, picture.size)) for picture, m in zip(pictures, entry.notes, strict=True)]

    def parts(self, entry: Entry) -> Iterator[Part]:
        """A video and the masks of one of its clips."""
        size: list[tuple[int, int]] = []

        def video(path: Path) -> tuple[int, int]:
            # Not a part of its own: the file is also that of the pictures, and of other clips.
            self.log_mel_of(entry)
            size.append(self._seen(entry)[0].size)
            return size[0]

        def mask(moment: Moment, path: Path) -> tuple[int, int]:
            labels = self._marked(moment, size[0] if size else None)
            return (0, 0) if labels is None else (labels.shape[1], labels.shape[0])

        yield Part("frames", entry.frames[0], video)
        for moment in entry.notes:
            if moment.mask is not None:
                path = moment.mask.file if isinstance(moment.mask, Drawing) else moment.mask
                yield Part("masks", path, partial(mask, moment))

    def _seen(self, entry: Entry) -> list[Image.Image]:
        """The pictures at the moments of a clip."""
        video, moments = entry.frames[0], entry.notes
        images = list(pictures_at(video, [moment.time for moment in moments]))
        if len(images) < len(moments):
            last = moments[-1].time
            raise DataError(f"{video} ends before {last:g} s, for which it has a mask: number masks by second")
        return [Image.fromarray(image) for image in images]

    def _marked(self, moment: Moment, size: tuple[int, int] | None) -> Labels | None:
        """The labels of a moment, if it has any; ``size`` is the width and height of its picture, when known."""
        mask = moment.mask
        if mask is None:
            return None
        if isinstance(mask, Drawing):
            labels, name = self._merged(mask.labels(("background", *self._stored_names))), f"{mask.file}: {mask.name}"
        else:
            labels, name = self.labels(mask), str(mask)
        if size is not None and labels.shape[::-1] != size:
            raise DataError(f"{name} is {labels.shape[::-1]} pixels, the pictures of its video are {size}")
        return labels

    def labels(self, path: Path) -> Labels:
        """Labels of a PNG: with one class anything but 0, with several as stored."""
        if len(self._stored_names) == 1:
            return read_binary(path)
        labels = read_labels(path).astype(np.int64)
        return self._merged(check_labels(labels, path, len(self._stored_names) + 1, "classes.txt"))

    def _merged(self, labels: Labels) -> Labels:
        """The labels, all classes being the same one where that is asked for."""
        return np.where(labels == IGNORE, IGNORE, labels > 0) if self.config.classes == "one" else labels

    def log_mel_of(self, entry: Entry) -> Tensor:
        """Log-mel patches (T, 1, 96, 64) around the moments."""
        times = [moment.time for moment in entry.notes]

        def read() -> Tensor:
            sound = sound_of(entry.sounds[0])
            return torch.stack([sound.log_mel_at(time) for time in times])

        return remembered(self.config.cache, entry.sounds, f"videos {times}", read)


def _entry(name: str, video: Path, moments: tuple[Moment, ...]) -> Entry:
    masks = tuple(moment.mask if isinstance(moment.mask, Path) else None for moment in moments)
    return Entry(f"{name}@{int(moments[0].time)}", (video,) * len(moments), masks, (video,), moments)


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Name → the files of that name, whatever their suffix."""
    found: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return found


def _only(name: str, folder: Path, files: list[Path]) -> Path:
    if len(files) != 1:
        got = " and ".join(path.name for path in files) or "none"
        raise DataError(f"the masks of {name!r} are those of one video, {folder / name}.<suffix>, got {got}")
    return files[0]
