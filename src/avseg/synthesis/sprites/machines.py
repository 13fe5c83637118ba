"""Render ambulances, tractors, helicopters and chainsaws."""

import math

from avseg.colours import Colour
from avseg.synthesis.sprites.canvas import Canvas, CutOut
from avseg.synthesis.sprites.traits import Traits, mix, shade

_INK: Colour = (30, 30, 33)
_WHITE: Colour = (244, 242, 238)
_STEEL: Colour = (178, 182, 188)


def _wheel(c: Canvas, x: float, y: float, r: float, rim: Colour) -> None:
    c.ellipse(x, y, r, r, _INK)
    c.ellipse(x, y, r * 0.58, r * 0.58, rim)
    c.ellipse(x, y, r * 0.2, r * 0.2, shade(rim, 0.5))


def _glass(t: Traits) -> Colour:
    return t.colour((0.5, 0.62), (0.15, 0.5), (0.35, 0.9))


def ambulance(t: Traits, px: int) -> CutOut:
    """Render a van with lamps, stripe and sign: ambulance, fire or police car."""
    c = Canvas(px, 1.6)
    paint = t.pick(
        (
            t.colour((0.0, 1.0), (0.0, 0.1), (0.85, 1.0)),
            t.colour((0.12, 0.16)),
            t.colour((-0.02, 0.02), (0.7, 0.95), (0.6, 0.95)),
        )
    )
    band = (
        t.colour((-0.1, 0.1), (0.7, 1.0), (0.6, 0.95))
        if t.chance(0.6)
        else t.colour((0.28, 0.65), (0.6, 1.0), (0.4, 0.9))
    )
    top, floor, nose = t.uniform(0.17, 0.28), 0.8, t.uniform(1.3, 1.42)
    hood, r = t.uniform(0.42, 0.52), t.uniform(0.11, 0.145)
    lamp = t.pick(((40, 90, 255), (255, 60, 40), (255, 170, 30)))
    lx = t.uniform(0.8, 1.05)
    c.box(lx - 0.13, top - 0.09, lx + 0.13, top + 0.02, lamp, 0.03)
    c.box(lx - 0.07, top - 0.085, lx + 0.02, top - 0.03, mix(lamp, _WHITE, t.free(0.2, 0.9)), 0.02)
    c.box(0.08, top, 0.98, floor, paint, 0.05)
    cab = [
        (0.9, top + 0.01),
        (1.08, top + 0.03),
        (1.28, hood),
        (nose + 0.1, hood + 0.08),
        (nose + 0.12, floor),
        (0.9, floor),
    ]
    c.polygon(cab, paint)
    c.polygon([(0.98, top + 0.07), (1.07, top + 0.08), (1.22, hood), (0.98, hood)], _glass(t))
    y = floor - t.uniform(0.16, 0.24)
    c.box(0.08, y, nose + 0.11, y + t.uniform(0.05, 0.1), band)
    if t.chance(0.6):
        c.box(0.14, top + 0.08, t.uniform(0.3, 0.5), top + 0.24, _glass(t), 0.02)
    mark, arm = (0.68, (top + y) / 2 + 0.01), 0.075
    c.box(mark[0] - arm, mark[1] - 0.026, mark[0] + arm, mark[1] + 0.026, band)
    c.box(mark[0] - 0.026, mark[1] - arm, mark[0] + 0.026, mark[1] + arm, band)
    c.line([(0.94, top + 0.04), (0.94, floor - 0.02)], 0.008, shade(paint, 0.6))
    c.box(nose + 0.05, hood + 0.13, nose + 0.115, hood + 0.19, (255, 236, 170), 0.015)
    c.box(0.06, floor - 0.03, nose + 0.13, floor + 0.02, shade(paint, 0.4), 0.01)
    for x in (0.32, nose - 0.1):
        _wheel(c, x, floor + 0.03, r, _STEEL)
    return c.finish(t, 0.04)


def tractor(t: Traits, px: int) -> CutOut:
    """Render a tractor from the side: large and small wheel, cab, bonnet, exhaust pipe."""
    c = Canvas(px, 1.4)
    paint, rim = t.colour(saturation=(0.6, 1.0), value=(0.35, 0.95)), t.colour((0.0, 0.17), (0.5, 0.95), (0.6, 1.0))
    big, small = t.uniform(0.25, 0.32), t.uniform(0.13, 0.19)
    bx, ground, fx = 0.4, 0.97, 1.16
    deck, roof = 0.52, t.uniform(0.06, 0.16)
    pipe = t.uniform(0.85, 1.05)
    c.line([(pipe, deck), (pipe, t.uniform(0.1, 0.28))], 0.035, _INK)
    c.box(0.4, roof + 0.02, 0.78, deck + 0.05, _glass(t))
    for x in (0.4, t.uniform(0.54, 0.64), 0.76):
        c.line([(x, roof + 0.03), (x, deck + 0.05)], 0.03, shade(paint, 0.75))
    c.box(0.33, roof, 0.84, roof + 0.07, paint if t.chance(0.6) else _WHITE, 0.03)
    front = t.uniform(1.22, 1.34)
    c.smooth(
        [(0.7, deck), (front - 0.06, deck + 0.02), (front, deck + 0.1), (front, 0.78), (0.6, 0.82), (0.5, 0.7)], paint
    )
    for k in range(4):
        c.line(
            [(front - 0.12, deck + 0.09 + k * 0.045), (front - 0.02, deck + 0.09 + k * 0.045)],
            0.015,
            shade(paint, 0.45),
        )
    c.box(0.55, 0.76, 1.2, 0.83, _INK)
    c.arc(bx, ground - big, big + 0.04, big + 0.04, 200, 330, 0.06, shade(paint, 0.85))
    for x, r in ((bx, big), (fx, small)):
        for k in range(14):
            turn = math.pi * k / 7
            c.ellipse(
                x + r * math.cos(turn), ground - r + r * math.sin(turn), 0.028, 0.02, _INK, angle=math.degrees(turn)
            )
        _wheel(c, x, ground - r, r, rim)
    return c.finish(t, 0.06)


