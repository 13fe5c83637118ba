"""A data set in a folder: what ``avseg data compose`` writes, and the way to bring your own.

::

    ROOT/dataset.json                    {"class_names": ["background", "dog", ...], "variant": "avss"}
    ROOT/<split>/<clip>/frames/0.jpg     frame k, at k + 0.5 s; .png does as well; one for every second
    ROOT/<split>/<clip>/masks/0.png      palette or grey, label = place in class_names, 255 is never scored
    ROOT/<split>/<clip>/audio.wav        any rate and number of channels

Splits are ``train``, ``val``, ``test``. A frame without a mask is unlabelled. With ``"variant": "ms3"`` or ``"s4"``
the task has one class, whatever the names: everything but 0 (and 255) sounds.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from avseg.data._base import AVSDataset, Sample, normalise
from avseg.errors import ConfigError, DataError
from avseg.interface import IGNORE, Clip, Target
from avseg.mel import log_mel_at
from avseg.studio.album import read_labels, read_picture
from avseg.studio.recordings import read_sound
from avseg.studio.script import Variant


class Folder(AVSDataset):
    """The clips of one split, in order of their names; files are read when they are asked for.

    Args:
        config: Settings.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ConfigError: When a setting cannot work.
        DataError: When a file is missing or does not fit the others.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of :class:`Folder`.

        Attributes:
            root: The folder that holds ``dataset.json``.
            variant: ``"s4"``: one class, in train only the first frame is labelled. ``"ms3"``: one class. ``"avss"``:
                all classes. Left out, as ``dataset.json`` says.
            size: Height and width the frames are brought to, or (height, width); 0 leaves them as they are.
        """

        root: str = ""
        variant: Variant | None = None
        size: int | tuple[int, int] = 224

        def __post_init__(self) -> None:
            if self.variant is not None and self.variant not in get_args(Variant):
                raise ConfigError(f"variant must be 's4', 'ms3' or 'avss', got {self.variant!r}")
            if min(self.size if isinstance(self.size, (tuple, list)) else (self.size,)) < 0:
                raise ConfigError(f"size must be 0 (as stored) or more, got {self.size}")

    def __init__(self, config: Config, split: str) -> None:
        self.config = config
        self.split = split

    @cached_property
    def _card(self) -> dict[str, Any]:
        """``dataset.json``, checked."""
        if not self.config.root:
            raise DataError("which folder? Set root (--data.root) to the one that holds dataset.json")
        path = Path(self.config.root) / "dataset.json"
        try:
            card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"no {path}: give the folder of a composed data set") from None
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}") from None
        names = card.get("class_names") if isinstance(card, dict) else None
        if not isinstance(names, list) or len(names) < 2 or not all(isinstance(n, str) for n in names):
            raise DataError(f'{path} must hold "class_names": ["background", ...], got {names!r}')
        if card.get("variant", "avss") not in get_args(Variant):
            raise DataError(f"{path}: variant must be 's4', 'ms3' or 'avss', got {card['variant']!r}")
        return card

    @cached_property
    def variant(self) -> str:
        """The variant asked for, or the one ``dataset.json`` names."""
        return self.config.variant or str(self._card.get("variant", "avss"))

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Label → name."""
        return tuple(self._card["class_names"]) if self.variant == "avss" else ("background", "sounding")

    @cached_property
    def clips(self) -> list[Path]:
        """The folders of the clips."""
        self._card  # noqa: B018 - a folder without dataset.json is refused first
        folder = Path(self.config.root) / self.split
        found = sorted(p for p in folder.iterdir() if (p / "frames").is_dir()) if folder.is_dir() else []
        found = [p for p in found if not p.name.startswith(".")]
        if not found:
            raise DataError(f"no clips in {folder}: expected <clip>/frames, <clip>/masks, <clip>/audio.wav")
        return found

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        clip = self.clips[index]
        shots = [self._shot(clip, path) for path in _frames(clip)]
        if len({frame.shape for frame, _ in shots}) > 1:
            raise DataError(f"the frames of {clip} differ in size: set data.size, or make them equal")
        blank = np.zeros(shots[0][0].shape[:2], dtype=np.int64)
        masks = np.stack([blank if mask is None else mask for _, mask in shots])
        labelled = torch.tensor([[mask is not None for _, mask in shots]])
        if self.variant == "s4" and self.split == "train":
            labelled[:, 1:] = False
        frames = torch.from_numpy(np.stack([frame for frame, _ in shots]))
        sound = torch.from_numpy(read_sound(_existing(clip / "audio.wav")))
        audio = log_mel_at(sound, torch.arange(len(shots)) + 0.5)
        target = Target(torch.from_numpy(masks)[None], labelled)
        return Sample(Clip(normalise(frames)[None], audio[None]), target, [f"{self.split}/{clip.name}"])

    def _shot(self, clip: Path, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
        """A frame (H, W, 3) and its labels (H, W), or None where it has no mask."""
        picture, mask = read_picture(path), clip / "masks" / f"{path.stem}.png"
        labels = read_labels(mask) if mask.exists() else None
        if labels is not None and labels.shape[::-1] != picture.size:
            raise DataError(f"{mask} is {labels.shape[::-1]} pixels, its frame is {picture.size}")
        size = self._size(picture)
        picture = picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)
        if labels is None:
            return np.array(picture), None
        small = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)).astype(np.int64)
        return np.array(picture), self._checked(small, mask)

    def _size(self, picture: Image.Image) -> tuple[int, int]:
        """Width and height to bring the picture to."""
        size = self.config.size
        height, width = (size, size) if isinstance(size, int) else size
        return (width, height) if height and width else picture.size

    def _checked(self, labels: NDArray[np.int64], mask: Path) -> NDArray[np.int64]:
        scored = np.where(labels == IGNORE, 0, labels)
        if self.variant != "avss":
            return np.where(labels == IGNORE, IGNORE, (scored > 0).astype(np.int64))
        if scored.max() >= len(self.class_names):
            raise DataError(
                f"{mask} holds label {scored.max()}, but dataset.json names {len(self.class_names)} classes"
            )
        return labels


def _frames(clip: Path) -> list[Path]:
    """The pictures 0, 1, 2, ... of a clip."""
    found = {p.stem: p for p in (clip / "frames").iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")}
    missing = [str(k) for k in range(len(found)) if str(k) not in found]
    if missing or not found:
        raise DataError(f"{clip / 'frames'} lacks {(missing or ['0'])[0]}.jpg: frames are numbered from 0 on")
    return [found[str(k)] for k in range(len(found))]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"no {path}: every clip has its sound")
    return path
