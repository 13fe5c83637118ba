"""Draw masks over frames: tint and contour, a timeline of the scores, stripes where the prediction is uncertain."""

from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from avseg.media.yuv import Planes, paint, paste, rgb_planes, subsampled, to_yuv
from avseg.prediction.grey_maps import quantised

Pixels = NDArray[np.uint8]

_TINT = 0.45
"""Share of the class colour inside a region."""
_TIMELINE = 0.05
"""Height of the timeline relative to that of the frame."""
_DARK, _LIGHT = np.full(3, 28, np.uint8), np.full(3, 255, np.uint8)
"""Colours of the contours, and of the background and the marker of the timeline."""
_SMALLEST = 96
"""Height or width in pixels below which a frame gets no timeline, names or legend."""
_STRIPES = 0.6
"""Share of the stripes at uncertainty 1."""
_MEDIUM = 110
"""Grey level behind the stripes of the legend."""
_ENDS = "certain", "uncertain"
"""Labels of the legend."""


def overlay(image: Pixels, labels: Pixels, colours: Pixels) -> Pixels:
    """Tint every region and draw its contour: white, with a dark line around it for contrast on any background.

    Args:
        image: (H, W, 3) RGB.
        labels: (H, W) class indices; 0 is not changed.
        colours: (classes, 3), from :func:`avseg.colours.palette`.

    Returns:
        A new (H, W, 3) image.
    """
    image = image.copy()
    add_regions(rgb_planes(image), labels, colours)
    return image


