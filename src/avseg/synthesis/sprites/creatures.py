"""Render people, dogs, cats and birds."""

import math

from avseg.colours import Colour, hsv
from avseg.synthesis.sprites.canvas import Canvas, CutOut
from avseg.synthesis.sprites.traits import Traits, mix, shade

_INK: Colour = (24, 20, 22)
_WHITE: Colour = (244, 242, 238)


def person(t: Traits, px: int) -> CutOut:
    """Render head and shoulders from the front; skin, hair, clothes, glasses, beard and head pose vary."""
    c = Canvas(px, 1.0)
    skin, hair = t.skin(), _hair_colour(t)
    cx, cy = 0.5 + t.free(-0.02, 0.02), 0.36
    rx, ry = t.uniform(0.135, 0.185), t.uniform(0.19, 0.235)
    style = t.pick(("bald", "short", "short", "parting", "long", "long", "curly", "bun", "hat"))
    if style in ("long", "bun"):
        _back_hair(c, t, style, (cx, cy, rx, ry), hair)
    _shoulders(c, t, skin, cx, cy + ry)
    for side in (-1, 1):
        c.ellipse(cx + side * rx, cy + 0.02, 0.028, 0.05, shade(skin, 0.88))
    jaw = t.uniform(0.55, 0.85)
    outline = [(0, -1), (0.75, -0.72), (1, 0), (0.92, 0.45), (jaw * 0.75, 0.86), (0, 1.02)]
    outline += [(-x, y) for x, y in reversed(outline[1:-1])]
    c.smooth([(cx + x * rx, cy + y * ry) for x, y in outline], skin)
    beard = style != "long" and t.chance(0.25)
    if beard:
        chin = [(-0.98, 0.2), (-0.6, 0.4), (0, 0.36), (0.6, 0.4), (0.98, 0.2), (0.72, 0.9), (0, 1.12), (-0.72, 0.9)]
        c.smooth([(cx + x * rx, cy + y * ry) for x, y in chin], hair)
    _face(c, t, (cx + t.free(-0.03, 0.03), cy, rx, ry), skin, hair)
    _front_hair(c, t, style, (cx, cy, rx, ry), hair)
    return c.finish(t, rooted=True)


def _hair_colour(t: Traits) -> Colour:
    kinds = ((0.05, 0.1, 0.15), (0.07, 0.55, 0.3), (0.1, 0.5, 0.75), (0.04, 0.75, 0.55), (0.1, 0.05, 0.75))
    hue, saturation, value = t.pick(kinds)
    return hsv(hue, saturation, value * t.uniform(0.7, 1.3))


def _shoulders(c: Canvas, t: Traits, skin: Colour, cx: float, chin: float) -> None:
    cloth = t.colour(saturation=(0.0, 0.9), value=(0.12, 0.95))
    top, width, neck = chin + t.uniform(0.05, 0.1), t.uniform(0.36, 0.48), t.uniform(0.07, 0.1)
    right = [(cx + neck, top), (cx + width * 0.8, top + 0.08), (cx + width, top + 0.22), (cx + width * 1.02, 1.05)]
    c.smooth(right + [(2 * cx - x, y) for x, y in reversed(right)], cloth)
    pattern = t.pick(("plain", "plain", "stripes", "shirt", "scarf"))
    if pattern == "stripes":
        stripe = t.colour()
        for k in range(4):
            c.line(
                [(cx - width * 0.8, top + 0.12 + k * 0.08), (cx + width * 0.8, top + 0.12 + k * 0.08)], 0.022, stripe
            )
    c.box(cx - neck * 0.9, chin - 0.08, cx + neck * 0.9, top + 0.03, shade(skin, 0.82))
    depth = t.uniform(0.03, 0.12)
    c.smooth([(cx - neck * 0.9, top - 0.01), (cx + neck * 0.9, top - 0.01), (cx, top + depth)], shade(skin, 0.9))
    if pattern == "shirt":
        for side in (-1, 1):
            c.polygon([(cx, top + 0.1), (cx + side * neck, top - 0.02), (cx + side * neck * 1.7, top + 0.07)], _WHITE)
        c.polygon([(cx - 0.02, top + 0.08), (cx + 0.02, top + 0.08), (cx + 0.04, 1), (cx - 0.04, 1)], t.colour())
    if pattern == "scarf":
        c.ellipse(cx, top + 0.01, neck * 1.5, 0.05, t.colour())


