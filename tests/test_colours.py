from avseg.colours import colour, hsv, palette


def test_hsv_of_primary_colours() -> None:
    assert hsv(0.0, 1.0, 1.0) == (255, 0, 0)
    assert hsv(1 / 3, 1.0, 1.0) == (0, 255, 0)
    assert hsv(2 / 3, 1.0, 0.5) == (0, 0, 128)
    assert hsv(-1 / 3, 1.0, 0.5) == hsv(5 / 3, 1.0, 0.5) == (0, 0, 128)


def test_palette_has_one_distinct_colour_per_label() -> None:
    flat = palette()
    colours = [tuple(flat[3 * label : 3 * label + 3]) for label in range(256)]
    assert colours == [colour(label) for label in range(256)]
    assert colours[0] == (0, 0, 0)
    assert len(set(colours[:72])) == 72
