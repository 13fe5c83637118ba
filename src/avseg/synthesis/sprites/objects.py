"""Render guitars, drums, bells and clocks."""

import math

from avseg.colours import Colour
from avseg.synthesis.sprites.canvas import Canvas, CutOut
from avseg.synthesis.sprites.traits import Traits, mix, shade

_INK: Colour = (28, 24, 24)
_WHITE: Colour = (244, 242, 238)
_STEEL: Colour = (190, 194, 200)


def guitar(t: Traits, px: int) -> CutOut:
    """Render a guitar from the front with the neck up (the scene rotates it): acoustic or electric."""
    c = Canvas(px, 0.5)
    cx, wood = 0.25, t.colour((0.03, 0.12), (0.5, 0.95), (0.3, 0.95))
    electric = t.chance(0.35)
    body = t.colour() if electric else wood
    neck_top, dark = t.uniform(0.1, 0.18), shade(wood, 0.45)
    lower, upper, waist = t.uniform(0.19, 0.235), t.uniform(0.13, 0.175), t.uniform(0.1, 0.13)
    if electric:
        horn = t.uniform(0.38, 0.46)
        right = [(cx + 0.05, 0.58), (cx + upper, horn + 0.05), (cx + waist, 0.66), (cx + lower, 0.82), (cx + 0.1, 0.96)]
        left = [
            (cx - 0.12, 0.98),
            (cx - lower, 0.86),
            (cx - waist, 0.68),
            (cx - upper * 0.9, horn + 0.1),
            (cx - 0.05, 0.58),
        ]
    else:
        right = [(cx, 0.45), (cx + upper, 0.52), (cx + waist, 0.64), (cx + lower, 0.8), (cx + 0.12, 0.97)]
        left = [(2 * cx - x, y) for x, y in reversed(right[1:])]
    c.smooth([(cx + (x - cx) * 1.06, 0.72 + (y - 0.72) * 1.04) for x, y in right + left], shade(body, 0.5))
    c.smooth(right + left, body)
    if electric:
        for y in (0.7, 0.78):
            c.box(cx - 0.06, y, cx + 0.06, y + 0.03, _INK, 0.01)
        c.smooth([(cx + 0.04, 0.66), (cx + 0.12, 0.75), (cx + 0.08, 0.88), (cx + 0.05, 0.8)], _WHITE)
    else:
        c.ellipse(cx, 0.64, 0.07, 0.07, mix(wood, _WHITE, 0.4))
        c.ellipse(cx, 0.64, 0.058, 0.058, _INK)
    c.box(cx - 0.07, 0.83, cx + 0.07, 0.855, dark)
    c.polygon([(cx - 0.024, neck_top), (cx + 0.024, neck_top), (cx + 0.032, 0.6), (cx - 0.032, 0.6)], dark)
    for k in range(9):
        y = neck_top + 0.03 + (0.58 - neck_top) * (1 - 0.88**k)
        c.line([(cx - 0.024, y), (cx + 0.024, y)], 0.005, _STEEL)
    c.polygon(
        [(cx - 0.04, 0.02), (cx + 0.04, 0.02), (cx + 0.026, neck_top + 0.01), (cx - 0.026, neck_top + 0.01)], wood
    )
    for k in range(3):
        for side in (-1, 1):
            c.ellipse(cx + side * 0.048, 0.04 + k * (neck_top - 0.05) / 2, 0.014, 0.01, _STEEL)
    for k in (-2, -1, 0, 1, 2):
        c.line([(cx + k * 0.008, neck_top), (cx + k * 0.011, 0.84)], 0.003, (225, 222, 210))
    return c.finish(t, 0.07, upright=False)


def drum(t: Traits, px: int) -> CutOut:
    """Render a drum with hoops, lacing or stripes, and two sticks."""
    c = Canvas(px, 1.05)
    shell, trim, skin = (
        t.colour(),
        t.colour((0.08, 0.14), (0.0, 0.7), (0.6, 0.95)),
        t.colour((0.1, 0.14), (0.0, 0.25), (0.8, 1.0)),
    )
    rx, depth = t.uniform(0.34, 0.45), t.uniform(0.28, 0.5)
    cx, top, tilt = 0.52, 0.32, t.uniform(0.09, 0.15)
    foot = rx * t.uniform(0.7, 1.0)
    bottom = top + depth
    c.ellipse(cx, bottom, foot + 0.02, tilt, shade(trim, 0.8))
    c.ellipse(cx, bottom - 0.03, foot, tilt, shell)
    c.polygon([(cx - rx, top), (cx + rx, top), (cx + foot, bottom - 0.02), (cx - foot, bottom - 0.02)], shell)
    count = t.pick((5, 6, 8, 10))
    laced = t.chance(0.6)
    for k in range(count):
        a, b = math.pi * (k + 0.2) / count, math.pi * (k + 0.8) / count
        p = (cx - rx * math.cos(a), top + tilt * math.sin(a))
        q = (cx - foot * math.cos(b if laced else a), bottom - 0.03 + tilt * math.sin(b if laced else a))
        c.line([p, q], 0.018 if laced else 0.05, trim)
        if laced:
            r = math.pi * (k + 1.2) / count
            c.line([q, (cx - rx * math.cos(r), top + tilt * math.sin(min(r, math.pi)))], 0.018, trim)
    c.ellipse(cx, top + 0.035, rx + 0.02, tilt + 0.01, trim)
    c.ellipse(cx, top, rx + 0.02, tilt + 0.01, shade(trim, 0.85))
    c.ellipse(cx, top, rx - 0.01, tilt - 0.01, skin)
    for side in (-1, 1):
        hand, tip = (
            (cx + side * t.free(0.3, 0.45), t.free(0.02, 0.12)),
            (cx + side * t.free(0.02, 0.15), top + t.free(-0.06, 0.02)),
        )
        c.line([hand, tip], 0.026, (190, 140, 85))
        c.ellipse(*tip, 0.025, 0.022, (205, 160, 105))
    return c.finish(t, 0.07)