def _back_hair(c: Canvas, t: Traits, style: str, head: tuple[float, float, float, float], hair: Colour) -> None:
    cx, cy, rx, ry = head
    if style == "bun":
        c.ellipse(cx, cy - ry * 1.15, rx * 0.5, ry * 0.4, shade(hair, 0.9))
        return
    length, puff = t.uniform(0.9, 2.0), t.uniform(1.2, 1.5)
    right = [(0, -1.2), (0.9, -0.9), (puff, 0), (puff * 0.95, length), (0.3, length * 1.05)]
    outline = right + [(-x, y) for x, y in reversed(right[1:])]
    c.smooth([(cx + x * rx, cy + y * ry) for x, y in outline], shade(hair, 0.8))


def _front_hair(c: Canvas, t: Traits, style: str, head: tuple[float, float, float, float], hair: Colour) -> None:
    cx, cy, rx, ry = head
    fringe = t.uniform(0.35, 0.7)
    if style == "bald":
        return
    if style == "curly":
        for k in range(15):
            turn = math.pi * (1.0 + k / 14)
            c.ellipse(
                cx + rx * math.cos(turn), cy - ry * 0.2 + ry * math.sin(turn) * 0.85,
                rx * t.free(0.25, 0.4), rx * t.free(0.25, 0.4), shade(hair, t.free(0.85, 1.15)),
            )  # fmt: skip
        return
    if style == "hat":
        colour = t.colour()
        c.smooth(
            [
                (cx - rx, cy - ry * 0.5),
                (cx - rx * 0.8, cy - ry * 1.2),
                (cx + rx * 0.8, cy - ry * 1.2),
                (cx + rx, cy - ry * 0.5),
            ],
            colour,
        )
        c.ellipse(cx, cy - ry * 0.55, rx * t.uniform(1.2, 1.6), ry * 0.14, shade(colour, 0.7))
        return
    part = t.free(-0.5, 0.5) if style in ("parting", "long") else 0.0
    cap = [(-1.04, 0.0), (-1.08, -0.6), (-0.6, -1.12), (0, -1.2), (0.6, -1.12), (1.08, -0.6), (1.04, 0.0)]
    rim = [
        (0.86, -fringe),
        (part + 0.1, -fringe - 0.2),
        (part, -fringe - 0.3),
        (part - 0.1, -fringe - 0.2),
        (-0.86, -fringe),
    ]
    c.smooth([(cx + x * rx, cy + y * ry) for x, y in cap + rim], hair)


def _face(c: Canvas, t: Traits, head: tuple[float, float, float, float], skin: Colour, hair: Colour) -> None:
    cx, cy, rx, ry = head
    apart, size = rx * t.uniform(0.38, 0.5), rx * t.uniform(0.17, 0.23)
    iris = t.colour((0.05, 0.62), (0.3, 0.8), (0.2, 0.6))
    eye_y, glasses = cy - 0.06 * ry, t.chance(0.25)
    for side in (-1, 1):
        x = cx + side * apart
        c.ellipse(x, eye_y, size, size * 0.62, _WHITE)
        c.ellipse(x, eye_y, size * 0.5, size * 0.55, iris)
        c.ellipse(x, eye_y, size * 0.24, size * 0.3, _INK)
        c.line([(x - size, eye_y - size * 1.1), (x + size, eye_y - size * 1.25)], 0.012, shade(hair, 0.7))
        if glasses:
            c.arc(x, eye_y, size * 1.5, size * 1.3, 0, 360, 0.012, _INK)
    if glasses:
        c.line([(cx - apart + size * 1.4, eye_y), (cx + apart - size * 1.4, eye_y)], 0.01, _INK)
    length = t.uniform(0.25, 0.42)
    c.smooth(
        [(cx, eye_y), (cx + rx * 0.2, eye_y + ry * length), (cx - rx * 0.16, eye_y + ry * length)], shade(skin, 0.9)
    )
    c.ellipse(cx, eye_y + ry * length, rx * 0.17, ry * 0.05, shade(skin, 0.78))
    lips, width, gap = mix(skin, (170, 50, 60), t.uniform(0.3, 0.8)), rx * t.uniform(0.3, 0.5), t.free(0.0, 0.16)
    mouth = cy + ry * 0.58
    c.ellipse(cx, mouth, width, ry * (0.05 + gap), lips)
    c.ellipse(cx, mouth, width * 0.85, ry * max(0.012, gap), (70, 22, 26))
    if gap > 0.06:
        c.ellipse(cx, mouth - ry * gap * 0.6, width * 0.6, ry * gap * 0.3, _WHITE)


