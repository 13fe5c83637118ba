import av
import numpy as np
import pytest

from avseg.media.yuv import BT709, Planes, from_rgb, matrix_of, paint, paste, rgb_planes, to_yuv, yuv_planes

COLOURS = np.array([[230, 30, 40], [20, 200, 60], [255, 255, 255], [0, 0, 0]], np.uint8)


@pytest.mark.parametrize("matrix", [1, 2, 5, 6])
def test_to_yuv_equals_swscale(matrix):
    for colour in COLOURS:
        frame = from_rgb(np.broadcast_to(colour, (64, 64, 3)).copy(), matrix)
        y, u, v = yuv_planes(frame.to_ndarray(), matrix).planes
        seen = [int(plane[plane.shape[0] // 2, plane.shape[1] // 2]) for plane in (y, u, v)]
        np.testing.assert_allclose(to_yuv(colour, matrix), seen, atol=1)


@pytest.mark.parametrize("share", [0.45, 1.0])
def test_painting_planes_equals_painting_rgb(share):
    image = np.full((32, 48, 3), (60, 90, 120), np.uint8)
    mask = np.zeros((16, 20), bool)
    mask[4:12, 2:14] = True
    packed = from_rgb(image, BT709).to_ndarray()
    paint(yuv_planes(packed, BT709), 8, 10, mask, COLOURS[0], share)
    frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
    seen = frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray().astype(int)
    paint(rgb_planes(image), 8, 10, mask, COLOURS[0], share)
    np.testing.assert_allclose(seen[14:18, 16:20], image[14:18, 16:20], atol=3)
    np.testing.assert_allclose(seen[:6], image[:6], atol=3)
    expected = np.float32([60, 90, 120]) * (1 - share) + COLOURS[0] * np.float32(share)
    np.testing.assert_allclose(image[15, 18], expected, atol=0.51)
    assert (image[11, 18] == (60, 90, 120)).all()


def test_halved_planes_change_where_half_of_the_pixels_are_in_the_mask():
    target = Planes((np.zeros((4, 4), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)), 2, BT709)
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[2, :2] = True
    paint(target, 0, 0, mask, np.array([255, 255, 255], np.uint8), 1.0)
    assert target.planes[0].tolist() == [[235, 0, 0, 0], [0] * 4, [235, 235, 0, 0], [0] * 4]
    assert target.planes[1].tolist() == [[0, 0], [128, 0]]


def test_paste_replaces_a_rectangle_only():
    packed = from_rgb(np.zeros((16, 16, 3), np.uint8), BT709).to_ndarray()
    paste(yuv_planes(packed, BT709), 4, 8, np.full((4, 6, 3), 255, np.uint8))
    y, u, _ = yuv_planes(packed, BT709).planes
    assert set(y[4:8, 8:14].ravel().tolist()) == {235}
    assert (y == 16).sum() == 256 - 24
    assert (u == 128).all()


def test_only_planes_that_h264_takes_are_used_directly():
    def frame(width=16, height=16, kind="yuv420p", space=1, colours=1):
        made = av.VideoFrame(width, height, kind)
        made.colorspace, made.color_range = space, colours
        return made

    assert [matrix_of(frame(space=space)) for space in (1, 2, 5, 6)] == [1, 2, 5, 6]
    assert matrix_of(frame(width=17)) is None
    assert matrix_of(frame(height=15)) is None
    assert matrix_of(frame(kind="yuv444p")) is None
    assert matrix_of(frame(space=9)) is None  # BT.2020
    assert matrix_of(frame(colours=2)) is None  # full range


@pytest.mark.parametrize("pix_fmt", ["yuva420p", "yuva444p10le"])
@pytest.mark.parametrize("width", [150, 1366])
def test_opacity_is_exact_at_widths_the_scaler_does_not_divide(pix_fmt, width):
    for seed in range(10):  # the threads of FFmpeg's scaler overwrite each other's rows in about one of six frames
        image = np.random.default_rng(seed).integers(0, 256, (100, width, 4), np.uint8)
        plane = from_rgb(image, BT709, pix_fmt).planes[3]
        values = np.frombuffer(plane, "<u2" if "10" in pix_fmt else np.uint8).reshape(plane.height, -1)[:, :width]
        np.testing.assert_array_equal(
            values, np.round(image[..., 3] * (1023 / 255)) if "10" in pix_fmt else image[..., 3]
        )
