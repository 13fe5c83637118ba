"""Masks over pictures: a tint, a contour, a time line of what sounds when, a veil over what is uncertain."""

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from avseg.prediction.uncertainty import quantised

Pixels = NDArray[np.uint8]

_COLOURS = (
    (230, 60, 150),
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)
"""Magenta, which grass, skin, wood and sky leave free; then sky blue, orange, green, yellow, blue and vermilion, told
apart with every kind of colour vision (Okabe & Ito, "Color Universal Design", 2008)."""
_TINT = 0.45
"""Share of the class colour inside a region."""
_STRIP = 0.03
"""Height of the time line over the height of the picture."""
_DARK, _LIGHT = np.full(3, 28, np.uint8), np.full(3, 255, np.uint8)
"""Of the contours, and of the time line's ground and mark."""
_SMALLEST = 96
"""Pixels of height or width below which a picture has no room for a time line or names."""
_VEIL = 0.6
"""Share of the stripes where nothing is known."""
_MEDIUM = 110
"""Grey the legend shows the stripes on."""
_ENDS = "sure", "uncertain"
"""Of the legend."""


@cache
def palette(classes: int) -> Pixels:
    """(classes, 3) RGB: black for the background, then colours that colour-blind people tell apart.

    After seven they come again, lighter, then darker: a contour and a name tell those from their elders.
    """
    colours = np.zeros((classes, 3), np.uint8)
    for label in range(1, classes):
        turn, which = divmod(label - 1, len(_COLOURS))
        towards = (0.0, 255.0, 0.0)[turn % 3]
        share = (0.0, 0.5, 0.4)[turn % 3]
        colours[label] = np.round(np.array(_COLOURS[which]) * (1 - share) + towards * share)
    colours.flags.writeable = False
    return colours


def overlay(image: Pixels, labels: Pixels, colours: Pixels) -> Pixels:
    """Tint every region and trace its contour: white, inside a dark line, so that it shows on any ground.

    Args:
        image: (H, W, 3) RGB.
        labels: (H, W) class numbers; 0 stays as it is.
        colours: (classes, 3), from :func:`palette`.

    Returns:
        A new (H, W, 3) picture.
    """
    image = image.copy()
    rows, columns = np.flatnonzero(labels.any(1)), np.flatnonzero(labels.any(0))
    if not rows.size:
        return image
    width = max(1, round(min(labels.shape) / 360))
    top, left = (max(int(i[0]) - 2 * width, 0) for i in (rows, columns))
    bottom, right = (int(i[-1]) + 2 * width + 1 for i in (rows, columns))
    marked = labels[top:bottom, left:right]
    part = Image.fromarray(image[top:bottom, left:right])
    for label in np.flatnonzero(np.bincount(marked.ravel(), minlength=1)[1:]) + 1:
        _paste(part, colours[label], marked == label, _TINT)
    edge = _grown(_edge(marked), width - 1)
    _paste(part, _DARK, _grown(edge, width) & (marked == 0), 1.0)
    _paste(part, _LIGHT, edge & (marked > 0), 1.0)
    image[top:bottom, left:right] = np.asarray(part)
    return image


