"""S4's frame sampling, against the rule computed frame by frame on videos that encode the frame number."""

from fractions import Fraction

import av
import numpy as np
import pytest

from avseg.dataset_tools.avsbench_frames import SIDE, kept_frames, kept_numbers, squash


def numbered(index, size):
    """Encode the number as brightness: left half number // 16, right half number % 16."""
    image = np.zeros((*size, 3), np.uint8)
    image[:, : size[1] // 2], image[:, size[1] // 2 :] = 20 + index // 16 * 14, 20 + index % 16 * 14
    return image


def number(image):
    left, right = (round((float(half.mean()) - 20) / 14) for half in (image[:, :90], image[:, -90:]))
    return 16 * left + right


def slow_numbers(path, seconds):
    """List all candidates of all seconds, then take every sixteenth."""
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate)
        count = sum(1 for _ in container.decode(video=0))
    interval = round(rate)
    candidates = [int(second * interval + i * 1.0 / 16 * interval) for second in range(seconds) for i in range(16)]
    return [min(n, count - 1) for k, n in enumerate(candidates) if k % 16 == 15]


@pytest.mark.parametrize(
    ("rate", "length", "seconds"),
    [(25, 5, 5), (Fraction(30000, 1001), 5, 5), (24, 5.2, 5), (12.5, 5, 5), (25, 3.1, 5), (30, 4, 4), (1, 5, 5)],
)
def test_kept_frames_equal_the_release(make_video, rate, length, seconds):
    times = [float(k / rate) for k in range(int(length * rate))]
    path = make_video("clip.mp4", times=times, size=(64, 96), picture=numbered)
    frames = kept_frames(path, seconds)
    assert [frame.shape for frame in frames] == [(SIDE, SIDE, 3)] * seconds
    assert [number(frame) for frame in frames] == slow_numbers(path, seconds)


def test_frame_k_is_at_k_and_fifteen_sixteenths():
    for rate in (16, 32, 48):
        assert [Fraction(n, rate) for n in kept_numbers(Fraction(rate), 3)] == [k + Fraction(15, 16) for k in range(3)]


def test_squash_does_not_antialias():
    image = np.random.default_rng(0).integers(0, 256, (448, 672, 3)).astype(np.uint8)
    small = squash(image)
    for y, x in [(0, 0), (100, 37), (223, 223)]:
        row, column = (y + 0.5) * 2 - 0.5, (x + 0.5) * 3 - 0.5
        top, left = int(row), int(column)
        down, right = row - top, column - left
        corner = image[top : top + 2, left : left + 2].astype(float)
        if right == 0:
            corner = np.repeat(corner[:, :1], 2, 1)
        expected = (corner[0, 0] * (1 - right) + corner[0, 1] * right) * (1 - down)
        expected += (corner[1, 0] * (1 - right) + corner[1, 1] * right) * down
        assert np.abs(small[y, x] - expected).max() <= 0.51
