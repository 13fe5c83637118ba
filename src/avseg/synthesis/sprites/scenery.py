"""Backgrounds, clutter and camera effects: the parts of an image that never sound."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from avseg.colours import Colour
from avseg.synthesis.sprites.canvas import Canvas, cloud
from avseg.synthesis.sprites.traits import Traits, mix, shade

Picture = NDArray[np.float32]


def background(t: Traits, width: int, height: int) -> Image.Image:
    """Render an RGB image of that size: studio, sky and land, room, wall, leaves, lights, cloth or haze."""
    kinds = (_studio, _studio, _land, _room, _bricks, _leaves, _lights, _cloth, _haze)
    picture = t.pick(kinds)(t, width, height)
    return picture.filter(ImageFilter.GaussianBlur(t.free(0.0, 1.6) * height / 224))


def _tone(t: Traits) -> Colour:
    return t.colour(saturation=(0.0, 0.7), value=(0.1, 0.95))


def _blend(amount: NDArray[np.floating], colours: list[Colour]) -> Image.Image:
    """Interpolate in a list of colours by ``amount`` of 0..1, (H, W)."""
    stops = np.linspace(0.0, 1.0, len(colours))
    table = np.array(colours, dtype=np.float64)
    lut = np.stack([np.interp(np.linspace(0, 1, 256), stops, table[:, k]) for k in range(3)], -1).astype(np.uint8)
    return Image.fromarray(lut[(amount * 255).clip(0, 255).astype(np.uint8)], "RGB")


def _ramp(width: int, height: int, turn: float) -> Picture:
    x, y = np.linspace(-0.5, 0.5, width, dtype=np.float32), np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    slope: Picture = (np.cos(turn) * x + np.sin(turn) * y) / (abs(np.cos(turn)) + abs(np.sin(turn)))
    return np.float32(0.5) + slope


def _uneven(t: Traits, picture: Image.Image, strength: float) -> Image.Image:
    """Add brightness noise of two scales."""
    width, height = picture.size
    noise = cloud(t.rng, height, width, 4) + 0.7 * cloud(t.rng, height, width, max(4, height // 5))
    pixels = np.asarray(picture).astype(np.float32) * (1.0 + strength * noise[..., None])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")


def _studio(t: Traits, width: int, height: int) -> Image.Image:
    base = _tone(t)
    return _blend(_ramp(width, height, t.free(0, 6.28)), [base, shade(base, t.uniform(0.6, 1.4))])


def _land(t: Traits, width: int, height: int) -> Image.Image:
    sky = _blend(_ramp(width, height, np.pi / 2), [t.colour((0.5, 0.65), (0.2, 0.7), (0.5, 1.0)), (235, 235, 230)])
    pen = ImageDraw.Draw(sky)
    level = t.uniform(0.4, 0.75)
    for k in range(3):
        ground = t.colour((0.08, 0.4), (0.2, 0.7), (0.2, 0.7))
        wave = t.rng.uniform(-0.08, 0.08, 6).cumsum() + level + 0.12 * k
        points = [(x * width, y * height) for x, y in zip(np.linspace(0, 1, 6).tolist(), wave.tolist(), strict=True)]
        pen.polygon([*points, (width, height * 1.1), (0, height * 1.1)], fill=ground)
    return _uneven(t, sky, 0.08)


def _room(t: Traits, width: int, height: int) -> Image.Image:
    wall, floor = _tone(t), t.colour((0.03, 0.15), (0.1, 0.7), (0.2, 0.7))
    picture = Image.new("RGB", (width, height), wall)
    pen, edge = ImageDraw.Draw(picture), round(height * t.uniform(0.6, 0.85))
    pen.rectangle([0, edge, width, height], fill=floor)
    pen.rectangle([0, edge - height // 40, width, edge], fill=shade(wall, 1.3))
    for _ in range(t.pick((1, 2, 3))):
        x, y, w, h = t.free(0, 0.8), t.free(0, 0.4), t.free(0.1, 0.35), t.free(0.1, 0.4)
        box = [x * width, y * height, (x + w) * width, (y + h) * height]
        frame = max(1, height // 60)
        pen.rectangle(box, fill=_tone(t), outline=shade(wall, 0.5), width=frame)
    return _uneven(t, picture, 0.06)


def _bricks(t: Traits, width: int, height: int) -> Image.Image:
    stone, gap = _tone(t), _tone(t)
    picture = Image.new("RGB", (width, height), mix(stone, gap, 0.7))
    pen = ImageDraw.Draw(picture)
    h = max(4, round(height * t.uniform(0.06, 0.2)))
    w, joint = round(h * t.uniform(1.0, 2.6)), max(1, h // 9)
    shift = t.pick((0.0, 0.5))
    for row in range(height // h + 1):
        for x in range(-w, width + w, w):
            left, top = x + (row % 2) * shift * w, row * h
            pen.rectangle([left, top, left + w - joint - 1, top + h - joint - 1], fill=shade(stone, t.free(0.85, 1.15)))
    return _uneven(t, picture, 0.07)


def _leaves(t: Traits, width: int, height: int) -> Image.Image:
    c = Canvas(height // 2 + 1, width / height)
    hue = t.uniform(0.15, 0.42)
    aspect = width / height
    c.box(0, 0, aspect, 1, t.colour((hue, hue), (0.4, 0.8), (0.1, 0.3)))
    tones = [t.colour((hue - 0.05, hue + 0.05), (0.3, 0.85), (0.2, 0.75)) for _ in range(6)]
    size = t.uniform(0.03, 0.09)
    for _ in range(90):
        c.ellipse(t.free(0, aspect), t.free(0, 1), size * t.free(0.6, 1.3), size * 0.45, t.pick(tones), t.free(1, 180))
    return c.image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)


def _lights(t: Traits, width: int, height: int) -> Image.Image:
    night = _blend(_ramp(width, height, t.free(0, 6.28)), [t.colour(value=(0.05, 0.3)), t.colour(value=(0.1, 0.5))])
    pen = ImageDraw.Draw(night, "RGBA")
    for _ in range(int(t.free(12, 40))):
        x, y, r = t.free(0, width), t.free(0, height), height * t.free(0.02, 0.1)
        pen.ellipse([x - r, y - r, x + r, y + r], fill=(*t.colour(value=(0.5, 1.0)), int(t.free(40, 150))))
    return night


def _cloth(t: Traits, width: int, height: int) -> Image.Image:
    ramp, turn = _ramp(width, height, t.free(0, 6.28)), t.uniform(4.0, 26.0)
    wave = np.sin(2 * np.pi * turn * ramp + t.uniform(0.0, 2.0) * cloud(t.rng, height, width, 4))
    if t.chance(0.4):
        wave = wave * np.sin(2 * np.pi * turn * _ramp(width, height, t.free(0, 6.28)))
    return _blend(0.5 + 0.5 * np.tanh(t.uniform(0.8, 5.0) * wave), [_tone(t), _tone(t)])


def _haze(t: Traits, width: int, height: int) -> Image.Image:
    noise = sum((cloud(t.rng, height, width, 3 * 2**k) / 1.6**k for k in range(4)), np.float32(0.0))
    return _blend(np.asarray(0.5 + 0.22 * noise, dtype=np.float32), [_tone(t) for _ in range(t.pick((2, 3, 4)))])


def clutter(t: Traits, px: int) -> Image.Image:
    """Render an object that never sounds, RGBA: box, ball, post, plant, bottle or blob."""
    kind = t.pick(("box", "ball", "post", "plant", "bottle", "blob"))
    c, colour = Canvas(px, 1.0), _tone(t)
    if kind == "box":
        c.box(0.1, t.uniform(0.05, 0.5), 0.9, 0.95, colour, 0.02)
        c.polygon([(0.9, 0.5), (0.99, 0.4), (0.99, 0.9), (0.9, 0.95)], shade(colour, 0.6))
    elif kind == "ball":
        c.ellipse(0.5, 0.5, 0.48, 0.48, colour)
        c.ellipse(0.5, 0.5, 0.18, 0.48, _tone(t), angle=t.free(0, 180))
    elif kind == "post":
        half = t.uniform(0.04, 0.1)
        c.box(0.5 - half, 0, 0.5 + half, 1, colour)
    elif kind == "plant":
        c.polygon([(0.35, 0.7), (0.65, 0.7), (0.6, 0.99), (0.4, 0.99)], colour)
        for _ in range(12):
            turn, r = t.free(3.3, 6.1), t.free(0.2, 0.4)
            c.ellipse(
                0.5 + r * np.cos(turn), 0.7 + r * np.sin(turn), 0.18, 0.05, t.colour((0.2, 0.42)), np.degrees(turn)
            )
    elif kind == "bottle":
        c.smooth(
            [(0.42, 0.05), (0.58, 0.05), (0.6, 0.35), (0.7, 0.5), (0.7, 0.97), (0.3, 0.97), (0.3, 0.5), (0.4, 0.35)],
            colour,
        )
        c.box(0.31, 0.6, 0.69, 0.8, _tone(t))
    else:
        turns = np.linspace(0, 2 * np.pi, 9)[:-1]
        c.smooth(
            [(0.5 + t.free(0.2, 0.48) * np.cos(a), 0.5 + t.free(0.2, 0.48) * np.sin(a)) for a in turns.tolist()], colour
        )
    return c.finish(t).image


def through_camera(rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Apply one exposure, tint and contrast to all frames (T, H, W, 3), and independent noise to each."""
    gain, tint = rng.uniform(0.75, 1.2), rng.uniform(0.92, 1.08, 3)
    gamma, noise = rng.uniform(0.8, 1.25), rng.uniform(0.0, 7.0)
    levels = (np.arange(256) / 255.0)[:, None] ** gamma * gain * tint * 255.0
    out = np.stack([levels[:, k].astype(np.float32)[frames[..., k]] for k in range(3)], -1)
    out += noise * rng.standard_normal(frames.shape[:-1], dtype=np.float32)[..., None]
    return out.clip(0, 255).astype(np.uint8)
