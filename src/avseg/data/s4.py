"""AVSBench-object S4: a single sound source; 4932 clips of 5 s in 23 categories (arXiv 2207.05042).

::

    ROOT/s4_meta_data.csv                                  name, start second, category, split
    ROOT/s4_data/visual_frames/<split>/<category>/<name>/<name>_1.png     … 5; 224 x 224
                /gt_masks/<split>/<category>/<name>/<name>_1.png          … 5; in train only the first
                /audio_wav/<split>/<category>/<name>.wav
                /audio_log_mel/<split>/<category>/<name>.pkl              read only with audio: pkl

Frame k (from 1) is at k - 1/16 s. All values but 0 in a mask are sounding. In train only the first frame has a mask;
the other four are unlabelled.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from avseg.data._file_dataset import Entry, FileConfig, FileDataset, Labels, Shot
from avseg.data._masks import read_binary
from avseg.data._tables import Row, read_rows

_TABLE = "s4_meta_data.csv"
_FRAMES = range(1, 6)


class S4(FileDataset):
    """AVSBench-object, single source: one object sounds throughout the clip.

    Args:
        config: Settings.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        DataError: When a file is missing or cannot be read.
    """

    @dataclass(frozen=True)
    class Config(FileConfig):
        """Settings of :class:`S4`; root is the folder that holds ``s4_meta_data.csv``.

        Attributes:
            frames: Folder of the frames: squashed to 224 x 224, or in original resolution, which not every release
                has. The masks are the same for both.
            categories: Label sounding pixels with the number of the clip's category instead of 1. Categories are
                numbered from 1, in alphabetical order over all splits.
        """

        root: str = "data/avsbench_data/Single-source"
        frames: Literal["visual_frames", "visual_frames_original_resolution"] = "visual_frames"
        categories: bool = False

    class_names = ("background", "sounding")
    phase: ClassVar[float] = 15 / 16
    mark: ClassVar[str] = _TABLE
    ignored: ClassVar[frozenset[str]] = frozenset(
        {_TABLE, "raw_videos", "audio_wav", "audio_log_mel", "visual_frames", "visual_frames_original_resolution"}
    )

    @property
    def published(self) -> int:
        """Return the published number of clips (arXiv 2207.05042, Table 1)."""
        return {"train": 3452, "val": 740, "test": 740}[self.split]

    @property
    def masks_fit(self) -> bool:
        """Return whether the squashed frames are used: only they have the size of the masks."""
        return bool(self.config.frames == "visual_frames")

    @cached_property
    def category_names(self) -> tuple[str, ...]:
        """Return the name of each label; those of the categories if ``categories`` is true."""
        if not self.config.categories:
            return self.class_names
        return ("background", *sorted({row["category"] for row in self._rows()}))

    def _rows(self) -> list[Row]:
        """Read the table of all splits."""
        return read_rows(self.root / _TABLE, ("category", "split"))

    def find(self) -> list[Entry]:
        """List the rows of the table that belong to this split."""
        return [self._entry(next(iter(r.values())), r["category"]) for r in self._rows() if r["split"] == self.split]

    def _entry(self, name: str, category: str) -> Entry:
        def file(kind: str, rest: str) -> Path:
            return self.root / "s4_data" / kind / self.split / category / rest

        labelled = _FRAMES[:1] if self.split == "train" else _FRAMES
        sounds, suffix = ("audio_log_mel", "pkl") if self.config.audio == "pkl" else ("audio_wav", "wav")
        return Entry(
            f"{category}/{name}",
            tuple(file(self.config.frames, f"{name}/{name}_{k}.png") for k in _FRAMES),
            tuple(file("gt_masks", f"{name}/{name}_{k}.png") if k in labelled else None for k in _FRAMES),
            (file(sounds, f"{name}.{suffix}"),),
            category,
        )

    def shots(self, entry: Entry) -> list[Shot]:
        """Read the frames of a clip; labels are 1, or the number of its category."""
        label = self.category_names.index(entry.notes) if self.config.categories else 1
        return [Shot(s.picture, None if s.labels is None else s.labels * label) for s in super().shots(entry)]

    def labels(self, path: Path) -> Labels:
        """Read labels: 1 where the mask is not 0."""
        return read_binary(path)
