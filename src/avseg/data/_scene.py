"""The composer: puts pictures and sounds of a stock into a scene, and knows who sounds where.

It serves the drawn things of :mod:`avseg.data.synthetic` and the photographs of ``avseg data compose`` alike;
both are a :class:`Stock`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import lfilter, oaconvolve

from avseg.data._draw import CutOut
from avseg.data._script import Role
from avseg.mel import SAMPLE_RATE

_FADE = 160
"""Samples in which a sound swells and ends, inside its seconds: 10 ms."""


class Stock(Protocol):
    """Where the pictures and sounds of a scene come from."""

    def cut_out(self, label: int, rng: np.random.Generator, px: int) -> CutOut:
        """A thing of that class, its longer side about ``px`` pixels."""

    def sound(self, label: int, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """``count`` samples of that class at 16 kHz without a pause, peak 1."""

    def background(self, rng: np.random.Generator, width: int, height: int) -> Image.Image:
        """An RGB picture of that size."""

    def clutter(self, rng: np.random.Generator, px: int) -> Image.Image:
        """A thing of no class, RGBA."""

    def finish(self, rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frames (T, H, W, 3) as a camera would record them."""


@dataclass(frozen=True)
class Scene:
    """A clip with everything that is known about it. A things, T frames at k + 0.5 s, H × W pixels.

    Attributes:
        frames: (T, H, W, 3) uint8.
        waveform: (T · 16000,) float32 at 16 kHz.
        instances: (T, H, W) uint8; 0 nothing of a class, a + 1 where thing a is seen in front.
        labels: Class of each thing.
        seen: Whether each thing is in the picture.
        sounds: (A, T) bool: thing a sounds in frame t's second.
    """

    frames: NDArray[np.uint8]
    waveform: NDArray[np.float32]
    instances: NDArray[np.uint8]
    labels: tuple[int, ...]
    seen: tuple[bool, ...]
    sounds: NDArray[np.bool_]

    @property
    def masks(self) -> NDArray[np.int64]:
        """(T, H, W) class label where a thing is seen that sounds, else 0."""
        table = np.zeros((len(self.frames), len(self.labels) + 1), dtype=np.int64)
        table[:, 1:] = self.sounds.T * np.asarray(self.labels, dtype=np.int64)
        return table[np.arange(len(table))[:, None, None], self.instances]


