import numpy as np
import pytest

from avseg.colours import palette
from avseg.media.yuv import BT709, from_rgb, rgb_planes, subsampled, to_yuv, yuv_planes
from avseg.outputs._drawing import (
    add_legend,
    add_name,
    add_names,
    add_regions,
    add_timeline,
    overlay,
    planes_with_timeline,
    striped,
    timeline,
    timeline_height,
)

GREY = np.full((100, 120, 3), 90, np.uint8)
LABELS = np.zeros((100, 120), np.uint8)
LABELS[20:50, 30:70] = 1
LABELS[40:80, 70:110] = 2


def test_overlay_tints_inside_and_leaves_the_rest():
    seen = overlay(GREY, LABELS, palette(3))
    assert (GREY == 90).all()
    np.testing.assert_allclose(seen[35, 50], 90 * 0.55 + palette(3)[1] * 0.45, atol=1)
    np.testing.assert_allclose(seen[60, 90], 90 * 0.55 + palette(3)[2] * 0.45, atol=1)
    far = np.ones(LABELS.shape, bool)
    far[16:84, 26:114] = False
    assert (seen[far] == 90).all()


def test_contour_is_white_inside_and_dark_outside():
    seen = overlay(GREY, LABELS, palette(3))
    assert (seen[20, 35:65] == 255).all()
    assert (seen[19, 35:65] < 40).all()
    assert (seen[45, 69] == 255).all()  # between two classes


def test_overlay_of_nothing_and_of_everything():
    np.testing.assert_array_equal(overlay(GREY, np.zeros_like(LABELS), palette(2)), GREY)
    full = overlay(GREY, np.ones_like(LABELS), palette(2))
    np.testing.assert_allclose(full.reshape(-1, 3), np.broadcast_to(full[0, 0], (12_000, 3)))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 200)])
def test_small_pictures(size):
    image = np.full((*size, 3), 90, np.uint8)
    assert overlay(image, np.ones(size, np.uint8), palette(2)).shape == image.shape
    assert timeline_height(size) == 0
    before = image.copy()
    line = timeline(size[1], 0, np.array([0.0]), 1.0, np.array([1.0]), palette(2)[1:])
    np.testing.assert_array_equal(add_timeline(image, line, 0.5), before)
    add_names(rgb_planes(image), [1], ("background", "dog"), palette(2))
    np.testing.assert_array_equal(image, before)


def test_timeline_is_a_graph_of_the_scores():
    line = timeline(8, 10, np.array([1.0, 2.0, 4.0]), 5.0, np.array([0.5, 0.0, 1.0]), palette(4)[1:])
    assert line.shape == (10, 8, 3)
    filled = (line != line[0, 3]).any(-1)
    assert filled.sum(0).tolist() == [5, 5, 0, 0, 0, 0, 10, 10]  # two columns per second
    assert filled[-1, 0]
    assert (line[-1, 0] == palette(4)[1]).all()
    assert (line[0, -1] == palette(4)[3]).all()


def test_add_timeline_marks_the_present():
    image, height = GREY.copy(), timeline_height((100, 120))
    assert height >= 6
    line = timeline(120, height, np.array([0.0]), 1.0, np.array([0.0]), palette(2)[1:])
    shown = add_timeline(image, line, 0.0)
    assert shown.shape == (100 + height, 120, 3)
    assert (shown[100:, 0] == 255).all()
    assert (shown[100:, 1:] < 90).all()
    assert (shown[:100] == 90).all()
    assert (add_timeline(image, line, 1.0)[100:, -1] == 255).all()


def test_a_name_stands_at_its_region_inside_the_picture():
    image = np.full((300, 400, 3), 90, np.uint8)
    height = add_name(rgb_planes(image), "dog", palette(3)[1], 100, 390)
    rows, columns = np.flatnonzero((image != 90).any((1, 2))), np.flatnonzero((image != 90).any((0, 2)))
    assert (rows[0], rows[-1]) == (100, 100 + height - 1)
    assert columns[-1] < 400 - 2
    assert columns[0] > 300


