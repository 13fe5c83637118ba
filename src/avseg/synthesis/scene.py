"""Compose the images and sounds of a stock into a scene with frames, waveform and masks.

Used for the rendered objects of :mod:`avseg.data.synthetic` and the photographs of ``avseg data compose``; both are a
:class:`SceneStock`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.interface import IGNORE
from avseg.synthesis.script import Role
from avseg.synthesis.sound_mix import mix
from avseg.synthesis.sprites.canvas import CutOut
from avseg.synthesis.stage import Actor, Camera, Setting, place, setting_size, still

_TRIES = 5
_SEEN = 0.004
"""Smallest visible part of the frame of every visible object; otherwise the scene is staged again."""
_TWIN_SEEN = 0.03
"""The same for each object of a similar pair."""


class SceneStock(Protocol):
    """Source of the images and sounds of a scene."""

    def cut_out(self, label: int, rng: np.random.Generator, px: int) -> CutOut:
        """Return an object of that class, its longer side about ``px`` pixels."""

    def sound(self, label: int, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Return ``count`` samples of that class at 16 kHz without a long pause, peak 1."""

    def background(self, rng: np.random.Generator, width: int, height: int) -> Image.Image:
        """Return an RGB image of that size."""

    def clutter(self, rng: np.random.Generator, px: int) -> Image.Image:
        """Return an object without a class, RGBA."""

    def finish(self, rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frames (T, H, W, 3) with the effects of a camera."""


@dataclass(frozen=True)
class Scene:
    """A clip with its objects. A objects, T frames at k + 0.5 s, H × W pixels.

    Attributes:
        frames: (T, H, W, 3) uint8.
        waveform: (T · 16000,) float32 at 16 kHz.
        instances: (T, H, W) uint8; a + 1 where object a is visible, 0 without an object of a class, 255 unknown.
        labels: Class of each object.
        seen: True for each visible object; the others are off screen but audible.
        sounds: (A, T) bool: object a sounds in the second of frame t.
    """

    frames: NDArray[np.uint8]
    waveform: NDArray[np.float32]
    instances: NDArray[np.uint8]
    labels: tuple[int, ...]
    seen: tuple[bool, ...]
    sounds: NDArray[np.bool_]

    @property
    def masks(self) -> NDArray[np.int64]:
        """Return (T, H, W) class labels of visible sounding objects, 255 where unknown, else 0."""
        table = np.zeros((len(self.frames), 256), dtype=np.int64)
        table[:, 1 : len(self.labels) + 1] = self.sounds.T * np.asarray(self.labels, dtype=np.int64)
        table[:, IGNORE] = IGNORE
        return table[np.arange(len(table))[:, None, None], self.instances]


def stage(
    stock: SceneStock,
    roles: Sequence[Role],
    rng: np.random.Generator,
    height: int,
    width: int,
    setting: Setting | None = None,
    *,
    twins: bool = False,
) -> Scene:
    """Render a scene: place, move and occlude the objects, and mix their sounds.

    Args:
        stock: Source of images and sounds.
        roles: Visibility and sounding seconds of each object.
        rng: Random generator.
        height: H.
        width: W.
        setting: Image that already shows all visible objects, role k as number k + 1; None for a background of the
            stock before which they are placed.
        twins: Show roles 0 and 1 equally large and clearly; only with a background of the stock.
    """
    seconds = len(roles[0].sounds)
    for _ in range(1 if setting else _TRIES):
        frames, instances = _render(stock, roles, rng, seconds, (width, height), setting, twins)
        if _all_seen(roles, instances, twins):
            break
    return Scene(
        frames=stock.finish(rng, frames),
        waveform=mix(stock.sound, [r for r in roles if any(r.sounds)], rng, seconds),
        instances=instances,
        labels=tuple(r.label for r in roles),
        seen=tuple(r.seen for r in roles),
        sounds=np.array([r.sounds for r in roles], dtype=np.bool_),
    )


def _all_seen(roles: Sequence[Role], instances: NDArray[np.uint8], twins: bool) -> bool:
    shown = [(instances == a + 1).mean((1, 2)).min() for a, role in enumerate(roles) if role.seen]
    return min(shown, default=1.0) >= _SEEN and (not twins or min(shown[:2]) >= _TWIN_SEEN)


def _render(
    stock: SceneStock,
    roles: Sequence[Role],
    rng: np.random.Generator,
    seconds: int,
    size: tuple[int, int],
    setting: Setting | None,
    twins: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return frames (T, H, W, 3) and instances (T, H, W) of one random arrangement."""
    camera, actors = Camera(rng, size), list[Actor]()
    if setting is None:
        setting = Setting(stock.background(rng, *setting_size(size)))
        actors = _actors(stock, roles, rng, min(size), twins)
        behind = [still(rng, stock.clutter, min(size), 0.4) for _ in range(int(rng.integers(0, 4)))]
        before = [still(rng, stock.clutter, min(size), 0.3) for _ in range(int(rng.random() < 0.25))]
        actors = [*behind, *actors, *before]
    shots = [camera.shoot(setting, actors, k / max(1, seconds - 1)) for k in range(seconds)]
    return np.stack([frame for frame, _ in shots]), np.stack([instances for _, instances in shots])


def _actors(stock: SceneStock, roles: Sequence[Role], rng: np.random.Generator, side: int, twins: bool) -> list[Actor]:
    """Place the visible objects side by side; return them from back to front."""
    seen = [(a + 1, role.label) for a, role in enumerate(roles) if role.seen]
    if twins and rng.random() < 0.5:
        # The first object is placed freely; the positions must not reveal which of the two sounds.
        seen[:2] = seen[1::-1]
    largest = (1.1, 0.95, 0.78, 0.65)[min(len(seen), 4) - 1]
    actors: list[Actor] = []
    size = 0.0
    for number, label in seen:
        size = size if twins and len(actors) == 1 else float(rng.uniform(0.28, largest))
        thing = stock.cut_out(label, rng, max(8, round(1.3 * size * side)))
        actors.append(place(rng, number, thing, size, actors))
    return [actors[k] for k in rng.permutation(len(actors))]
