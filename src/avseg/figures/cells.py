"""Image cells of figures and contact sheets: a frame, labels over a frame, the spectrogram of a patch."""

from collections.abc import Callable

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.mel import OFFSET

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
Size = tuple[int, int]
"""(width, height) in pixels, as in Pillow."""

_LOUD = 4.0
"""Upper end of the log-mel colour scale; the lower end is silence, ln 0.01."""


def fit(frame: Pixels, size: Size) -> Image.Image:
    """Resize a frame (H, W, 3)."""
    return Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)


def overlay_labels(
    frame: Pixels, mask: NDArray[np.integer], size: Size, colour: Callable[[int], Colour]
) -> Image.Image:
    """Overlay labels in their colours, with a light edge, on the frame in dim grey.

    Args:
        frame: (H, W, 3) RGB.
        mask: Labels of any height and width, stretched over the whole frame; 0 stays grey.
        size: Size of the result.
        colour: Label → colour.
    """
    labels = _enlarged(mask, size)
    grey = _grey(frame, size)
    out = _dim(grey)
    for label in np.unique(labels[labels > 0]).tolist():
        inside = labels == label
        out[inside] = (0.35 * grey + 0.65 * np.array(colour(label), dtype=np.float32))[inside]
    return _edged(out, labels)


def highlight(frame: Pixels, mask: NDArray[np.bool_], size: Size) -> Image.Image:
    """Show the frame in colour where a mask of any height and width is True, in dim grey elsewhere."""
    labels = _enlarged(mask, size)
    out = _dim(_grey(frame, size))
    out[labels > 0] = np.asarray(fit(frame, size))[labels > 0]
    return _edged(out, labels)


def _enlarged(mask: NDArray[np.integer] | NDArray[np.bool_], size: Size) -> Pixels:
    """Resize labels by the nearest neighbour."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def _grey(frame: Pixels, size: Size) -> NDArray[np.float32]:
    return np.asarray(fit(frame, size).convert("L"), dtype=np.float32)[..., None]


def _dim(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.repeat(0.45 * grey + 20.0, 3, axis=2)


def _edged(picture: NDArray[np.float32], labels: Pixels) -> Image.Image:
    """Add a light line along label boundaries."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    picture[edge] = 255.0
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def spectrogram(patch: NDArray[np.float32], size: Size) -> Image.Image:
    """Render (96, 64) log-mel, time to the right, frequency upwards."""
    low = float(np.log(OFFSET))
    scaled = ((patch.T[::-1] - low) / (_LOUD - low)).clip(0.0, 1.0)
    coloured = (matplotlib.colormaps["magma"](scaled)[..., :3] * 255).astype(np.uint8)
    return Image.fromarray(coloured).resize(size, Image.Resampling.BILINEAR)