def helicopter(t: Traits, px: int) -> CutOut:
    """Render a helicopter from the side; nose, tail boom, rotor and skids vary."""
    c = Canvas(px, 1.7)
    paint, trim = t.colour(saturation=(0.1, 0.95)), t.colour()
    cx, cy, rx, ry = 1.1, 0.58, t.uniform(0.3, 0.4), t.uniform(0.19, 0.25)
    boom, mast = t.uniform(0.4, 0.52), cy - ry - t.uniform(0.05, 0.11)
    c.polygon(
        [(cx - rx * 0.5, cy - ry * 0.6), (0.14, boom - 0.02), (0.14, boom + 0.04), (cx - rx * 0.4, cy + ry * 0.4)],
        paint,
    )
    c.polygon([(0.12, boom + 0.04), (0.06, boom - 0.2), (0.15, boom - 0.2), (0.26, boom + 0.02)], trim)
    turn, fan = t.free(0, math.pi), t.uniform(0.1, 0.15)
    c.line(
        [
            (0.12 - fan * math.cos(turn), boom - fan * math.sin(turn)),
            (0.12 + fan * math.cos(turn), boom + fan * math.sin(turn)),
        ],
        0.025,
        _INK,
    )
    c.ellipse(cx, cy, rx, ry, paint)
    c.box(cx - 0.14, cy - ry - 0.02, cx + 0.1, cy - ry + 0.08, shade(paint, 0.8), 0.03)
    glass = t.uniform(0.2, 0.6)
    nose = [
        (cx + rx * glass, cy - ry * 0.75),
        (cx + rx * 0.8, cy - ry * 0.45),
        (cx + rx * 0.97, cy + 0.02),
        (cx + rx * glass, cy + 0.06),
    ]
    c.smooth(nose, _glass(t))
    if t.chance(0.6):
        c.box(cx - rx * 0.5, cy - ry * 0.5, cx - rx * 0.05, cy + ry * 0.05, _glass(t), 0.02)
    c.line([(cx - rx * 0.9, cy + ry * 0.3), (cx + rx * 0.85, cy + ry * 0.3)], t.uniform(0.02, 0.06), trim)
    for x in (cx - rx * 0.45, cx + rx * 0.4):
        c.line([(x, cy + ry * 0.7), (x + 0.02, 0.93)], 0.02, _STEEL)
    c.line([(cx - rx, 0.94), (cx + rx * 0.9, 0.94), (cx + rx, 0.9)], 0.026, _INK)
    c.line([(cx - 0.02, cy - ry), (cx - 0.02, mast)], 0.03, _INK)
    left, right, sag = t.uniform(0.35, 0.62), t.uniform(0.35, 0.58), t.free(-0.03, 0.03)
    c.line([(cx - 0.02 - left, mast + sag), (cx - 0.02, mast), (min(1.69, cx + right), mast - sag)], 0.022, _INK)
    return c.finish(t, 0.05)


def chainsaw(t: Traits, px: int) -> CutOut:
    """Render a chainsaw: coloured motor with handles, long bar with teeth."""
    c = Canvas(px, 1.8)
    paint, grip = (
        t.colour((-0.05, 0.15), (0.7, 1.0), (0.6, 1.0)) if t.chance(0.7) else t.colour(),
        t.colour((0, 1), (0, 0.2), (0.1, 0.35)),
    )
    bar_y, reach, thick = 0.62, t.uniform(1.5, 1.74), t.uniform(0.06, 0.1)
    teeth = round(t.uniform(16, 26))
    for k in range(teeth):
        x = 0.75 + (reach - 0.78) * k / teeth
        for side in (-1, 1):
            y = bar_y + side * thick
            c.polygon([(x, y), (x + 0.035, y + side * 0.03), (x + 0.045, y)], _INK)
    c.box(0.6, bar_y - thick, reach, bar_y + thick, _STEEL, thick)
    c.line([(0.75, bar_y), (reach - 0.12, bar_y)], 0.03, shade(_STEEL, 0.8))
    height = t.uniform(0.34, 0.44)
    c.smooth(
        [
            (0.26, 0.5),
            (0.4, bar_y - height + 0.1),
            (0.7, bar_y - height + 0.12),
            (0.84, 0.5),
            (0.82, 0.8),
            (0.5, 0.84),
            (0.28, 0.8),
        ],
        paint,
    )
    c.arc(0.62, 0.42, t.uniform(0.16, 0.22), 0.26, 170, 350, 0.05, grip)
    c.smooth(
        [
            (0.04, 0.56),
            (0.1, 0.46),
            (0.3, 0.5),
            (0.32, 0.58),
            (0.12, 0.56),
            (0.14, 0.74),
            (0.3, 0.74),
            (0.3, 0.82),
            (0.08, 0.8),
        ],
        grip,
    )
    c.ellipse(0.5, 0.64, t.uniform(0.08, 0.12), 0.1, shade(paint, 0.55))
    for k in range(4):
        c.line([(0.42, 0.6 + k * 0.03), (0.58, 0.6 + k * 0.03)], 0.01, _INK)
    c.box(0.68, 0.56, 0.8, 0.74, shade(grip, 1.4), 0.02)
    return c.finish(t, 0.05, upright=False)
