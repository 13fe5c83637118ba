"""Pictures and masks brought to the size a model sees."""

from typing import Literal

from PIL import Image

Resize = Literal["squash", "crop", "native"]


def fitted(picture: Image.Image, size: tuple[int, int], resize: Resize, resampling: Image.Resampling) -> Image.Image:
    """The picture at another size.

    Args:
        picture: Any.
        size: Height and width in pixels; 0 leaves it as it is.
        resize: ``"squash"``: all of it, whatever becomes of its proportions. ``"crop"``: enlarged or reduced until it
            just covers the size, and the middle of that. ``"native"``: as it is.
        resampling: ``BILINEAR`` for pictures, ``NEAREST`` for labels.
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
