"""Mask pictures of the released data sets → labels, whatever kind of PNG they were stored as."""

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from avseg.errors import DataError

Labels = NDArray[np.int64]


def read_binary(path: Path) -> Labels:
    """(H, W): 1 where anything but 0 is stored.

    The same whether foreground is 1 or 255, grey, black-and-white, a palette index or a colour. AVSBench's own code
    converts with Pillow's modes "1" (S4), which turns grey levels of 1 into background and dithers others, and "P"
    (MS3), which leaves 0.004 of a 1 and 0.88 of white.

    Raises:
        DataError: When it is missing or no picture.
    """
    stored = _read(path)
    return np.asarray((stored if stored.ndim == 2 else stored[..., :3].any(2)) != 0).astype(np.int64)


def read_colours(path: Path, unknown: Literal["refuse", "background"] = "refuse") -> Labels:
    """(H, W): the label of each pixel's colour, see :func:`palette_colours`; the colour of 255 is 255.

    Args:
        path: A colour picture.
        unknown: What a colour of no label means: an error, or the background, as in AVSBench's code.

    Raises:
        DataError: When it is missing, no picture, or holds the colour of no label.
    """
    with_names = _read(path, "RGB").astype(np.int64) @ (1 << 16, 1 << 8, 1)
    colours, labels = _codes()
    place = np.searchsorted(colours, with_names).clip(max=len(colours) - 1)
    strange = colours[place] != with_names
    if unknown == "refuse" and strange.any():
        y, x = np.argwhere(strange)[0].tolist()
        code = int(with_names[y, x])
        raise DataError(
            f"{path} has the colour {(code >> 16, code >> 8 & 255, code & 255)} at x {x}, y {y}, which is no label's: "
            "restore the file, or set unknown_colours to background"
        )
    return np.where(strange, 0, labels[place])


def palette_colours() -> NDArray[np.uint8]:
    """(256, 3) RGB of the labels 0 … 255, as PASCAL VOC and AVSBench-semantic colour them.

    Bit 3 i + c of a label is bit 7 - i of channel c, so that close labels have unlike colours.
    """
    label = np.arange(256)
    bits = (label[:, None, None] >> (3 * np.arange(3) + np.arange(3)[:, None])) & 1
    return np.asarray((bits << (7 - np.arange(3))).sum(2)).astype(np.uint8)


@cache
def _codes() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The colours as numbers, rising, and the label of each."""
    codes = palette_colours().astype(np.int64) @ (1 << 16, 1 << 8, 1)
    order = np.argsort(codes)
    return codes[order], order


def _read(path: Path, mode: str | None = None) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as file:
            # Pillow keeps transparency as a last channel; of grey pictures with one, only the grey counts.
            picture = file.convert(mode or {"LA": "L", "PA": "P"}.get(file.mode, file.mode))
            return np.array(picture)
    except FileNotFoundError:
        raise DataError(f"no {path}: every labelled frame needs a mask") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a mask that can be read: {error}") from None
