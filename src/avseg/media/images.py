"""Read, resize and normalise images and masks."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from avseg.errors import DataError

Resize = Literal["squash", "crop", "native"]
Columns = NDArray[np.float32]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's RGB in 0..1, used by all backbones."""
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
"""Exceptions of Pillow for damaged images; its readers of formats do not agree on one."""


def read_picture(path: Path) -> Image.Image:
    """Read an image as RGB, with its EXIF orientation applied.

    Raises:
        DataError: When it cannot be read.
    """
    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file).convert("RGB")
    except UNREADABLE as error:
        raise DataError(f"cannot read {path} as an image: {error}") from None


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Read the (H, W) class numbers of a palette or grey PNG.

    Raises:
        DataError: When it cannot be read, or is a colour image.
    """
    try:
        with Image.open(path) as file:
            if file.mode not in ("P", "L", "1"):
                raise DataError(f"{path} is a {file.mode} image: a mask holds class numbers (palette or 8-bit grey)")
            return np.array(file).astype(np.uint8)
    except UNREADABLE as error:
        raise DataError(f"cannot read {path} as a mask: {error}") from None


def fitted(picture: Image.Image, size: tuple[int, int], resize: Resize, resampling: Image.Resampling) -> Image.Image:
    """Resize an image.

    Args:
        picture: The image.
        size: Height and width in pixels; 0 keeps its size.
        resize: ``"squash"``: the whole image, changing its aspect ratio. ``"crop"``: scaled to cover the size, then
            centre-cropped. ``"native"``: not resized.
        resampling: ``BILINEAR`` for images, ``NEAREST`` for labels.
    """
    height, width = size
    if resize == "native" or not (height and width):
        return picture
    if resize == "crop":
        factor = max(height / picture.height, width / picture.width)
        covering = max(width, int(picture.width * factor)), max(height, int(picture.height * factor))
        left, top = round((covering[0] - width) / 2), round((covering[1] - height) / 2)
        return _resized(picture, covering, resampling).crop((left, top, left + width, top + height))
    return _resized(picture, (width, height), resampling)


def _resized(picture: Image.Image, size: tuple[int, int], resampling: Image.Resampling) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, resampling)


def enlarged(columns: Columns, size: tuple[int, int]) -> Columns:
    """Resize (w, h) bilinearly to (W, H) for a ``size`` of (H, W)."""
    picture, (h, w) = Image.fromarray(np.ascontiguousarray(columns)), columns.shape[::-1]
    if size[0] >= h and size[1] >= w:
        return np.array(picture.resize(size, Image.Resampling.BILINEAR))
    # resize would antialias; a loss or score at a smaller size does not.
    scale = (h / size[0], 0, 0, 0, w / size[1], 0)
    return np.array(picture.transform(size, Image.Transform.AFFINE, scale, Image.Resampling.BILINEAR))


def normalise(frames: Tensor) -> Tensor:
    """Normalise frames for a model: (..., H, W, 3) uint8 → (..., 3, H, W) float32."""
    rgb = frames.movedim(-1, -3).float() / 255.0
    return (rgb - rgb.new_tensor(MEAN).view(3, 1, 1)) / rgb.new_tensor(STD).view(3, 1, 1)


def denormalise(frames: Tensor) -> Tensor:
    """Invert :func:`normalise`: (..., 3, H, W) float → (..., H, W, 3) uint8."""
    rgb = frames * frames.new_tensor(STD).view(3, 1, 1) + frames.new_tensor(MEAN).view(3, 1, 1)
    return (rgb * 255.0).round().clamp(0, 255).byte().movedim(-3, -1)
