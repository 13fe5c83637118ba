"""Convert AVSBench's raw videos to the released layout, in the same folder: frames and audio in addition to the masks.

::

    s4_meta_data.csv      name, start second, category, split         ms3_meta_data.csv      name, split
    s4_data/raw_videos/<split>/<category>/<name>.mp4                  ms3_data/raw_videos/<name>.mp4
           /visual_frames/<split>/<category>/<name>/<name>_1.png             /visual_frames/<name>/<name>.mp4_1.png
           /audio_wav/<split>/<category>/<name>.wav                          /audio_wav/<split>/<name>.wav

The sampling of frames is described in :mod:`avseg.dataset_tools.avsbench_frames`. The audio covers the same seconds, or
as many as the video has, at 16 kHz in 16 bits; its channels are averaged, as every loader does afterwards. Log-mel
patches are not written: the loaders of avseg compute them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from avseg.data._tables import Row, read_rows
from avseg.dataset_tools.avsbench_frames import kept_frames
from avseg.dataset_tools.jobs import Job
from avseg.errors import DataError
from avseg.files import replacing
from avseg.media.sound import sound_until, write_wave

_SECONDS = 5
"""Length of a clip."""
_SOURCE_SECONDS = 10
"""Length of the VGGSound recordings that S4's clips were cut from."""


class _Raw(NamedTuple):
    """One raw video and its output files.

    Attributes:
        video: The video file.
        seconds: Length of the clip, and number of its frames.
        frames: Folder of frames to write.
        frame: Name of a frame without number and suffix.
        sound: Audio file to write.
    """

    video: Path
    seconds: int
    frames: Path
    frame: str
    sound: Path

    def pictures(self, folder: Path) -> list[Path]:
        """Return the paths of the frames in a folder."""
        return [folder / f"{self.frame}_{k}.png" for k in range(1, self.seconds + 1)]

    def done(self) -> bool:
        """Return whether all files exist."""
        return self.sound.is_file() and all(path.is_file() for path in self.pictures(self.frames))

    def make(self) -> None:
        """Write audio and frames."""
        with replacing(self.sound) as temporary:
            write_wave(temporary, sound_until(self.video, self.seconds))
        with replacing(self.frames) as temporary:
            temporary.mkdir()
            for image, path in zip(kept_frames(self.video, self.seconds), self.pictures(temporary), strict=True):
                Image.fromarray(image).save(path)


def find_tables(source: Path) -> list[Path]:
    """Return the lists of S4 and MS3 in a folder, or in AVSBench's subfolders for them."""
    places = (".", "Single-source", "Multi-sources")
    found = [source / place / table for place in places for table in _READERS]
    return [path for path in found if path.is_file()]


def jobs_of(table: Path) -> list[Job]:
    """Return one job per row of a list.

    Raises:
        DataError: When the list cannot be used.
    """
    columns, read = _READERS[table.name]
    raws = [_read(table, number, row, read) for number, row in enumerate(read_rows(table, columns), start=2)]
    if not raws:
        raise DataError(f"{table} lists no video")
    return [Job(raw.done, raw.make) for raw in raws]


def _read(table: Path, number: int, row: Row, read: Callable[[Path, Row], _Raw]) -> _Raw:
    try:
        return read(table.parent, row)
    except ValueError as error:
        raise DataError(f"{table}, line {number}: {error}") from None


def _checked_name(word: str) -> str:
    """Return a file name; raise ValueError if it is a path."""
    if Path(word).name != word:
        raise ValueError(f"{word!r} is not a file name")
    return word


def _s4(root: Path, row: Row) -> _Raw:
    name, start = _checked_name(next(iter(row.values()))), list(row.values())[1]
    seconds = min(_SECONDS, _SOURCE_SECONDS - int(start))
    if seconds < 1:
        raise ValueError(f"a clip of {_SOURCE_SECONDS} s cannot start at second {start}")
    data, place = root / "s4_data", Path(row["split"], _checked_name(row["category"]))
    return _Raw(
        data / "raw_videos" / place / f"{name}.mp4",
        seconds,
        data / "visual_frames" / place / name,
        name,
        data / "audio_wav" / place / f"{name}.wav",
    )


def _ms3(root: Path, row: Row) -> _Raw:
    name, data = _checked_name(next(iter(row.values()))), root / "ms3_data"
    return _Raw(
        data / "raw_videos" / f"{name}.mp4",
        _SECONDS,
        data / "visual_frames" / name,
        f"{name}.mp4",
        data / "audio_wav" / row["split"] / f"{name}.wav",
    )


_READERS: dict[str, tuple[tuple[str, ...], Callable[[Path, Row], _Raw]]] = {
    "s4_meta_data.csv": (("category", "split"), _s4),
    "ms3_meta_data.csv": (("split",), _ms3),
}
"""List → required columns, and function that reads a row. The first column holds names, S4's second one start seconds,
independent of the headings."""
