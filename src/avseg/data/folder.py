"""A data set in a folder: written by ``avseg data compose`` and ``prepare``, or by the user.

::

    ROOT/dataset.json                    {"class_names": ["background", "dog", ...], "variant": "avss"}
    ROOT/<split>/<clip>/frames/0.jpg     frame k, at k + 0.5 s; .jpg or .png; one per second
    ROOT/<split>/<clip>/masks/0.png      palette or grey, label = index in class_names, 255 is never scored
    ROOT/<split>/<clip>/audio.wav        any rate and number of channels

Splits are ``train``, ``val``, ``test``. A frame without a mask is unlabelled. With ``"variant": "ms3"`` or ``"s4"``
the task has one class, independent of the names: every label but 0 and 255 is sounding.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from PIL import Image

from avseg.data._file_dataset import Entry, FileConfig, FileDataset, Labels, NoClipsError, check_labels, existing
from avseg.errors import ConfigError, DataError
from avseg.interface import IGNORE
from avseg.media.images import read_labels, read_picture
from avseg.synthesis.script import Variant

_CARD = "dataset.json"


class Folder(FileDataset):
    """Your own clips: one folder per clip with frames, masks and audio, as written by avseg data compose.

    Args:
        config: Settings.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ConfigError: When a setting cannot work.
        DataError: When a file is missing or does not fit the others.
    """

    @dataclass(frozen=True)
    class Config(FileConfig):
        """Settings of :class:`Folder`.

        Attributes:
            variant: ``"s4"``: one class, in train only the first frame is labelled. ``"ms3"``: one class. ``"avss"``:
                all classes. null for the variant in ``dataset.json``.
        """

        audio: Literal["wav", "wav_centred"] = "wav_centred"
        variant: Variant | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.variant is not None and self.variant not in get_args(Variant):
                raise ConfigError(f"variant must be 's4', 'ms3' or 'avss', got {self.variant!r}")

    mark: ClassVar[str] = _CARD
    ignored: ClassVar[frozenset[str]] = frozenset({_CARD, "clip.json"})

    @cached_property
    def _card(self) -> dict[str, Any]:
        """Read and check ``dataset.json``."""
        path = self.root / _CARD
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
        """Return the variant of the settings, or that of ``dataset.json``."""
        return self.config.variant or str(self._card.get("variant", "avss"))

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return label → name."""
        return tuple(self._card["class_names"]) if self.variant == "avss" else ("background", "sounding")

    def find(self) -> list[Entry]:
        """List the folders of the split that have frames."""
        self._card  # noqa: B018 - raises if dataset.json is missing
        folder = self.root / self.split
        found = sorted(p for p in folder.iterdir() if (p / "frames").is_dir()) if folder.is_dir() else []
        found = [p for p in found if not p.name.startswith(".")]
        if not found:
            raise NoClipsError(f"no clips in {folder}: expected <clip>/frames, <clip>/masks, <clip>/audio.wav")
        return [self._entry(clip) for clip in found]

    def picture(self, path: Path) -> Image.Image:
        """Read a frame as RGB image."""
        return read_picture(existing(path, "frames are numbered from 0 on"))

    def _entry(self, clip: Path) -> Entry:
        frames = _frames(clip)
        masks = [clip / "masks" / f"{frame.stem}.png" for frame in frames]
        first = self.variant == "s4" and self.split == "train"
        labelled = [mask.exists() and not (first and k) for k, mask in enumerate(masks)]
        return Entry(
            f"{self.split}/{clip.name}",
            frames,
            tuple(mask if known else None for mask, known in zip(masks, labelled, strict=True)),
            (clip / "audio.wav",),
        )

    def labels(self, path: Path) -> Labels:
        """Read labels as stored; for one class, all but 0 and 255 become 1."""
        labels = read_labels(existing(path, "every labelled frame needs a mask")).astype(np.int64)
        if self.variant != "avss":
            return np.where(labels == IGNORE, IGNORE, (labels > 0).astype(np.int64))
        return check_labels(labels, path, len(self.class_names), _CARD)


def _frames(clip: Path) -> tuple[Path, ...]:
    """Return as many of the frames 0, 1, 2, ... as there are images; a gap becomes the path of a missing file."""
    found = {p.stem: p for p in (clip / "frames").iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")}
    numbers = [str(k) for k in range(max(len(found), 1))]
    return tuple(found.get(number, clip / "frames" / f"{number}.jpg") for number in numbers)