def bell(t: Traits, px: int) -> CutOut:
    """Render a hanging bell with yoke and clapper, from narrow to wide, in metal colours."""
    c = Canvas(px, 0.95)
    metal = t.colour((0.07, 0.15), (0.15, 0.8), (0.4, 0.95))
    cx, shoulder, mouth = 0.475, t.uniform(0.14, 0.24), t.uniform(0.34, 0.44)
    top, low, swing = t.uniform(0.16, 0.24), t.uniform(0.78, 0.86), t.free(-0.1, 0.1)
    if t.chance(0.6):
        c.box(cx - 0.3, 0.02, cx + 0.3, 0.12, t.colour((0.05, 0.1), (0.4, 0.8), (0.2, 0.5)), 0.03)
    c.arc(cx, top - 0.03, 0.07, 0.09, 180, 360, 0.035, shade(metal, 0.7))
    c.line([(cx, low - 0.1), (cx + swing, low + 0.05)], 0.03, shade(metal, 0.4))
    c.ellipse(cx + swing, low + 0.07, 0.06, 0.06, shade(metal, 0.5))
    waist = (shoulder + mouth) / 2 * t.uniform(0.82, 0.98)
    right = [
        (cx, top - 0.04),
        (cx + shoulder * 0.8, top),
        (cx + shoulder, top + 0.1),
        (cx + waist * 0.9, (top + low) / 2 + 0.06),
        (cx + mouth * 0.88, low - 0.06),
        (cx + mouth, low),
    ]
    outline = right + [(2 * cx - x, y) for x, y in reversed(right[1:])]
    c.polygon(
        [(cx - mouth, low), (cx + mouth, low), (cx + mouth * 0.8, low - 0.12), (cx - mouth * 0.8, low - 0.12)], metal
    )
    c.smooth(outline, metal)
    c.smooth(
        [
            (cx - shoulder * 0.6, top + 0.1),
            (cx - shoulder * 0.3, top + 0.08),
            (cx - waist * 0.4, low - 0.12),
            (cx - waist * 0.65, low - 0.1),
        ],
        mix(metal, _WHITE, 0.45),
    )
    for y, wide in ((low - 0.05, mouth * 0.92), (top + 0.16, shoulder * 1.02)):
        c.line([(cx - wide, y), (cx + wide, y)], 0.016, shade(metal, 0.65))
    c.ellipse(cx, low, mouth, 0.035, shade(metal, 0.55))
    return c.finish(t, 0.05)


def clock(t: Traits, px: int) -> CutOut:
    """Render a clock: round or square case, ticks or dots, hands at any time; some are alarm clocks."""
    c = Canvas(px, 1.0)
    case, face = t.colour(), t.colour((0.0, 1.0), (0.0, 0.25), (0.8, 1.0))
    dark = t.chance(0.2)
    ink = _WHITE if dark else _INK
    face = shade(face, 0.2) if dark else face
    cx, cy, r, rim = 0.5, 0.52, t.uniform(0.33, 0.4), t.uniform(0.025, 0.08)
    kind = t.pick(("round", "square", "alarm"))
    if kind == "alarm":
        for side in (-1, 1):
            c.line([(cx + side * r * 0.5, cy + r), (cx + side * r * 0.8, cy + r * 1.22)], 0.05, shade(case, 0.6))
            c.ellipse(cx + side * r * 0.62, cy - r * 0.98, r * 0.38, r * 0.26, shade(case, 0.8), angle=side * 35)
    if kind == "square":
        c.box(cx - r - rim, cy - r - rim, cx + r + rim, cy + r + rim, case, t.uniform(0.01, 0.15))
    else:
        c.ellipse(cx, cy, r + rim, r + rim, case)
    c.ellipse(cx, cy, r, r, face)
    for k in range(12):
        turn = math.pi * k / 6
        x, y = math.sin(turn), -math.cos(turn)
        inner = 0.72 if k % 3 == 0 else 0.82
        c.line(
            [(cx + x * r * inner, cy + y * r * inner), (cx + x * r * 0.92, cy + y * r * 0.92)],
            0.022 if k % 3 == 0 else 0.012,
            ink,
        )
    for length, width in ((t.uniform(0.4, 0.52), 0.035), (t.uniform(0.65, 0.8), 0.022)):
        turn = t.free(0, 2 * math.pi)
        c.line([(cx, cy), (cx + math.sin(turn) * r * length, cy - math.cos(turn) * r * length)], width, ink)
    c.ellipse(cx, cy, 0.03, 0.03, t.colour())
    return c.finish(t, 0.04)
