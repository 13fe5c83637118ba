import numpy as np
import pytest

from avseg.colours import colour, hsv, palette


def test_hsv_of_primary_colours() -> None:
    assert hsv(0.0, 1.0, 1.0) == (255, 0, 0)
    assert hsv(1 / 3, 1.0, 1.0) == (0, 255, 0)
    assert hsv(2 / 3, 1.0, 0.5) == (0, 0, 128)
    assert hsv(-1 / 3, 1.0, 0.5) == hsv(5 / 3, 1.0, 0.5) == (0, 0, 128)


def test_colours_are_those_of_okabe_and_ito_then_lighter_and_darker_ones() -> None:
    assert [colour(label) for label in (1, 2, 8, 9, 15, 16)] == [
        (230, 60, 150), (86, 180, 233), (242, 158, 202), (170, 218, 244), (138, 36, 90), (52, 108, 140),
    ]  # fmt: skip
    assert colour(0) == (0, 0, 0)
    assert colour(255) == (150, 150, 150)


def test_palette_has_one_distinct_colour_per_label() -> None:
    colours = palette()
    assert colours.shape == (256, 3)
    assert [tuple(row) for row in colours.tolist()] == [colour(label) for label in range(256)]
    assert len(np.unique(colours[:101], axis=0)) == 101
    np.testing.assert_array_equal(palette(3), colours[:3])
    with pytest.raises(ValueError, match="read-only"):
        colours[0] = 1
