"""Canvas for sprites: antialiased shapes in units of the sprite's height, then shading and texture."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from avseg.colours import Colour
from avseg.synthesis.sprites.traits import Traits

Points = Sequence[tuple[float, float]]

_FINER = 2
"""Supersampling factor, for antialiasing."""


class CutOut(NamedTuple):
    """An object without background.

    Attributes:
        image: RGBA, cropped to the object.
        rooted: True if it is cut off at its lower edge, and therefore placed at the lower edge of the frame.
        upright: True if it is never rotated far.
    """

    image: Image.Image
    rooted: bool = False
    upright: bool = True


class Canvas:
    """Transparent canvas; x is in 0..aspect, y in 0..1 downwards.

    Args:
        px: Height of the final image in pixels.
        aspect: Width over height.
    """

    def __init__(self, px: int, aspect: float = 1.0) -> None:
        self.unit = px * _FINER
        width = max(_FINER, round(self.unit * aspect))
        self.image = Image.new("RGBA", (width, self.unit))
        self._pen = ImageDraw.Draw(self.image)

    def polygon(self, points: Points, colour: Colour) -> None:
        """Draw a filled polygon."""
        self._pen.polygon([(x * self.unit, y * self.unit) for x, y in points], fill=colour)

    def smooth(self, points: Points, colour: Colour) -> None:
        """Draw a filled closed curve through the points."""
        p = np.asarray(points, dtype=np.float64)
        before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
        t = np.linspace(0.0, 1.0, 8, endpoint=False)[:, None, None]
        # Catmull-Rom spline: passes through every point, tangent to the chord of its neighbours
        curve = p + 0.5 * t * (
            after - before + t * (2 * before - 5 * p + 4 * after - beyond + t * (3 * (p - after) + beyond - before))
        )
        self._pen.polygon((curve.transpose(1, 0, 2).reshape(-1) * self.unit).tolist(), fill=colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, angle: float = 0.0) -> None:
        """Draw a filled ellipse centred on (x, y), rotated by ``angle`` degrees."""
        if angle == 0.0:
            box = [(x - rx) * self.unit, (y - ry) * self.unit, (x + rx) * self.unit, (y + ry) * self.unit]
            self._pen.ellipse(box, fill=colour)
            return
        turn, around = np.deg2rad(angle), np.linspace(0.0, 2 * np.pi, 28, endpoint=False)
        dx, dy = rx * np.cos(around), ry * np.sin(around)
        xs, ys = x + dx * np.cos(turn) - dy * np.sin(turn), y + dx * np.sin(turn) + dy * np.cos(turn)
        self.polygon(list(zip(xs.tolist(), ys.tolist(), strict=True)), colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, radius: float = 0.0) -> None:
        """Draw a filled rectangle with rounded corners."""
        u = self.unit
        self._pen.rounded_rectangle([x0 * u, y0 * u, max(x0, x1) * u, max(y0, y1) * u], radius * u, fill=colour)

    def line(self, points: Points, width: float, colour: Colour) -> None:
        """Draw a polyline with round joints and ends."""
        scaled = [(x * self.unit, y * self.unit) for x, y in points]
        self._pen.line(scaled, fill=colour, width=max(1, round(width * self.unit)), joint="curve")
        radius = width / 2
        if radius * self.unit > 1.0:
            for x, y in (points[0], points[-1]):
                self.ellipse(x, y, radius, radius, colour)

    def arc(
        self, x: float, y: float, rx: float, ry: float, start: float, end: float, width: float, colour: Colour
    ) -> None:
        """Draw part of an ellipse's outline; angles in degrees clockwise from the right."""
        box = [(x - rx) * self.unit, (y - ry) * self.unit, (x + rx) * self.unit, (y + ry) * self.unit]
        self._pen.arc(box, start, end, fill=colour, width=max(1, round(width * self.unit)))

    def finish(self, traits: Traits, grain: float = 0.06, *, rooted: bool = False, upright: bool = True) -> CutOut:
        """Return the image at its final size, cropped to the shapes, with shading and texture.

        Args:
            traits: Random parameters of shading and texture.
            grain: Standard deviation of the surface brightness.
            rooted: See :class:`CutOut`.
            upright: See :class:`CutOut`.
        """
        small = self.image.reduce(_FINER)
        return CutOut(_lit(small.crop(small.getbbox()), traits, grain), rooted, upright)


def _lit(picture: Image.Image, traits: Traits, grain: float) -> Image.Image:
    """Shade an RGBA image with light from a random side and an uneven surface."""
    pixels = np.asarray(picture).astype(np.float32)
    height, width = pixels.shape[:2]
    turn, depth = traits.free(0.0, 2 * np.pi), traits.free(0.05, 0.3)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = 1.0 + depth * (np.cos(turn) * x + np.sin(turn) * y)
    light = light * (1.0 + grain * cloud(traits.rng, height, width, max(3, height // 6)))
    light = light + 0.5 * grain * traits.rng.standard_normal((height, width), dtype=np.float32)
    pixels[..., :3] *= light[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGBA")


def cloud(rng: np.random.Generator, height: int, width: int, cells: int) -> NDArray[np.float32]:
    """Return (height, width) smooth noise of about -1..1, interpolated from ``cells`` x ``cells`` values."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    smooth = Image.fromarray(coarse, "F").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth)
