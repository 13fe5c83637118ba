"""AVSBench-semantic: sounding objects and their classes; 11356 clips of 5 or 10 s, 70 classes (arXiv 2301.13190).

::

    ROOT/metadata.csv                                  columns uid, split, label: v1s, v1m or v2; others are not read
    ROOT/label2idx.json                                {"background": 0, "accordion": 1, …}, or numbered from 1
    ROOT/<label>/<uid>/frames/0.jpg                    … 4 (v1s, v1m) or … 9 (v2), at the videos' resolution
                      /labels_semantic/0.png           grey or palette, value = class, 255 is never scored
                      /labels_rgb/0.png                the same labels as colours of the PASCAL VOC palette
                      /audio.wav

v1s and v1m are the clips of S4 and MS3, v2 is new. A v1s clip has one mask in train, five in val and test.

All frames with a mask are labelled. TPAVI, PCMANet and AVSegFormer flag only the first frame of v1s clips in val and
test too; but the flag is used by the loss alone, which they do not compute there, and their scores include all frames,
as do those of CAVP and COMBO. Therefore the five masks are scored here in every protocol. The protocols differ in the
padding frames that extend a clip to ten, see :mod:`avseg.metrics`.

MS3 as released has no categories. ``subsets: [v1m]``, ``task: binary``, ``pad: 0`` gives its clips with categories, for
models that train on them; but AVSBench-semantic relabelled the clips, so scores are not comparable with MS3.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from avseg.data._file_dataset import Entry, FileConfig, FileDataset, Labels, check_labels, existing
from avseg.data._log_mel import Short
from avseg.data._masks import read_colours
from avseg.data._tables import Row, read_rows
from avseg.errors import ConfigError, DataError
from avseg.media.images import Resize, read_labels

_TABLE, _NAMES = "metadata.csv", "label2idx.json"
_FRAMES = {"v1s": 5, "v1m": 5, "v2": 10}
_PUBLISHED = {
    "v1s": {"train": 3452, "val": 740, "test": 740},
    "v1m": {"train": 296, "val": 64, "test": 64},
    "v2": {"train": 4750, "val": 500, "test": 750},
}
"""Numbers of clips; their sums are the 8498, 1304 and 1554 of the released loaders."""


class AVSS(FileDataset):
    """AVSBench-semantic: segmentation of sounding objects of 70 classes.

    Args:
        config: Settings.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ConfigError: When a setting cannot work.
        DataError: When a file is missing or cannot be read.
    """

    @dataclass(frozen=True)
    class Config(FileConfig):
        """Settings of :class:`AVSS`; root is the folder that holds ``metadata.csv``.

        Attributes:
            resize: "as_released": crop in train, squash in val and test. "squash", "crop" or "native": the same for
                all splits.
            subsets: Subsets to use: v1s (one source, 5 s), v1m (several, 5 s), v2 (10 s).
            masks: Kind of mask files; both give the same labels.
            unknown_colours: "refuse" raises an error for a colour without a class in labels_rgb; "background" reads it
                as background, as in the released code.
            pad: Number of frames to which shorter clips are padded, with invalid frames that are 0 in frames and
                log-mel, as in the released protocol; 0 for no padding.
            task: "semantic": one output channel per class. "binary": one class, "sounding"; the masks still hold the
                categories.
        """

        root: str = "data/AVSBench-semantic"
        resize: Literal["as_released", "squash", "crop", "native"] = "as_released"  # type: ignore[assignment]
        audio: Literal["wav", "wav_centred"] = "wav"
        subsets: tuple[Literal["v1s", "v1m", "v2"], ...] = ("v1s", "v1m", "v2")
        masks: Literal["labels_semantic", "labels_rgb"] = "labels_semantic"
        unknown_colours: Literal["refuse", "background"] = "refuse"
        pad: int = 10
        task: Literal["semantic", "binary"] = "semantic"

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.subsets or not set(self.subsets) <= set(_FRAMES):
                raise ConfigError(f"subsets must be one or more of {', '.join(_FRAMES)}, got {list(self.subsets)}")
            if self.pad < 0:
                raise ConfigError(f"pad must be 0 (no padding) or more frames, got {self.pad}")

    short: ClassVar[Short] = "zero"
    mark: ClassVar[str] = _TABLE
    ignored: ClassVar[frozenset[str]] = frozenset({
        _TABLE, _NAMES, "labels_rgb", "labels_semantic", *_FRAMES,
        "processed_frames", "processed_labels_semantic", "audio.pkl",  # written by COMBO
    })  # fmt: skip

    @classmethod
    def recognise(cls, root: Path) -> list[dict[str, Any]]:
        """Return one data set if its table and a subset exist, with the kind of masks found."""
        clips = [root / label for label in _FRAMES if (root / label).is_dir()]
        if not (root / _TABLE).is_file() or not clips:
            return []
        first = next((clip for clip in sorted(clips[0].iterdir()) if clip.is_dir()), root)
        colours = (first / "labels_rgb").is_dir() and not (first / "labels_semantic").is_dir()
        settings = {"root": str(root)} | ({"masks": "labels_rgb"} if colours else {})
        return [settings | ({"subsets": [c.name for c in clips]} if len(clips) < len(_FRAMES) else {})]

    @property
    def published(self) -> int:
        """Return the published number of clips of the chosen subsets."""
        return sum(_PUBLISHED[subset][self.split] for subset in self.config.subsets)

    @property
    def resize(self) -> Resize:
        """Return the resize mode of this split."""
        if self.config.resize == "as_released":
            return "crop" if self.split == "train" else "squash"
        return super().resize

    @property
    def padded_to(self) -> int:
        """Return the T to which shorter clips are padded with invalid frames."""
        return int(self.config.pad)

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return label → name; background and sounding for the binary task."""
        return ("background", "sounding") if self.config.task == "binary" else self.category_names

    @cached_property
    def category_names(self) -> tuple[str, ...]:
        """Return label → name of the labels in the masks, in the order of ``label2idx.json``."""
        path = existing(self.root / _NAMES, "it names the classes, and is part of AVSBench-semantic")
        try:
            stored = json.loads(path.read_text("utf-8"))
            if not isinstance(stored, dict):
                raise DataError(
                    f'{path} must hold {{"background": 0, "accordion": 1, …}}, got a {type(stored).__name__}'
                )
            numbered = sorted((int(number), name) for name, number in stored.items())
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"cannot read {path}, which should number the classes: {error}") from None
        numbers = [number for number, _ in numbered]
        if len(numbers) < 2 or numbers not in ([*range(len(numbers))], [*range(1, len(numbers) + 1)]):
            raise DataError(f"{path} must number the classes from 0 (or 1) on without a gap, got {numbers}")
        return tuple(name for _, name in numbered)

    def find(self) -> list[Entry]:
        """List the rows of the table that belong to this split and the chosen subsets."""
        rows = read_rows(self.root / _TABLE, ("uid", "split", "label"))
        unknown = next((row for row in rows if row["label"] not in _FRAMES), None)
        if unknown is not None:
            raise DataError(f"{unknown.place}: label must be v1s, v1m or v2, got {unknown['label']!r}")
        return [self._entry(r) for r in rows if r["split"] == self.split and r["label"] in self.config.subsets]

    def _entry(self, row: Row) -> Entry:
        clip = self.root / row["label"] / row["uid"]
        numbers = range(_FRAMES[row["label"]])
        labelled = numbers[:1] if row["label"] == "v1s" and self.split == "train" else numbers
        return Entry(
            f"{row['label']}/{row['uid']}",
            tuple(clip / "frames" / f"{k}.jpg" for k in numbers),
            tuple(clip / self.config.masks / f"{k}.png" if k in labelled else None for k in numbers),
            (clip / "audio.wav",),
        )

    def labels(self, path: Path) -> Labels:
        """Read the class labels, which are the same from both kinds of masks."""
        if self.config.masks == "labels_rgb":
            labels = read_colours(path, self.config.unknown_colours)
        else:
            labels = read_labels(existing(path, "every labelled frame needs a mask")).astype(np.int64)
        return check_labels(labels, path, len(self.category_names), _NAMES)
