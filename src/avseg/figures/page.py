"""A page of images and text at positions in points of 1/72 inch from its upper left corner.

Text is measured before a page is created, so that the page size fits the content and nothing overlaps.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from PIL import Image

from avseg.figures.cells import Colour, Size
from avseg.figures.files import FONT, write_figure

WIDTH = 504.0
"""Width in points of two columns of a paper; a figure is wider only if its cells would be too small."""
EDGE, GAP, SPACE = 4.0, 2.0, 8.0
"""Points: margin, gap between cells, gap between groups of cells."""
LINE, LETTER, SMALL = 11.0, 8.0, 7.0
"""Points: height of a line of text, font size, small font size."""
PAPER, INK, FAINT = (255, 255, 255), (33, 37, 41), (95, 103, 111)
_BASELINE = 0.74
"""Position of the baseline in a line of text, from the top."""

Legend = Sequence[tuple[str, Colour]]
"""Names and colours."""


def width_of(words: str, size: float = LETTER) -> float:
    """Return the width of a line of text in points."""
    font = FontProperties(family=FONT, size=size)
    wide, _, _ = text_to_path.get_text_width_height_descent(words, font, ismath=False)
    return float(wide)


def shortened(words: str, width: float, size: float = LETTER) -> str:
    """Return the text, with its middle replaced by "…" if it is wider than ``width`` points."""
    kept = len(words)
    short = words
    while width_of(short, size) > width and kept > 1:
        kept -= 1
        short = f"{words[: kept - kept // 2]}…{words[len(words) - kept // 2 :]}"
    return short


def clamped(value: float, low: float, high: float) -> float:
    """Return the value clamped to the range."""
    return min(max(value, low), high)


def grid(height: int, width: int) -> str:
    """Format the size of a map."""
    return f"{height} \N{MULTIPLICATION SIGN} {width}"


class Page:
    """A white page.

    Args:
        width: In points.
        height: In points.
        dpi: Dots per inch of its images.
    """

    def __init__(self, width: float, height: float, dpi: int) -> None:
        self._dpi = dpi
        self._figure = Figure(figsize=(width / 72, height / 72), dpi=dpi, facecolor=_rgb(PAPER))
        self._axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        self._axes.set_axis_off()

    def pixels(self, width: float, height: float) -> Size:
        """Return the size in pixels of an image of that size in points."""
        across, down = (max(1, round(points * self._dpi / 72)) for points in (width, height))
        return across, down

    def picture(self, image: Image.Image, left: float, top: float, width: float, height: float) -> None:
        """Draw an image, scaled by the nearest neighbour."""
        dots = image.resize(self.pixels(width, height), Image.Resampling.NEAREST)
        extent = (left, left + width, top + height, top)
        self._axes.imshow(np.asarray(dots), extent=extent, aspect="auto", interpolation="nearest")
        # imshow changes the limits of the axes.
        self._axes.set(xlim=(0, self._figure.get_figwidth() * 72), ylim=(self._figure.get_figheight() * 72, 0))

    def frame(self, left: float, top: float, width: float, height: float) -> None:
        """Draw a thin frame, for an image that may be as white as the page."""
        self._axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=_rgb(FAINT), linewidth=0.4))

    def rule(self, left: float, top: float, width: float) -> None:
        """Draw a thin line."""
        self._axes.plot((left, left + width), (top, top), color=_rgb(FAINT), linewidth=0.4)

    def write(
        self,
        words: str,
        x: float,
        top: float,
        *,
        size: float = LETTER,
        ink: Colour = INK,
        align: Literal["left", "center", "right"] = "left",
    ) -> None:
        """Draw text in the line that begins ``top`` points below the edge; ``x`` is its left, centre or right."""
        style = {"family": FONT, "size": size, "color": _rgb(ink), "ha": align, "va": "baseline"}
        self._axes.text(x, top + _BASELINE * LINE, words, style, parse_math=False)

    def legend(self, legend: Legend, left: float, top: float, width: float) -> None:
        """Draw colours and names; the height is :func:`legend_height`."""
        for words, colour, x, y in _flow(legend, width):
            swatch = Rectangle((left + x, top + y + 2.0), LETTER, LETTER, facecolor=_rgb(colour), edgecolor="none")
            self._axes.add_patch(swatch)
            self.write(words, left + x + LETTER + 3.0, top + y)

    def save(self, out: Path) -> Path:
        """Write the page, see :func:`avseg.figures.files.write_figure`."""
        return write_figure(self._figure, out, self._dpi)


def legend_height(legend: Legend, width: float) -> float:
    """Return the height of :meth:`Page.legend` in points."""
    return max((y + LINE for _, _, _, y in _flow(legend, width)), default=0.0)


def _flow(legend: Legend, width: float) -> Iterator[tuple[str, Colour, float, float]]:
    """Yield name, colour, x and y of each entry, in lines of that width."""
    x = y = 0.0
    for words, colour in legend:
        words = shortened(words, width - LETTER - 3.0)
        wide = LETTER + 3.0 + width_of(words) + SPACE
        if x and x + wide - SPACE > width:
            x, y = 0.0, y + LINE
        yield words, colour, x, y
        x += wide


def _rgb(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
