"""VPO: photographs of COCO, paired by class with sounds of VGGSound (Chen et al., arXiv 2304.02970); 21 classes.

::

    ROOT/VPO/VPO-SS/vpo_ss_data_stereo.csv            one row per image and source
                   /data/<category>/<image>.jpg       one source; numbers have twelve digits
                   /mask/<category>/<image>_<annotation>.png
    ROOT/VPO/VPO-MS/vpo_ms_data_stereo.csv            several sources
                   /data/<image>.jpg   /mask/<image>.png
    ROOT/VPO/VPO-MSMI/vpo_msmi_data_stereo.csv        also several of one class; the files of rows with
                     /data/…  /mask/…                 multi_instance = 0 are in VPO-MS
    ROOT/vggsound_bench/VGGSound/audios/<vgg_file>.wav

A clip is one image (T = 1). Its audio is the sum, without scaling, of the middle 3 s of each recording, repeated if it
is shorter; in stereo a source at position p (0 left, 1 right) is scaled by 1 - p in the left channel and by p in the
right. The model's input is the patch of 0.96 s selected by ``patch``.

VPO calls its second split ``val`` and uses it as test set. There is no third split; ``validation`` chooses one.

Differs from CAVP's own loader:

1. Recordings under 3 s are repeated from their start: in CAVP a negative index leaves only a piece of their end.
2. Categories are renumbered through a table: CAVP renumbers one after the other in place, so that cars in an image
   with an aeroplane become aeroplanes.
3. CAVP's training augmentation (random scale, crop, colour, flip with swapped channels) is left out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from avseg.data._file_dataset import Entry, FileConfig, FileDataset, Labels, NoClipsError, existing
from avseg.data._log_mel import cached
from avseg.data._tables import Row, read_rows
from avseg.errors import DataError
from avseg.interface import IGNORE
from avseg.media.images import read_labels
from avseg.mel import SAMPLE_RATE, log_mel_at

Subset = Literal["ss", "ms", "msmi"]

CATEGORIES = {
    5: "airplane",
    94: "baby",
    16: "bird",
    6: "bus",
    3: "car",
    17: "cat",
    77: "cell phone",
    21: "cow",
    18: "dog",
    22: "elephant",
    93: "female",
    19: "horse",
    76: "keyboard",
    92: "male",
    4: "motorcycle",
    74: "mouse",
    20: "sheep",
    41: "skateboard",
    37: "sports ball",
    43: "tennis racket",
    24: "zebra",
}
"""COCO's category ids, and three that VPO adds; label k is the k-th of them."""

_PUBLISHED: dict[Subset, dict[str, int]] = {
    "ss": {"train": 11_312, "test": 890},
    "ms": {"train": 8_380, "test": 1_437},
    "msmi": {"train": 11_080, "test": 1_775},
}
"""Numbers of clips of each subset's splits."""
_SECONDS = 3
"""Seconds of audio."""
_HELD_OUT = 10
"""With "holdout", every tenth training image, by a checksum of its number, is in val; at least one."""
_NO = ("0", "0.0", "False")
"""Values of multi_instance in a table for at most one object per class."""
_UNKNOWN = -1


