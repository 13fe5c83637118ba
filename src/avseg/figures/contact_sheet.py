"""Contact sheet of a data set: frames, masks and spectrograms of several clips, aligned in time.

``avseg data show`` writes it. Inspect one before training on a new data set.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from avseg.colours import colour
from avseg.data import AVSDataset, Sample, build_dataset
from avseg.figures.cells import Pixels, fit, overlay_labels, spectrogram
from avseg.figures.files import check_format, write_picture
from avseg.figures.scenes import choose
from avseg.interface import IGNORE
from avseg.media.images import denormalise

_WIDTH, _WIDEST, _NARROWEST = 1000, 224, 48
"""Pixels: approximate width of a clip, largest and smallest width of a frame."""
_GAP, _EDGE, _LINE, _LETTER = 4, 20, 24, 14
"""Pixels: gap between frames, margin, height of a line of text, height of its letters."""
_PAPER, _INK, _FAINT = (255, 255, 255), (33, 37, 41), (134, 142, 150)


def show(data: Mapping[str, Any], out: Path, *, split: str = "val", clips: int = 6) -> Path:
    """Write the contact sheet of a data set (``avseg data show``).

    Args:
        data: ``name`` and settings of the data set, as in the ``data:`` section of a config.
        out: Image file to write, PNG or JPEG.
        split: ``"train"``, ``"val"`` or ``"test"``.
        clips: Number of clips, spread evenly over the split.

    Raises:
        ConfigError: When a setting is wrong or the file cannot be written.
    """
    check_format(out, ("png", "jpg"))
    settings = dict(data)
    dataset = build_dataset(str(settings.pop("name", "synthetic")), split, **settings)
    return write_picture(out, contact_sheet(dataset, choose(len(dataset), clips)).save)


def contact_sheet(dataset: AVSDataset, indices: Sequence[int]) -> Image.Image:
    """Return the clips ``indices`` as one RGB image.

    For every clip: the frames; the frames in grey with their masks; the log-mel patch of each frame, low frequencies at
    the bottom. Frames without labels are marked as unlabelled.
    """
    strips = [_strip(dataset[index], dataset) for index in indices]
    width = max(s.width for s in strips) + 2 * _EDGE
    sheet = Image.new("RGB", (width, sum(s.height + _EDGE for s in strips) + _EDGE), _PAPER)
    top = _EDGE
    for strip in strips:
        sheet.paste(strip, (_EDGE, top))
        top += strip.height + _EDGE
    return sheet


def _strip(sample: Sample, dataset: AVSDataset) -> Image.Image:
    """Draw one clip without padding: a line of text, three rows, a line of times."""
    rows = _rows(sample)
    count, wide = len(rows[0]), rows[0][0].width + _GAP
    heights = [_LINE, *(row[0].height + _GAP for row in rows), _LINE]
    strip = Image.new("RGB", (count * wide - _GAP, sum(heights)), _PAPER)
    for row, top in zip(rows, np.cumsum(heights).tolist(), strict=False):
        for k, cell in enumerate(row):
            strip.paste(cell, (k * wide, top))
    for k in range(count):
        time = f"{round(k + dataset.phase, 2):g} s"
        _write(strip, (k * wide + (wide - _GAP) // 2, strip.height - _LINE + 2), time, _FAINT, "ma")
    _legend(strip, sample.names[0], np.unique(sample.target.masks.numpy()).tolist(), dataset.category_names)
    return strip


def _rows(sample: Sample) -> list[list[Image.Image]]:
    """Return frames, masks and spectrograms of a clip, one cell per frame."""
    real = sample.clip.valid[0]
    frames: Pixels = denormalise(sample.clip.frames[0, real]).numpy()
    masks: NDArray[np.int64] = sample.target.masks[0, real].numpy()
    count, height, width = masks.shape
    wide = max(_NARROWEST, min(_WIDEST, _WIDTH // count))
    size = wide, max(1, round(wide * height / width))
    marked = [overlay_labels(*pair, size, colour) for pair in zip(frames, masks, strict=True)]
    for k in torch.nonzero(~sample.target.labelled[0, real]).flatten().tolist():
        _write(marked[k], (6, 4), "unlabelled", _PAPER)
    patches = sample.clip.audio[0, real, 0].numpy()
    audio_size = wide, max(48, wide // 2)
    return [[fit(f, size) for f in frames], marked, [spectrogram(patch, audio_size) for patch in patches]]


def _legend(strip: Image.Image, title: str, labels: Sequence[int], names: Sequence[str]) -> None:
    """Draw the clip's name and the colours of its labels."""
    left = _write(strip, (0, 2), title, _INK) + 18
    for label in labels:
        if label == 0:
            continue
        ImageDraw.Draw(strip).rounded_rectangle((left, 4, left + _LETTER, 4 + _LETTER), 3, fill=colour(label))
        name = "not scored" if label == IGNORE else names[label]
        left = _write(strip, (left + _LETTER + 6, 2), name, _INK) + 18


def _write(picture: Image.Image, at: tuple[int, int], text: str, ink: tuple[int, int, int], anchor: str = "la") -> int:
    """Draw text on an image; return its right end."""
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font, pen = ImageFont.truetype(file, _LETTER), ImageDraw.Draw(picture)
    pen.text(at, text, fill=ink, font=font, anchor=anchor)
    return at[0] + round(pen.textlength(text, font=font))