def add_regions(target: Planes, labels: Pixels, colours: Pixels) -> None:
    """Do the same as :func:`overlay` in place, on the planes of a frame; sizes are multiples of ``target.step``."""
    rows, columns = np.flatnonzero(labels.any(1)), np.flatnonzero(labels.any(0))
    if not rows.size:
        return
    width, step = max(1, round(min(labels.shape) / 360)), target.step
    top, left = (max(int(i[0]) - 2 * width, 0) // step * step for i in (rows, columns))
    bottom, right = (-(-(int(i[-1]) + 2 * width + 1) // step) * step for i in (rows, columns))
    marked = labels[top:bottom, left:right]
    for label in np.flatnonzero(np.bincount(marked.ravel(), minlength=1)[1:]) + 1:
        paint(target, top, left, marked == label, colours[label], _TINT)
    edge = _grown(_edge(marked), width - 1)
    paint(target, top, left, _grown(edge, width) & (marked == 0), _DARK, 1.0)
    paint(target, top, left, edge & (marked > 0), _LIGHT, 1.0)


def timeline(
    width: int, height: int, times: NDArray[np.float64], end: float, scores: NDArray[np.float64], colours: Pixels
) -> Pixels:
    """Return the timeline of a whole video: one bar per column, as high as the score, in the colour of the class.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        times: (N,) start of the frames in seconds.
        end: End of the last frame in seconds.
        scores: (N,) 0..1.
        colours: (N, 3) RGB.

    Returns:
        (height, width, 3).
    """
    moments = times[0] + (np.arange(width) + 0.5) / width * (end - times[0])
    frame = np.clip(np.searchsorted(times, moments, side="right") - 1, 0, len(times) - 1)
    level = np.arange(height, 0, -1)[:, None] / height
    filled = level <= scores[frame][None]
    return np.where(filled[..., None], colours[frame][None], _DARK)


def timeline_height(size: tuple[int, int]) -> int:
    """Return the height in pixels of the timeline of a frame (H, W): an even number, 0 for small frames."""
    return 0 if min(size) < _SMALLEST else max(6, 2 * round(size[0] * _TIMELINE / 2))


def add_timeline(image: Pixels, line: Pixels, done: float) -> Pixels:
    """Return an image with a timeline below it, with a white marker at the current time.

    Args:
        image: (H, W, 3).
        line: (h, W, 3), from :func:`timeline`.
        done: Elapsed share of the video, 0..1.

    Returns:
        (H + h, W, 3).
    """
    target = rgb_planes(image)
    return np.stack(planes_with_timeline(target, subsampled(line, target), done), -1)


def planes_with_timeline(target: Planes, line: Sequence[Pixels], done: float) -> list[Pixels]:
    """Return the planes of a frame with a timeline below it, as :func:`add_timeline`.

    Args:
        target: The planes.
        line: Planes of a timeline with even height, from :func:`avseg.media.yuv.subsampled`.
        done: Elapsed share of the video, 0..1.
    """
    shown = [np.concatenate(pair) for pair in zip(target.planes, line, strict=True)]
    width = line[0].shape[1]
    mark = max(1, round(width / 480))
    first = round(done * (width - mark))
    for plane, drawn, level in zip(shown, line, to_yuv(_LIGHT, target.matrix), strict=True):
        step = width // drawn.shape[1]
        plane[len(plane) - len(drawn) :, first // step : -(-(first + mark) // step)] = level
    return shown


def add_names(target: Planes, labels: list[int], names: tuple[str, ...], colours: Pixels) -> None:
    """Write class names into the upper left corner, in place, each on the colour of its class.

    Args:
        target: Planes of a frame.
        labels: Labels to name.
        names: Label → name.
        colours: (classes, 3).
    """
    rows = target.planes[0].shape[0]
    top = gap = _gap(rows)
    for label in labels:
        height = add_name(target, names[label], colours[label], top, gap)
        if not height or top + height + gap > rows:
            return
        top += height + gap


def add_name(target: Planes, name: str, colour: Pixels, top: int, left: int) -> int:
    """Write a name on its colour, in place, at a position or as close to it as fits into the frame.

    Args:
        target: Planes of a frame, whose height and width are multiples of ``target.step``.
        name: The name; the end of a long name is cut off.
        colour: (3,) RGB.
        top: First row.
        left: First column.

    Returns:
        The height of the plate; 0 in a small frame, which gets no name.
    """
    size = target.planes[0].shape
    if min(size) < _SMALLEST:
        return 0
    gap = _gap(size[0])
    plate = _plate(name, tuple(colour.tolist()), max(10, size[0] // 30), target.step)
    plate = plate[: size[0] - 2 * gap, : size[1] - 2 * gap]
    top, left = (
        min(max(at, gap), whole - part - gap) // target.step * target.step
        for at, whole, part in zip((top, left), size, plate.shape[:2], strict=True)
    )
    paste(target, top, left, plate)
    return int(plate.shape[0])


def _gap(rows: int) -> int:
    """Return the distance in pixels of names from the border: an even number."""
    return 2 * max(1, round(rows / 180))


@cache
def _plate(name: str, colour: tuple[int, int, int], size: int, step: int) -> Pixels:
    """Return a name on its colour; height and width are multiples of ``step``."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(name)
    pad = size // 3
    width, height = (-(-(round(length) + 2 * pad) // step) * step for length in (right - left, bottom - top))
    plate = Image.new("RGB", (width, height), colour)
    ink = "black" if np.dot(colour, (0.299, 0.587, 0.114)) > 110 else "white"
    ImageDraw.Draw(plate).text((pad - left, pad - top), name, ink, font)
    return np.asarray(plate)


def striped(image: Pixels, uncertainty: NDArray[np.float32]) -> Pixels:
    """Draw alternating dark and light diagonal stripes whose opacity grows with the uncertainty.

    Stripes are visible on any background, and grey is not the colour of a class. Regions are drawn on top.

    Args:
        image: (H, W, 3) RGB.
        uncertainty: (H, W), 0..1.

    Returns:
        A new (H, W, 3) image.
    """
    return _striped(image, uncertainty, _stripe(image))


def add_legend(image: Pixels) -> None:
    """Draw the legend of the stripes, in place, in the lower right corner."""
    if min(image.shape[:2]) < _SMALLEST:
        return
    legend, gap = _legend(max(10, image.shape[0] // 36), _stripe(image)), _gap(image.shape[0])
    bottom, right = image.shape[0] - gap, image.shape[1] - gap
    top, left = bottom - legend.shape[0], right - legend.shape[1]
    if min(top, left) >= gap:
        image[top:bottom, left:right] = legend


def _stripe(image: Pixels) -> int:
    """Return the width of a stripe in pixels, along a row."""
    return max(3, min(map(int, image.shape[:2])) // 90)


def _striped(image: Pixels, uncertainty: NDArray[np.float32], stripe: int) -> Pixels:
    stripes = _stripes(*uncertainty.shape, stripe)
    share = Image.fromarray(quantised(uncertainty * np.float32(_STRIPES)))
    return np.array(Image.composite(stripes, Image.fromarray(image), share))


@lru_cache(maxsize=2)  # one for the video, one for the legend
def _stripes(height: int, width: int, stripe: int) -> Image.Image:
    odd = (np.arange(height)[:, None] + np.arange(width)) // stripe % 2
    return Image.fromarray(np.where(odd[..., None], _LIGHT, _DARK))


@cache
def _legend(size: int, stripe: int) -> Pixels:
    """Return an image of the stripes from uncertainty 0 to 1, between two words."""
    font, pad = ImageFont.load_default(size), size // 3
    widths = [round(font.getlength(word)) + 2 * pad for word in _ENDS]
    scale = np.full((size + 2 * pad, 8 * size, 3), _MEDIUM, np.uint8)
    rise = np.broadcast_to(np.linspace(0, 1, scale.shape[1], dtype=np.float32), scale.shape[:2])
    legend = Image.new("RGB", (sum(widths) + scale.shape[1], scale.shape[0]), tuple(_DARK.tolist()))
    legend.paste(Image.fromarray(_striped(scale, rise, stripe)), (widths[0], 0))
    draw = ImageDraw.Draw(legend)
    for word, left in zip(_ENDS, (0, widths[0] + scale.shape[1]), strict=True):
        draw.text((left + pad, legend.height // 2), word, "white", font, anchor="lm")
    return np.asarray(legend)


def _edge(marked: Pixels) -> NDArray[np.bool_]:
    """Return a mask of the pixels whose right or lower neighbour has another label, and of that neighbour."""
    edge = np.zeros(marked.shape, bool)
    across, down = marked[:, 1:] != marked[:, :-1], marked[1:] != marked[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    for _ in range(by):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask
