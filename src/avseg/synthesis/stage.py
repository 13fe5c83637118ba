"""Position and motion of the objects in a scene, and of the camera."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.synthesis.sprites.canvas import CutOut

_OPAQUE = [0] * 128 + [255] * 128
"""Alpha threshold: a pixel belongs to an object with an opacity of half or more."""
_MARGIN, _VIEW = 1.3, 1.25
"""Size of a setting relative to the frame, and of a setting to the part of it in view at zoom 1."""
_CLOSER = 1.3
"""Factor of the size of objects at the lower edge, which are closer to the camera."""


class Pose(NamedTuple):
    """Centre and longer side in parts of the frame (the side: of its shorter edge), and a rotation in degrees."""

    x: float
    y: float
    size: float
    angle: float


class Actor(NamedTuple):
    """An image that moves from one pose to another. Number 0 has no class."""

    number: int
    image: Image.Image
    first: Pose
    last: Pose


class Setting(NamedTuple):
    """Background of a scene, which may contain objects.

    Attributes:
        image: RGB, of :func:`setting_size`.
        instances: Numbers of the objects in the background, 0 elsewhere; mode L, same size; None without objects.
    """

    image: Image.Image
    instances: Image.Image | None = None


def setting_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of a setting for frames of this width and height, with a margin for camera motion."""
    return round(size[0] * _MARGIN), round(size[1] * _MARGIN)


def place(rng: np.random.Generator, number: int, thing: CutOut, size: float, others: Sequence[Actor]) -> Actor:
    """Place an object at the random position, out of 12, that overlaps least with the others.

    Narrow objects are enlarged, so that they are as visible as others.
    """
    image = thing.image if rng.random() < 0.5 else thing.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    size *= (_CLOSER if thing.rooted else 1.0) * (max(image.size) / min(image.size)) ** 0.3
    wide, tall = (size * edge / max(image.size) for edge in image.size)

    def crowd(spot: tuple[float, float]) -> float:
        gaps = ((size + o.first.size) * 0.38 - np.hypot(spot[0] - o.first.x, spot[1] - o.first.y) for o in others)
        return sum(max(0.0, float(gap)) for gap in gaps)

    spots = [_spot(rng, wide, tall, thing.rooted) for _ in range(12)]
    x, y = min(spots, key=crowd)
    speed = float(rng.choice([0.0, 0.05, 0.15]))
    dx, dy, growth, turn = (float(v) for v in rng.uniform(-speed, speed, 4))
    lean = float(rng.uniform(-10, 10) if thing.upright else rng.uniform(-70, 70)) * (0.3 if thing.rooted else 1.0)
    end_y = y if thing.rooted else float(np.clip(y + dy, 0.1, 0.9))
    last = Pose(float(np.clip(x + dx, 0.1, 0.9)), end_y, size * (1.0 + growth), lean + 60.0 * turn)
    return Actor(number, image, Pose(x, y, size, lean), last)


def _spot(rng: np.random.Generator, wide: float, tall: float, rooted: bool) -> tuple[float, float]:
    """Sample a centre for an object of that width and height, with most of it inside the frame."""
    right, down = max(0.0, 0.5 - wide * 0.4), max(0.0, 0.5 - tall * 0.4)
    x, y = 0.5 + float(rng.uniform(-1, 1)) * right, 0.5 + float(rng.uniform(-1, 1)) * down
    return (x, 1.02 - tall * float(rng.uniform(0.4, 0.5))) if rooted else (x, y)


def still(
    rng: np.random.Generator, draw: Callable[[np.random.Generator, int], Image.Image], side: int, largest: float
) -> Actor:
    """Place clutter at a random position, without motion."""
    size = float(rng.uniform(0.1, largest))
    pose = Pose(float(rng.random()), float(rng.random()), size, 0.0)
    return Actor(0, draw(rng, max(6, round(size * side))), pose, pose)


class Camera:
    """Camera with a small random pan and zoom over a setting that is larger than the frame.

    Args:
        rng: Random generator.
        size: Width and height of the frame.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.size = size
        self._first = np.array([*rng.uniform(-0.03, 0.03, 2), rng.uniform(0.98, 1.06)])
        self._last = self._first + (0.0 if rng.random() < 0.4 else 1.0) * rng.uniform(-0.05, 0.05, 3)

    def hold(self) -> None:
        """Stop panning and zooming."""
        self._last = self._first

    def shoot(
        self, setting: Setting, actors: Sequence[Actor], part: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Render the frame (H, W, 3) and the number of the object at each pixel (H, W) at this part of the clip."""
        view: list[float] = (self._first * (1 - part) + self._last * part).tolist()
        pan_x, pan_y, zoom = view
        box = _window(setting.image.size, pan_x, pan_y, zoom)
        picture = setting.image.resize(self.size, Image.Resampling.BILINEAR, box=box).convert("RGBA")
        instances = Image.new("L", self.size)
        if setting.instances:
            instances = setting.instances.resize(self.size, Image.Resampling.NEAREST, box=box)
        for number, image, first, last in actors:
            x, y, size, angle = (a * (1 - part) + b * part for a, b in zip(first, last, strict=True))
            stamp = _turned(image, size * zoom * min(self.size), angle)
            left = round((0.5 + (x - 0.5 + pan_x) * zoom) * self.size[0] - stamp.width / 2)
            top = round((0.5 + (y - 0.5 + pan_y) * zoom) * self.size[1] - stamp.height / 2)
            alpha = stamp.getchannel("A")
            picture.paste(stamp, (left, top), alpha)
            instances.paste(number, (left, top), alpha.point(_OPAQUE))
        return np.asarray(picture.convert("RGB")), np.asarray(instances)


def _window(size: tuple[int, int], pan_x: float, pan_y: float, zoom: float) -> tuple[float, float, float, float]:
    """Return the part of a setting in view: left, top, right, bottom."""
    width, height = size
    wide, tall = width / (_VIEW * zoom), height / (_VIEW * zoom)
    # parallax: the setting is further away than the objects and moves less
    left, top = (width - wide) / 2 - 0.6 * pan_x * wide, (height - tall) / 2 - 0.6 * pan_y * tall
    return max(0.0, left), max(0.0, top), min(float(width), left + wide), min(float(height), top + tall)


def _turned(image: Image.Image, side: float, angle: float) -> Image.Image:
    factor = side / max(image.size)
    turned = image.rotate(angle, Image.Resampling.BICUBIC, expand=True) if abs(angle) > 1.0 else image
    size = max(1, round(turned.width * factor)), max(1, round(turned.height * factor))
    return turned.resize(size, Image.Resampling.BILINEAR)
