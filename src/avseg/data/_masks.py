"""Read mask images of the released data sets as labels, from any kind of PNG."""

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.errors import DataError
from avseg.media.images import UNREADABLE

Labels = NDArray[np.int64]


def read_binary(path: Path) -> Labels:
    """Read (H, W) labels: 1 where the stored value is not 0.

    Foreground may be 1 or 255, grey, bilevel, a palette index or a colour. AVSBench's own code converts with Pillow's
    modes "1" (S4), which turns grey levels of 1 into background and dithers others, and "P" (MS3), which turns 1 into
    0.004 and white into 0.88.

    Raises:
        DataError: When it is missing or not an image.
    """
    stored = _read(path)
    return np.asarray((stored if stored.ndim == 2 else stored[..., :3].any(2)) != 0).astype(np.int64)


def read_colours(path: Path, unknown: Literal["refuse", "background"] = "refuse") -> Labels:
    """Read (H, W) labels from colours, see :func:`palette_colours`; the colour of 255 is 255.

    Args:
        path: A colour image.
        unknown: ``"refuse"`` raises an error for a colour without a label; ``"background"`` reads it as background,
            as in AVSBench's code.

    Raises:
        DataError: When it is missing, not an image, or has a colour without a label.
    """
    codes = _read(path, "RGB").astype(np.int64) @ (1 << 16, 1 << 8, 1)
    colours, labels = _codes()
    place = np.searchsorted(colours, codes).clip(max=len(colours) - 1)
    unlabelled = colours[place] != codes
    if unknown == "refuse" and unlabelled.any():
        y, x = np.argwhere(unlabelled)[0].tolist()
        code = int(codes[y, x])
        raise DataError(
            f"{path} has the colour {(code >> 16, code >> 8 & 255, code & 255)} at x {x}, y {y}, which has no label: "
            "restore the file, or set unknown_colours to background"
        )
    return np.where(unlabelled, 0, labels[place])


def palette_colours() -> NDArray[np.uint8]:
    """Return (256, 3) RGB colours of the labels 0 … 255: the palette of PASCAL VOC and AVSBench-semantic.

    Bit 3 i + c of a label is bit 7 - i of channel c, so that adjacent labels have different colours.
    """
    label = np.arange(256)
    bits = (label[:, None, None] >> (3 * np.arange(3) + np.arange(3)[:, None])) & 1
    return np.asarray((bits << (7 - np.arange(3))).sum(2)).astype(np.uint8)


@cache
def _codes() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the colours as sorted integers, and the label of each."""
    codes = palette_colours().astype(np.int64) @ (1 << 16, 1 << 8, 1)
    order = np.argsort(codes)
    return codes[order], order


def _read(path: Path, mode: str | None = None) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as file:
            # Pillow keeps transparency as the last channel; it is dropped from grey and palette images.
            return np.array(file.convert(mode or {"LA": "L", "PA": "P"}.get(file.mode, file.mode)))
    except FileNotFoundError:
        raise DataError(f"no {path}: every labelled frame needs a mask") from None
    except UNREADABLE as error:
        raise DataError(f"cannot read {path} as a mask: {error}") from None