def test_names_stand_on_their_colours():
    image = np.full((300, 400, 3), 90, np.uint8)
    names = ("background", "dog", "a very long name that does not fit into the picture" * 3)
    add_names(rgb_planes(image), [1, 2], names, palette(3))
    changed = np.argwhere((image != 90).any(-1))
    assert len(changed)
    assert (image.reshape(-1, 3) == palette(3)[1]).all(1).sum() > 100
    top, left = changed.min(0)
    assert top < 10
    assert left < 10


def test_stripes_are_as_strong_as_the_uncertainty():
    rising = np.broadcast_to(np.linspace(0, 1, 120, dtype=np.float32), (100, 120))
    for ground in (0, 90, 255):
        seen = striped(np.full((100, 120, 3), ground, np.uint8), rising).astype(int)
        assert (seen[..., 0] == seen[..., 1]).all()  # grey: no class's colour
        assert (seen[..., 0] == seen[..., 2]).all()
        share = 0.6 * rising
        dark, light = (ground * (1 - share) + stripe * share for stripe in (28, 255))
        odd = np.add.outer(np.arange(100), np.arange(120)) // 3 % 2 == 1
        np.testing.assert_allclose(seen[..., 0], np.where(odd, light, dark), atol=1.0)
    np.testing.assert_array_equal(striped(GREY, np.zeros((100, 120), np.float32)), GREY)
    assert (GREY == 90).all()


def test_stripes_grow_with_the_picture():
    wide = striped(np.full((900, 1600, 3), 90, np.uint8), np.ones((900, 1600), np.float32))[0, :, 0]
    assert np.diff(np.flatnonzero(np.diff(wide.astype(int)))).tolist() == [10] * 158


def test_contours_are_on_top_of_the_stripes():
    seen = overlay(striped(GREY, np.ones((100, 120), np.float32)), LABELS, palette(3))
    assert (seen[20, 35:65] == 255).all()
    assert (seen[19, 35:65] < 40).all()
    inside = seen[25:45, 35:65].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) == 2  # stripes, under the tint
    assert (inside[:, 0] > inside[:, 1]).all()


def test_legend_is_in_the_corner():
    image = np.full((300, 400, 3), 90, np.uint8)
    add_legend(image)
    changed = np.argwhere((image != 90).any(-1))
    (top, left), (bottom, right) = changed.min(0), changed.max(0)
    assert (bottom, right) == (300 - 4 - 1, 400 - 4 - 1)
    assert top > 250
    assert left > 200
    middle = image[top:bottom, left:right].astype(int)
    assert (middle[..., 0] > 230).sum() > 10  # words
    assert (middle[0, :, 0] == 110).any()  # the scale begins without stripes


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (95, 400), (400, 96)])
def test_a_legend_that_does_not_fit_is_left_out(size):
    image = np.full((*size, 3), 90, np.uint8)
    add_legend(image)
    assert (image == 90).all()
    assert striped(image, np.ones(size, np.float32)).shape == image.shape


def test_drawing_on_planes_equals_drawing_on_rgb():
    image = np.full((120, 160, 3), (60, 110, 90), np.uint8)
    labels = np.zeros((120, 160), np.uint8)
    labels[31:70, 40:91] = 1
    labels[50:90, 91:120] = 2
    names, line = (
        ("background", "dog", "siren"),
        timeline(160, 6, np.array([0.0]), 1.0, np.array([0.5]), palette(3)[1:2]),
    )
    packed = from_rgb(image, BT709).to_ndarray()
    target = yuv_planes(packed, BT709)
    add_regions(target, labels, palette(3))
    add_names(target, [1, 2], names, palette(3))
    shown = planes_with_timeline(target, subsampled(line, target), 0.5)
    drawn = overlay(image, labels, palette(3))
    add_names(rgb_planes(drawn), [1, 2], names, palette(3))
    drawn = add_timeline(drawn, line, 0.5)
    assert drawn.shape == (126, 160, 3)
    luma = to_yuv(drawn, BT709)[..., 0].astype(int)
    assert (np.abs(shown[0].astype(int) - luma) <= 3).mean() > 0.98  # plates have even sizes
    expected = from_rgb(drawn, BT709).to_ndarray().astype(int)
    packed = np.concatenate([plane.ravel() for plane in shown]).reshape(-1, 160)
    assert np.abs(packed.astype(int) - expected).mean() < 1.0