def dog(t: Traits, px: int) -> CutOut:
    """Render a standing dog from the side, or its face and chest."""
    fur = t.colour((0.05, 0.12), (0.0, 0.7), (0.15, 0.95))
    patch = shade(fur, t.pick((0.55, 1.6)))
    return (_dog_face if t.chance(0.5) else _dog_side)(t, px, fur, patch)


def _dog_side(t: Traits, px: int, fur: Colour, patch: Colour) -> CutOut:
    c = Canvas(px, 1.35)
    length, belly, leg = t.uniform(0.5, 0.7), t.uniform(0.13, 0.19), t.uniform(0.02, 0.2)
    x0, y0 = 0.22, 0.5
    x1, ground = x0 + length, min(0.98, y0 + belly + 0.16 + leg)
    for dx, tone in ((0.03, 0.75), (-0.03, 1.0)):
        for foot in (x0 + 0.07 + dx, x1 - 0.08 + dx):
            sway = t.free(-0.06, 0.06)
            c.line([(foot, y0 + 0.05), (foot + sway, ground - 0.02)], 0.07, shade(fur, tone))
    tip = t.uniform(0.1, 0.5)
    c.line([(x0 + 0.02, y0 - 0.05), (x0 - 0.1, y0 - 0.1), (x0 - 0.14, tip)], 0.05, fur)
    back = [(x0, y0 - 0.1), (x0 + length / 2, y0 - belly), (x1, y0 - 0.15), (x1 + 0.06, y0), (x1 - 0.05, y0 + belly)]
    c.smooth([*back, (x0 + length * 0.4, y0 + belly * 0.8), (x0 + 0.02, y0 + 0.12)], fur)
    for _ in range(t.pick((0, 2, 4))):
        c.ellipse(t.free(x0 + 0.1, x1 - 0.08), y0 + t.free(-0.06, 0.04), t.free(0.04, 0.1), t.free(0.03, 0.06), patch)
    hx, hy = x1 + 0.06, y0 - t.uniform(0.18, 0.28)
    c.smooth([(x1 - 0.12, y0 - 0.12), (hx - 0.08, hy), (hx + 0.07, hy + 0.02), (x1 + 0.06, y0 + 0.05)], fur)
    c.ellipse(hx, hy, 0.12, 0.11, fur)
    snout = t.uniform(0.1, 0.2)
    c.smooth([(hx, hy - 0.05), (hx + 0.1 + snout, hy), (hx + 0.1 + snout, hy + 0.07), (hx, hy + 0.1)], shade(fur, 0.92))
    c.ellipse(hx + 0.1 + snout, hy + 0.01, 0.03, 0.026, _INK)
    c.line([(hx + 0.07, hy + 0.075), (hx + 0.07 + snout, hy + 0.06)], 0.012, shade(fur, 0.4))
    if t.chance(0.5):
        c.smooth(
            [(hx - 0.1, hy - 0.08), (hx, hy - 0.08), (hx - 0.02, hy + 0.14), (hx - 0.12, hy + 0.1)], shade(patch, 0.8)
        )
    else:
        c.polygon([(hx - 0.1, hy - 0.03), (hx - 0.07, hy - 0.22), (hx + 0.03, hy - 0.08)], shade(patch, 0.8))
    c.ellipse(hx + 0.05, hy - 0.03, 0.02, 0.022, _INK)
    return c.finish(t, 0.12)