def strip(
    width: int, height: int, times: NDArray[np.float64], end: float, scores: NDArray[np.float64], colours: Pixels
) -> Pixels:
    """The time line of a whole video: one bar per column, as high as the score, in the colour of what sounds.

    Args:
        width: Of the line, in pixels.
        height: Of the line, in pixels.
        times: (N,) seconds at which the frames appear.
        end: Seconds at which the last one goes.
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


def strip_height(size: tuple[int, int]) -> int:
    """Pixels the time line takes at the bottom of a picture; 0 when there is no room."""
    return 0 if min(size) < _SMALLEST else max(6, round(size[0] * _STRIP))


def add_strip(image: Pixels, line: Pixels, done: float) -> None:
    """Lay a time line over the bottom of a picture, in place, with a white mark at the present.

    Args:
        image: (H, W, 3).
        line: (h, W, 3), from :func:`strip`.
        done: Share of the video that is over, 0..1.
    """
    height, width = line.shape[:2]
    if not height:
        return
    bottom = image[-height:]
    bottom[:] = bottom // 5 + (line // 5) * 4
    mark = max(1, round(width / 480))
    first = round(done * (width - mark))
    bottom[:, first : first + mark] = _LIGHT


def add_names(image: Pixels, labels: list[int], names: tuple[str, ...], colours: Pixels) -> None:
    """Write the names of what sounds into the upper left corner, in place, each on its colour."""
    if min(image.shape[:2]) < _SMALLEST:
        return
    gap = max(2, image.shape[0] // 90)
    top = gap
    for label in labels:
        plate = _plate(names[label], tuple(colours[label].tolist()), max(10, image.shape[0] // 30))
        height, width = (min(have, want) for have, want in zip(image.shape[:2], plate.shape[:2], strict=True))
        if top + height + gap > image.shape[0] or width + gap > image.shape[1]:
            return
        image[top : top + height, gap : gap + width] = plate[:height, :width]
        top += height + gap


@cache
def _plate(name: str, colour: tuple[int, int, int], size: int) -> Pixels:
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(name)
    pad = size // 3
    plate = Image.new("RGB", (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad), colour)
    ink = "black" if np.dot(colour, (0.299, 0.587, 0.114)) > 110 else "white"
    ImageDraw.Draw(plate).text((pad - left, pad - top), name, ink, font)
    return np.asarray(plate)


def veiled(image: Pixels, uncertainty: NDArray[np.float32]) -> Pixels:
    """Draw slanted stripes, dark and light in turn, the stronger the less is known.

    They show on any ground, and without a hue they are no class's colour. Regions and their contours go on top.

    Args:
        image: (H, W, 3) RGB.
        uncertainty: (H, W), 0..1.

    Returns:
        A new (H, W, 3) picture.
    """
    return _striped(image, uncertainty, _stripe(image))


def add_legend(image: Pixels, line: int) -> None:
    """Tell what the stripes mean, in place: in the lower right corner, above a time line of ``line`` pixels."""
    if min(image.shape[:2]) < _SMALLEST:
        return
    legend, gap = _legend(max(10, image.shape[0] // 36), _stripe(image)), max(2, image.shape[0] // 90)
    bottom, right = image.shape[0] - line - gap, image.shape[1] - gap
    top, left = bottom - legend.shape[0], right - legend.shape[1]
    if min(top, left) >= gap:
        image[top:bottom, left:right] = legend


def _stripe(image: Pixels) -> int:
    """Pixels of a stripe, along a row."""
    return max(3, min(map(int, image.shape[:2])) // 90)


def _striped(image: Pixels, uncertainty: NDArray[np.float32], stripe: int) -> Pixels:
    stripes = _stripes(*uncertainty.shape, stripe)
    share = Image.fromarray(quantised(uncertainty * np.float32(_VEIL)))
    return np.array(Image.composite(stripes, Image.fromarray(image), share))


@lru_cache(maxsize=2)  # of the video and of the legend
def _stripes(height: int, width: int, stripe: int) -> Image.Image:
    odd = (np.arange(height)[:, None] + np.arange(width)) // stripe % 2
    return Image.fromarray(np.where(odd[..., None], _LIGHT, _DARK))


@cache
def _legend(size: int, stripe: int) -> Pixels:
    """The stripes from none to the strongest, between two words."""
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


def _paste(part: Image.Image, colour: Pixels, mask: NDArray[np.bool_], share: float) -> None:
    part.paste(tuple(colour.tolist()), mask=Image.fromarray(mask * np.uint8(round(255 * share))))


def _edge(marked: Pixels) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class, and that neighbour."""
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