class _Path(NamedTuple):
    """Where a thing is: centre and longer side in parts of the picture, at the first and the last frame."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    angle: tuple[float, float]


def compose(stock: Stock, roles: Sequence[Role], rng: np.random.Generator, height: int, width: int) -> Scene:
    """Stage the roles: draw, place, move, occlude, sound.

    Args:
        stock: Pictures and sounds.
        roles: Who is seen and who sounds when.
        rng: Source of chance.
        height: H.
        width: W.
    """
    seconds = len(roles[0].sounds)
    frames, instances = _render(stock, roles, rng, (seconds, height, width))
    return Scene(
        frames=stock.finish(rng, frames),
        waveform=_mix(stock, roles, rng, seconds),
        instances=instances,
        labels=tuple(r.label for r in roles),
        seen=tuple(r.seen for r in roles),
        sounds=np.array([r.sounds for r in roles], dtype=np.bool_),
    )


def _render(
    stock: Stock, roles: Sequence[Role], rng: np.random.Generator, shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    seconds, height, width = shape
    side = min(height, width)
    actors: list[tuple[int, Image.Image, _Path]] = []
    cast = [a for a, role in enumerate(roles) if role.seen]
    taken: list[tuple[float, float, float]] = []
    for a in cast:
        size = float(rng.uniform(0.3, 0.95) * (1.0 if len(cast) == 1 else 0.92 if len(cast) == 2 else 0.75))
        thing = stock.cut_out(roles[a].label, rng, max(8, round(size * side)))
        path = _place(rng, thing, size, taken)
        taken.append(path.start)
        image = thing.image if rng.random() < 0.5 else thing.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        actors.append((a + 1, image, path))
    rng.shuffle(actors)  # type: ignore[arg-type]
    behind = [_clutter(stock, rng, side, 0.4) for _ in range(int(rng.integers(0, 4)))]
    before = [_clutter(stock, rng, side, 0.3) for _ in range(int(rng.random() < 0.25))]
    camera = _camera(rng)
    margin = 1.3
    scenery = stock.background(rng, round(width * margin), round(height * margin))
    frames = np.empty((seconds, height, width, 3), dtype=np.uint8)
    instances = np.zeros((seconds, height, width), dtype=np.uint8)
    for k in range(seconds):
        part = k / max(1, seconds - 1)
        frames[k], instances[k] = _frame(scenery, [*behind, *actors, *before], camera, part, (width, height))
    return frames, instances


def _clutter(stock: Stock, rng: np.random.Generator, side: int, largest: float) -> tuple[int, Image.Image, _Path]:
    size = float(rng.uniform(0.1, largest))
    image = stock.clutter(rng, max(6, round(size * side)))
    spot = (float(rng.uniform(0, 1)), float(rng.uniform(0, 1)), size)
    return 0, image, _Path(spot, spot, (0.0, 0.0))


def _place(rng: np.random.Generator, thing: CutOut, size: float, taken: Sequence[tuple[float, float, float]]) -> _Path:
    """A path whose start leaves the things already there visible: the best of a few random ones."""
    tall = size * thing.image.height / max(thing.image.size)
    wide = size * thing.image.width / max(thing.image.size)

    def crowd(spot: tuple[float, float]) -> float:
        overlap = [max(0.0, (size + s) * 0.38 - float(np.hypot(spot[0] - x, spot[1] - y))) for x, y, s in taken]
        return sum(overlap) + 0.05 * float(rng.random())

    def spot() -> tuple[float, float]:
        reach = max(0.0, 0.5 - wide * 0.4), max(0.0, 0.5 - tall * 0.4)
        x, y = 0.5 + float(rng.uniform(-1, 1)) * reach[0], 0.5 + float(rng.uniform(-1, 1)) * reach[1]
        return (x, 1.01 - tall / 2 + float(rng.uniform(0.0, 0.1)) * tall) if thing.rooted else (x, y)

    x, y = min((spot() for _ in range(12)), key=crowd)
    speed = float(rng.choice([0.0, 0.05, 0.15]))
    drift = rng.uniform(-speed, speed, 3)
    end_y = y if thing.rooted else y + float(drift[1])
    end = (float(np.clip(x + drift[0], 0.1, 0.9)), float(np.clip(end_y, 0.1, 1.0)), size * float(1 + drift[2]))
    lean = float(rng.uniform(-10, 10) if thing.upright else rng.uniform(-70, 70))
    lean = lean * 0.3 if thing.rooted else lean
    return _Path((x, y, size), end, (lean, lean + float(rng.uniform(-60, 60)) * speed))


def _camera(rng: np.random.Generator) -> NDArray[np.float64]:
    """(2, 3) pan in x and y in parts of the picture, and zoom, at the first and the last frame."""
    still = rng.random() < 0.4
    start = np.array([*rng.uniform(-0.03, 0.03, 2), rng.uniform(0.98, 1.06)])
    return np.stack([start, start + (0.0 if still else 1.0) * rng.uniform(-0.05, 0.05, 3)])


def _frame(
    scenery: Image.Image,
    actors: Sequence[tuple[int, Image.Image, _Path]],
    camera: NDArray[np.float64],
    part: float,
    size: tuple[int, int],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    width, height = size
    side = min(size)
    pan_x, pan_y, zoom = (camera[0] * (1 - part) + camera[1] * part).tolist()
    w, h = scenery.size
    view_w, view_h = w / 1.25 / zoom, h / 1.25 / zoom
    left, top = (w - view_w) / 2 - pan_x * view_w * 0.6, (h - view_h) / 2 - pan_y * view_h * 0.6
    box = (max(0.0, left), max(0.0, top), min(float(w), left + view_w), min(float(h), top + view_h))
    picture = scenery.resize(size, Image.Resampling.BILINEAR, box=box).convert("RGBA")
    who = Image.new("L", size)
    for number, image, path in actors:
        x, y, scale = (a * (1 - part) + b * part for a, b in zip(path.start, path.end, strict=True))
        angle = path.angle[0] * (1 - part) + path.angle[1] * part
        x, y = 0.5 + (x - 0.5 + pan_x) * zoom, 0.5 + (y - 0.5 + pan_y) * zoom
        factor = scale * zoom * side / max(image.size)
        turned = image.rotate(angle, Image.Resampling.BICUBIC, expand=True) if abs(angle) > 1 else image
        shape = max(1, round(turned.width * factor)), max(1, round(turned.height * factor))
        stamp = turned.resize(shape, Image.Resampling.BILINEAR)
        at = round(x * width - shape[0] / 2), round(y * height - shape[1] / 2)
        alpha = stamp.getchannel("A")
        picture.paste(stamp, at, alpha)
        who.paste(number, at, alpha.point(_OPAQUE))
    return np.asarray(picture.convert("RGB")), np.asarray(who)


_OPAQUE = [0] * 128 + [255] * 128
"""A pixel belongs to whom it shows by half or more."""


def _mix(stock: Stock, roles: Sequence[Role], rng: np.random.Generator, seconds: int) -> NDArray[np.float32]:
    """The sum of all sounds, each at its own level, over a noise floor; peak at most 1."""
    count = seconds * SAMPLE_RATE
    floor = lfilter([1.0], [1.0, -rng.uniform(0.0, 0.95)], rng.standard_normal(count))
    out = 10.0 ** rng.uniform(-4.0, -2.5) * floor / floor.std()
    room = _room(rng)
    for role in roles:
        if any(role.sounds):
            wave = oaconvolve(stock.sound(role.label, rng, count), room)[:count]
            level = 10.0 ** rng.uniform(-0.9, -0.2) / max(float(np.abs(wave).max()), 1e-9)
            out += level * wave * _gate(role.sounds)
    return (out / max(1.0, float(np.abs(out).max()))).astype(np.float32)


def _room(rng: np.random.Generator) -> NDArray[np.float64]:
    """Impulse response of a room and a microphone: an echo of random length and strength, a random tilt."""
    length = int(rng.uniform(0.01, 0.25) * SAMPLE_RATE)
    echo = rng.standard_normal(length) * np.exp(-6.0 * np.arange(length) / length)
    echo *= rng.uniform(0.0, 0.6) / np.sqrt((echo**2).sum())
    echo[0] = 1.0
    return np.convolve(echo, [1.0, -rng.uniform(-0.4, 0.6)])


def _gate(sounds: Sequence[bool]) -> NDArray[np.float64]:
    """1 in the seconds of sound, 0 outside, with fades that lie within."""
    gate = np.repeat(np.asarray(sounds, dtype=np.float64), SAMPLE_RATE)
    ramp = np.arange(_FADE) / _FADE
    for k in range(1, len(sounds)):
        at = k * SAMPLE_RATE
        if sounds[k] and not sounds[k - 1]:
            gate[at : at + _FADE] = ramp
        if sounds[k - 1] and not sounds[k]:
            gate[at - _FADE : at] = ramp[::-1]
    return gate