def _dog_face(t: Traits, px: int, fur: Colour, patch: Colour) -> CutOut:
    c = Canvas(px, 1.0)
    cx, cy, rx, ry = 0.5, 0.4, t.uniform(0.22, 0.29), t.uniform(0.22, 0.28)
    c.smooth([(cx - 0.2, 0.5), (cx + 0.2, 0.5), (cx + 0.33, 1.0), (cx, 1.02), (cx - 0.33, 1.0)], shade(fur, 0.9))
    if t.chance(0.5):
        c.ellipse(cx, 0.86, 0.12, 0.2, patch)
    floppy = t.chance(0.6)
    if not floppy:
        for side in (-1, 1):
            c.polygon(
                [
                    (cx + side * rx * 0.3, cy - ry * 0.8),
                    (cx + side * rx * 1.1, cy - ry * 1.45),
                    (cx + side * rx, cy - ry * 0.1),
                ],
                shade(fur, 0.75),
            )
    c.ellipse(cx, cy, rx, ry, fur)
    if t.chance(0.4):
        c.ellipse(cx + rx * 0.45, cy - ry * 0.25, rx * 0.42, ry * 0.5, patch)
    if floppy:
        drop = t.uniform(0.5, 1.0)
        for side in (-1, 1):
            ear = [(0.55, -0.95), (1.05, -0.75), (1.3, 0.1), (1.15, drop), (0.85, 0.1)]
            c.smooth([(cx + side * x * rx, cy + y * ry) for x, y in ear], shade(patch if t.chance(0.5) else fur, 0.7))
    muzzle, nose = t.uniform(0.42, 0.58), cy + ry * 0.35
    c.ellipse(cx, nose + ry * 0.3, rx * muzzle, ry * 0.5, mix(fur, _WHITE, 0.45))
    c.ellipse(cx, nose, rx * 0.22, ry * 0.15, _INK)
    gap = t.free(0.0, 0.2)
    if gap > 0.08:
        c.ellipse(cx, nose + ry * 0.55, rx * 0.26, ry * gap, (90, 25, 30))
        c.ellipse(cx, nose + ry * 0.65, rx * 0.16, ry * gap, (214, 110, 120))
    c.line([(cx - rx * 0.3, nose + ry * 0.42), (cx, nose + ry * 0.35), (cx + rx * 0.3, nose + ry * 0.42)], 0.012, _INK)
    for side in (-1, 1):
        c.ellipse(cx + side * rx * 0.42, cy - ry * 0.12, rx * 0.14, rx * 0.15, _INK)
        c.ellipse(cx + side * rx * 0.42 + 0.01, cy - ry * 0.17, rx * 0.04, rx * 0.04, _WHITE)
    return c.finish(t, 0.12, rooted=True)


def cat(t: Traits, px: int) -> CutOut:
    """Render a sitting cat from the front, plain or tabby."""
    c = Canvas(px, 0.9)
    fur = t.colour((0.04, 0.12), (0.0, 0.65), (0.15, 0.95))
    stripe, cx, cy = shade(fur, t.pick((0.6, 0.75, 1.35))), 0.43, 0.29
    rx, ry, hips = t.uniform(0.17, 0.21), t.uniform(0.14, 0.18), t.uniform(0.2, 0.29)
    side = t.pick((-1, 1))
    tail = [
        (cx + side * hips * 0.8, 0.92),
        (cx + side * (hips + 0.1), 0.88),
        (cx + side * (hips + 0.12), t.free(0.4, 0.75)),
    ]
    c.line(tail, 0.065, stripe)
    body = [(cx + 0.1, cy + 0.08), (cx + hips * 0.75, 0.6), (cx + hips, 0.86), (cx + hips * 0.7, 0.98)]
    c.smooth(body + [(2 * cx - x, y) for x, y in reversed(body)], fur)
    for k in range(t.pick((0, 0, 4))):
        for s in (-1, 1):
            y = 0.52 + k * 0.11
            c.line([(cx + s * hips * 0.95, y + 0.06), (cx + s * hips * 0.45, y + 0.03)], 0.025, stripe)
    if t.chance(0.4):
        c.ellipse(cx, 0.62, 0.09, 0.16, _WHITE)
    for s in (-1, 1):
        c.line([(cx + s * 0.06, 0.62), (cx + s * 0.07, 0.95)], 0.075, shade(fur, 1.08))
        c.polygon(
            [
                (cx + s * rx * 0.2, cy - ry * 0.8),
                (cx + s * rx * 0.95, cy - ry * t.uniform(1.6, 2.1)),
                (cx + s * rx, cy - ry * 0.1),
            ],
            fur,
        )
        c.polygon(
            [
                (cx + s * rx * 0.45, cy - ry * 0.8),
                (cx + s * rx * 0.85, cy - ry * 1.4),
                (cx + s * rx * 0.88, cy - ry * 0.4),
            ],
            (205, 140, 140),
        )
    c.ellipse(cx, cy, rx, ry, fur)
    _cat_face(c, t, (cx, cy, rx, ry), stripe)
    return c.finish(t, 0.1)