class VPO(FileDataset):
    """VPO: photographs paired by class with sounds, mono or stereo (arXiv 2304.02970).

    Args:
        config: Settings.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        DataError: When a file is missing or cannot be read.
    """

    @dataclass(frozen=True)
    class Config(FileConfig):
        """Settings of :class:`VPO`; root is the folder that holds ``VPO`` and ``vggsound_bench``.

        Attributes:
            subset: "ss": one source. "ms": several, of different classes. "msmi": several, also of one class.
            audio: "mono": sum of the recordings. "stereo": each panned to the position of its object.
            patch: Patch of 0.96 s in the 3 s of audio: centred on 0.5 ("first"), 1.5 ("middle") or 2.5 s ("last").
            validation: VPO has no validation split. "none": val raises an error. "holdout": a tenth of the training
                images is moved to val. "test": val is the test split, as in CAVP's code.
            sounds: Folder of the recordings; null for vggsound_bench/VGGSound/audios in root.
            task: "semantic": one output channel per class. "binary": one class, "sounding"; the masks still hold the
                categories.
        """

        root: str = "data/audio_visual"
        subset: Subset = "ss"
        audio: Literal["mono", "stereo"] = "mono"  # type: ignore[assignment]
        patch: Literal["first", "middle", "last"] = "middle"
        validation: Literal["none", "holdout", "test"] = "none"
        sounds: str | None = None
        task: Literal["semantic", "binary"] = "semantic"

    category_names = ("background", *CATEGORIES.values())
    mark: ClassVar[str] = "VPO/VPO-SS, VPO-MS, VPO-MSMI"
    ignored: ClassVar[frozenset[str]] = frozenset(f"vpo_{subset}_data_stereo.csv" for subset in _PUBLISHED)

    @classmethod
    def recognise(cls, root: Path) -> list[dict[str, Any]]:
        """Return each subset of VPO with a table, given the folder above ``VPO`` or ``VPO`` itself."""
        bases = [root] + [root.parent] * (root.name == "VPO")
        found = [(base, subset) for base in bases for subset in _PUBLISHED if _table(base, subset).is_file()]
        return [{"root": str(base), "subset": subset} for base, subset in found]

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return label → name; background and sounding for the binary task."""
        return ("background", "sounding") if self.config.task == "binary" else self.category_names

    @property
    def published(self) -> int | None:
        """Return the published number of clips; None if ``validation`` changes the split."""
        if self.split == "val" or (self.split == "train" and self.config.validation == "holdout"):
            return None
        return _PUBLISHED[self.config.subset][self.split]

    def find(self) -> list[Entry]:
        """List the images of the split, for VPO-SS their annotations, in the order of the table.

        Raises:
            NoClipsError: When the split is ``val`` and ``validation`` is "none".
            DataError: When the table is missing or not valid.
        """
        if self.split == "val" and self.config.validation == "none":
            raise NoClipsError(
                "VPO has no val split (val in its table is the test split): set validation (--data.validation) "
                "to holdout, a tenth of train, or to test"
            )
        path, single = _table(self.root, self.config.subset), self.config.subset == "ss"
        columns = ["img_Id", "ann_Ids", "cateName", "vgg_file", "split", "audio_pos"]
        rows = read_rows(path, columns + ["multi_instance"] * (self.config.subset == "msmi"))
        images: dict[str, list[Row]] = {}
        for row in self._in_split(rows):
            images.setdefault(f"{row['img_Id']}_{row['ann_Ids']}" if single else row["img_Id"], []).append(row)
        return [self._entry(sources) for sources in images.values()]

    def _in_split(self, rows: list[Row]) -> list[Row]:
        """Return the rows of this split."""
        validation, train = self.config.validation, [row for row in rows if row["split"] == "train"]
        if self.split == "test" or (self.split == "val" and validation == "test"):
            return [row for row in rows if row["split"] != "train"]
        held_out = _held_out({row["img_Id"] for row in train}) if validation == "holdout" else set[str]()
        return [row for row in train if (row["img_Id"] in held_out) == (self.split == "val")]

    def _entry(self, sources: list[Row]) -> Entry:
        first, subset = sources[0], self.config.subset
        image, annotation = first["img_Id"].zfill(12), first["ann_Ids"].zfill(12)
        if subset == "ss":
            name, mask = f"{first['cateName']}/{image}", f"{first['cateName']}/{image}_{annotation}"
        else:
            name = mask = image
        elsewhere = subset == "msmi" and first["multi_instance"] in _NO
        folder = _table(self.root, "ms" if elsewhere else subset).parent
        recordings = Path(self.config.sounds or self.root / "vggsound_bench/VGGSound/audios")
        return Entry(
            mask,
            (folder / "data" / f"{name}.jpg",),
            (folder / "mask" / f"{mask}.png",),
            tuple(recordings / f"{row['vgg_file']}.wav" for row in sources),
            tuple(self._position(row) for row in sources),
        )

    @staticmethod
    def _position(row: Row) -> float:
        try:
            position = float(row["audio_pos"])
        except ValueError:
            position = -1.0
        if not 0.0 <= position <= 1.0:
            raise DataError(f"{row.place}: audio_pos must be 0 (left) to 1 (right), got {row['audio_pos']!r}")
        return position

    def labels(self, path: Path) -> Labels:
        """Read labels from a mask of COCO's category ids.

        Raises:
            DataError: When an id is not one of VPO's.
        """
        stored = read_labels(existing(path, "every image needs a mask"))
        labels = _LABEL_OF[stored]
        if (labels == _UNKNOWN).any():
            number = stored[labels == _UNKNOWN][0]
            raise DataError(f"{path} holds category {number}, which VPO does not have: restore the mask")
        return labels

    def log_mel_of(self, entry: Entry) -> Tensor:
        """Return log-mel of the mixed sources: (1, 1, 96, 64), or (1, 2, 96, 64) in stereo."""
        how = f"vpo {self.config.audio} {self.config.patch} {entry.notes}"
        return cached(self.config.cache, entry.sounds, how, lambda: self._mixed(entry))

    def _mixed(self, entry: Entry) -> Tensor:
        sources = torch.stack([middle(self.sound(path)) for path in entry.sounds])
        right = torch.tensor(entry.notes)[:, None]
        gains = [1.0 - right, right] if self.config.audio == "stereo" else [torch.ones_like(right)]
        moment = torch.tensor([{"first": 0.5, "middle": 1.5, "last": 2.5}[self.config.patch]])
        return torch.cat([log_mel_at((gain * sources).sum(0), moment) for gain in gains], 1)


def _label_of() -> Labels:
    """Return the table stored number → label, (256,)."""
    labels = np.full(256, _UNKNOWN, np.int64)
    labels[[0, IGNORE]] = 0, IGNORE
    labels[list(CATEGORIES)] = range(1, len(CATEGORIES) + 1)
    return labels


_LABEL_OF = _label_of()


def _held_out(images: set[str]) -> set[str]:
    """Return the training images moved to val: a tenth by checksum, or the one with the lowest checksum."""
    order = sorted(images, key=lambda image: (crc32(image.encode()), image))
    return {image for image in order if crc32(image.encode()) % _HELD_OUT == 0} or set(order[:1])


def _table(root: Path, subset: Subset) -> Path:
    """Return the path of a subset's table."""
    return root / "VPO" / f"VPO-{subset.upper()}" / f"vpo_{subset}_data_stereo.csv"


def middle(waveform: Tensor) -> Tensor:
    """Return the middle 3 s of a recording at 16 kHz; a shorter one is repeated.

    Args:
        waveform: (n,), not empty.

    Returns:
        (48000,).
    """
    wanted = _SECONDS * SAMPLE_RATE
    start = max(0, len(waveform) // 2 - wanted // 2)
    return waveform[start:].repeat(-(-wanted // len(waveform)))[:wanted]
