import numpy as np
import pytest
from PIL import Image, ImageDraw

from avseg.outputs._polygons import polygons, simplified

from .conftest import DOG, HOLE


def area(polygon):
    x, y = polygon.T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def drawn(found, size, scale=8):
    """Fill polygons at a larger size, without antialiasing, and take the centres of the pixels."""
    image = Image.new("1", (size[1] * scale, size[0] * scale))
    for polygon in found:
        ImageDraw.Draw(image).polygon([tuple(point) for point in polygon * scale], fill=1)
    return np.asarray(image)[scale // 2 :: scale, scale // 2 :: scale]


def test_polygons_hold_the_centres_of_the_pixels():
    mask = np.zeros((40, 60), bool)
    mask[5:20, 3:30] = mask[12:35, 25:28] = mask[30:33, 40:59] = True
    found = polygons(mask, 0.0)
    assert len(found) == 2
    np.testing.assert_array_equal(drawn(found, mask.shape), mask)


def test_a_rectangle_keeps_few_points_within_the_tolerance():
    (polygon,) = polygons(DOG, 1.0)
    assert len(polygon) <= 8
    assert area(polygon) == pytest.approx(DOG.sum(), rel=0.03)
    assert polygon.min(0) == pytest.approx([30, 20], abs=1)
    assert polygon.max(0) == pytest.approx([70, 60], abs=1)


def test_holes_are_cut_out():
    (polygon,) = polygons(HOLE, 0.0)
    assert area(polygon) == pytest.approx(HOLE.sum(), rel=0.01)
    assert area(polygon) < area(polygons(DOG, 0.0)[0]) - 90


def test_small_and_empty_masks():
    assert polygons(np.zeros((5, 5), bool), 1.0) == []
    dot = np.zeros((5, 5), bool)
    dot[2, 3] = True
    (polygon,) = polygons(dot, 1.0)
    assert polygon.mean(0) == pytest.approx([3.5, 2.5])
    (polygon,) = polygons(np.ones((5, 5), bool), 0.0)
    assert (polygon.min(), polygon.max()) == (0, 5)


def test_simplified_stays_within_the_tolerance():
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    ring = 50 * np.stack([np.cos(angle), np.sin(angle)], 1)
    kept = simplified(ring, 0.5)
    assert 12 <= len(kept) <= 60
    assert area(kept) == pytest.approx(area(ring), rel=0.02)
    assert {tuple(point) for point in kept} <= {tuple(point) for point in ring}
