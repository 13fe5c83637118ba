"""Convert your own videos and masks to the data set ``folder``, which is read without decoding video.

``clip.json`` in the folder of each clip lists its source files, so that a clip is rewritten if its video or mask has
changed; ``dataset.json`` is written when all clips are complete. Frames are JPEG of quality 95 in the size of the
video. The audio of second k extends from 0.5 s before its frame to 0.5 s after, so that log-mel patches are unchanged.
"""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from avseg.colours import palette
from avseg.data._file_dataset import Entry
from avseg.data.videos import Videos
from avseg.dataset_tools.jobs import Job
from avseg.errors import DataError
from avseg.files import replacing, write_text
from avseg.interface import SPLITS
from avseg.media.sound import sound_until, write_wave
from avseg.mel import SAMPLE_RATE

_CARD, _STORY = "dataset.json", "clip.json"


class _Clip(NamedTuple):
    """One clip to write.

    Attributes:
        data: Data set of the clip.
        entry: Its entry there.
        folder: Folder to write.
    """

    data: Videos
    entry: Entry
    folder: Path

    @property
    def story(self) -> str:
        """Return the source files of the clip, with sizes and modification times, as JSON."""
        parts = sorted({part.path for part in self.data.parts(self.entry)})
        facts = {path.relative_to(self.data.root).as_posix(): _facts(path) for path in parts}
        times = [moment.time for moment in self.entry.notes]
        return json.dumps({"files": facts, "times": times, "class_names": list(self.data.class_names)}) + "\n"

    def done(self) -> bool:
        """Return whether the clip exists and was made from these files."""
        story = self.folder / _STORY
        return story.is_file() and story.read_text(encoding="utf-8") == self.story

    def write(self, sound: Tensor) -> None:
        """Write frames, masks, and the clip's part of ``sound``, the audio of the whole video."""
        with replacing(self.folder) as temporary:
            for kind in ("frames", "masks"):
                (temporary / kind).mkdir(parents=True)
            for k, (picture, labels) in enumerate(self.data.shots(self.entry)):
                picture.save(temporary / "frames" / f"{k}.jpg", quality=95)
                if labels is not None:
                    mask = Image.fromarray(labels.astype(np.uint8))
                    mask.putpalette(palette().tobytes())
                    mask.save(temporary / "masks" / f"{k}.png")
            write_wave(temporary / "audio.wav", torch.cat([_second(sound, m.time) for m in self.entry.notes]))
            (temporary / _STORY).write_text(self.story, encoding="utf-8")


class OwnVideos:
    """Conversion of a data set ``videos`` to a data set ``folder``.

    Args:
        config: Settings of the data set ``videos`` to read.
        out: Folder to write.

    Raises:
        DataError: When the masks cannot be used, or ``out`` has other content.
    """

    def __init__(self, config: Videos.Config, out: Path) -> None:
        self.out = out
        sets = {split: Videos(config, split) for split in SPLITS}
        self.class_names = sets["train"].class_names
        self.clips = [
            _Clip(data, entry, out / split / entry.name.replace("/", "__"))
            for split, data in sets.items()
            for entry in data.find()
        ]
        self._check()

    def jobs(self) -> list[Job]:
        """Return one job per video."""
        return [self._job(list(clips)) for _, clips in groupby(self.clips, lambda clip: clip.entry.sounds)]

    def begin(self) -> None:
        """Remove the file that marks the data set as complete."""
        (self.out / _CARD).unlink(missing_ok=True)

    def finish(self) -> None:
        """Mark the data set as complete."""
        card = {"class_names": list(self.class_names), "variant": "avss"}
        write_text(self.out / _CARD, json.dumps(card, indent=2) + "\n")

    def _job(self, clips: list[_Clip]) -> Job:
        def make() -> None:
            left = [clip for clip in clips if not clip.done()]
            sound = sound_until(left[0].entry.sounds[0], left[-1].entry.notes[-1].time + 0.5)
            for clip in left:
                clip.write(sound)

        return Job(lambda: all(clip.done() for clip in clips), make)

    def _check(self) -> None:
        """Raise DataError if the folder has content that is not part of the data set."""
        expected = {clip.folder for clip in self.clips}
        if len(expected) < len(self.clips):
            raise DataError("the names of two videos differ only in '/' and '__': rename one of them")
        for path in _content(self.out):
            if path not in expected and path.name not in (_CARD, *SPLITS):
                raise DataError(f"{path} is not part of this data set: remove it, or give another -o")


def _content(out: Path) -> Iterator[Path]:
    """Yield the content of a folder and of its split folders, except names that begin with a dot."""
    for folder in (out, *(out / split for split in SPLITS)):
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        yield from (path for path in found if not path.name.startswith("."))


def _second(sound: Tensor, moment: float) -> Tensor:
    """Return the second centred on a time, (16000,), with silence beyond the ends."""
    first = round(moment * SAMPLE_RATE) - SAMPLE_RATE // 2
    piece = sound[max(first, 0) : first + SAMPLE_RATE]
    return torch.nn.functional.pad(piece, (max(-first, 0), SAMPLE_RATE - max(-first, 0) - len(piece)))


def _facts(path: Path) -> list[int]:
    """Return size and modification time; empty for a missing file, for which writing the clip raises an error."""
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []
