"""AVSBench-object MS3: multiple sound sources; 424 clips of 5 s, all frames labelled (arXiv 2207.05042).

::

    ROOT/ms3_meta_data.csv                                 name, split
    ROOT/ms3_data/visual_frames/<name>/<name>.mp4_1.png    … 5; 224 x 224; no folder per split
                 /gt_masks/<split>/<name>/<name>_1.png     … 5
                 /audio_wav/<split>/<name>.wav
                 /audio_log_mel/<split>/<name>.pkl         read only with audio: pkl

Frame k (from 1) is at k - 1/16 s. All values but 0 in a mask are sounding.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from avseg.data._file_dataset import Entry, FileConfig, FileDataset, Labels
from avseg.data._masks import read_binary
from avseg.data._tables import read_rows

_TABLE = "ms3_meta_data.csv"
_FRAMES = range(1, 6)


class MS3(FileDataset):
    """AVSBench-object, multiple sources: the sounding objects change within a clip.

    Args:
        config: Settings.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        DataError: When a file is missing or cannot be read.
    """

    @dataclass(frozen=True)
    class Config(FileConfig):
        """Settings of :class:`MS3`; root is the folder that holds ``ms3_meta_data.csv``."""

        root: str = "data/avsbench_data/Multi-sources"

    class_names = ("background", "sounding")
    phase: ClassVar[float] = 15 / 16
    mark: ClassVar[str] = _TABLE
    ignored: ClassVar[frozenset[str]] = frozenset({_TABLE, "raw_videos", "audio_wav", "audio_log_mel"})

    @property
    def published(self) -> int:
        """Return the published number of clips (arXiv 2207.05042, Table 1)."""
        return {"train": 296, "val": 64, "test": 64}[self.split]

    def find(self) -> list[Entry]:
        """List the rows of the table that belong to this split."""
        rows = read_rows(self.root / _TABLE, ("split",))
        return [self._entry(next(iter(row.values()))) for row in rows if row["split"] == self.split]

    def _entry(self, name: str) -> Entry:
        data = self.root / "ms3_data"
        sounds, suffix = ("audio_log_mel", "pkl") if self.config.audio == "pkl" else ("audio_wav", "wav")
        return Entry(
            name,
            tuple(data / "visual_frames" / name / f"{name}.mp4_{k}.png" for k in _FRAMES),
            tuple(data / "gt_masks" / self.split / name / f"{name}_{k}.png" for k in _FRAMES),
            (data / sounds / self.split / f"{name}.{suffix}",),
        )

    def labels(self, path: Path) -> Labels:
        """Read labels: 1 where the mask is not 0."""
        return read_binary(path)