def _cat_face(c: Canvas, t: Traits, head: tuple[float, float, float, float], stripe: Colour) -> None:
    cx, cy, rx, ry = head
    for k in (-1, 0, 1):
        c.line([(cx + k * rx * 0.25, cy - ry * 0.9), (cx + k * rx * 0.2, cy - ry * 0.5)], 0.018, stripe)
    eye = t.colour((0.1, 0.6), (0.5, 0.9), (0.6, 0.95))
    for s in (-1, 1):
        c.ellipse(cx + s * rx * 0.42, cy - ry * 0.08, rx * 0.22, ry * 0.2, eye)
        c.ellipse(cx + s * rx * 0.42, cy - ry * 0.08, rx * t.free(0.04, 0.12), ry * 0.18, _INK)
    c.ellipse(cx, cy + ry * 0.48, rx * 0.4, ry * 0.28, _WHITE)
    c.polygon(
        [(cx - rx * 0.12, cy + ry * 0.25), (cx + rx * 0.12, cy + ry * 0.25), (cx, cy + ry * 0.42)], (210, 110, 120)
    )
    gap = t.free(-0.1, 0.2)
    if gap > 0.05:
        c.ellipse(cx, cy + ry * 0.66, rx * 0.15, ry * gap, (110, 30, 40))
    for s in (-1, 1):
        for k in (-1, 0, 1):
            c.line(
                [(cx + s * rx * 0.25, cy + ry * 0.45), (cx + s * rx * 1.35, cy + ry * (0.45 + 0.22 * k))], 0.006, _WHITE
            )


def bird(t: Traits, px: int) -> CutOut:
    """Render a bird from the side; body, tail, wing, crest, beak and colours vary."""
    c = Canvas(px, 1.3)
    coat, wing, breast = t.colour(), t.colour(), t.colour(value=(0.6, 1.0))
    cx, cy, rx, ry = 0.6, 0.52, t.uniform(0.26, 0.34), t.uniform(0.17, 0.27)
    drop = t.uniform(-0.15, 0.25)
    c.polygon(
        [(cx - rx * 0.6, cy - 0.06), (0.02, cy + drop - 0.06), (0.06, cy + drop + 0.08), (cx - rx * 0.5, cy + 0.12)],
        shade(wing, 0.8),
    )
    for dx in (-0.03, 0.06):
        c.line([(cx + dx, cy + ry * 0.8), (cx + dx + 0.02, 0.95), (cx + dx + 0.08, 0.96)], 0.018, (150, 100, 50))
    c.ellipse(cx, cy, rx, ry, coat, angle=-15)
    c.ellipse(cx + rx * 0.25, cy + ry * 0.25, rx * 0.65, ry * 0.65, breast, angle=-20)
    hx, hy, r = cx + rx * 0.72, cy - ry * 0.85, t.uniform(0.12, 0.165)
    beak = t.uniform(0.08, 0.2)
    gap = t.free(0.0, 0.04)
    for sign in (-1, 1):
        c.polygon(
            [(hx + r * 0.75, hy - 0.04), (hx + r * 0.75, hy + 0.045), (hx + r + beak, hy + 0.01 + sign * gap)],
            hsv(t.free(0.05, 0.14), 0.8, 0.9),
        )
    if t.chance(0.3):
        c.polygon(
            [(hx - r, hy - r * 0.3), (hx - r * 0.6, hy - r * 1.9), (hx + r * 0.3, hy - r * 0.8)], shade(coat, 0.8)
        )
    c.ellipse(hx, hy, r, r * 0.95, coat)
    c.ellipse(hx + r * 0.3, hy - r * 0.15, r * 0.26, r * 0.26, _WHITE)
    c.ellipse(hx + r * 0.34, hy - r * 0.15, r * 0.17, r * 0.18, _INK)
    lift = t.free(-0.3, 0.12)
    c.smooth(
        [
            (cx + rx * 0.3, cy - ry * 0.4),
            (cx - rx * 0.2, cy - ry * 0.5),
            (cx - rx * 1.1, cy + lift),
            (cx - rx * 0.2, cy + ry * 0.5),
        ],
        wing,
    )
    c.line([(cx + rx * 0.1, cy), (cx - rx * 0.7, cy + lift * 0.7 + 0.03)], 0.014, shade(wing, 0.6))
    return c.finish(t, 0.08)
