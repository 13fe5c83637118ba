"""``masks/000000.png`` …: the mask of every frame, at the size of the video."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.colours import palette
from avseg.outputs._base import Output, OutputFrame, numbered
from avseg.prediction.record import Record


class Masks(Output):
    """One PNG per frame: black and white (1 bit) for one class, class indices with a palette for several."""

    files = numbered("masks")

    def __init__(self, record: Record, folder: Path) -> None:
        super().__init__(record, folder)
        (folder / "masks").mkdir()

    def add(self, frame: OutputFrame) -> None:
        """Write the mask of one frame."""
        image = mask_image(frame.labels, len(self.record.class_names))
        image.save(self.folder / "masks" / f"{frame.index:06d}.png", compress_level=1)


def mask_image(labels: NDArray[np.uint8], classes: int) -> Image.Image:
    """Return a 1-bit image of the foreground for two classes, a palette image of the labels for more.

    Args:
        labels: (H, W).
        classes: Number of classes with the background.
    """
    if classes == 2:
        return Image.fromarray(labels > 0)
    image = Image.fromarray(labels, "P")
    image.putpalette(palette(classes).tobytes())
    return image
