import numpy as np
import pytest

from avseg.media.images import enlarged
from avseg.prediction import upsampling
from avseg.prediction.upsampling import guide_size, refined, without_texture


def slow(probability, guide):
    """Guided filter, window by window: least squares of the probability in the colour, with a ridge."""
    size = guide.shape[:2]
    small = size[0] // upsampling.REDUCTION, size[1] // upsampling.REDUCTION
    radius = [max(1, round(upsampling.WINDOW * n / m)) for n, m in zip(small, probability.shape, strict=True)]
    colours = np.stack([enlarged(np.float32(guide[..., c]) / 255, small[::-1]) for c in range(3)], -1).astype(float)
    values = enlarged(probability, small[::-1]).astype(float)
    padding = [(r, r) for r in radius]
    colours_padded, values_padded = np.pad(colours, [*padding, (0, 0)], "edge"), np.pad(values, padding, "edge")
    coefficients = np.empty((*small, 5))
    for y, x in np.ndindex(small):
        window = np.s_[y : y + 2 * radius[0] + 1, x : x + 2 * radius[1] + 1]
        inputs, targets = colours_padded[window].reshape(-1, 3), values_padded[window].ravel()
        centred = inputs - inputs.mean(0)
        count = len(targets)
        ridge = upsampling.RIDGE * np.eye(3)
        covariance = centred.T @ targets / count
        slope = np.linalg.solve(centred.T @ centred / count + ridge, covariance)
        correlation = np.sqrt(np.clip(slope @ covariance / (targets.var() + 1e-4), 0, 1))
        offset = targets.mean() - slope @ inputs.mean(0)
        coefficients[y, x] = [*(slope * correlation), offset * correlation, 1 - correlation]
    coefficients = np.pad(coefficients, [*padding, (0, 0)], "edge")
    means = np.empty((*small, 5))
    for y, x in np.ndindex(small):
        means[y, x] = coefficients[y : y + 2 * radius[0] + 1, x : x + 2 * radius[1] + 1].mean((0, 1))
    large = np.stack([enlarged(np.float32(means[..., c]), size[::-1]) for c in range(5)], -1)
    fitted = (large[..., :3] * guide / 255).sum(-1) + large[..., 3]
    return np.clip(fitted + large[..., 4] * enlarged(probability, size[::-1]), 0, 1)


def test_refined_equals_least_squares_in_every_window():
    rng = np.random.default_rng(0)
    guide = rng.integers(0, 256, (96, 128, 3), np.uint8)
    guide[:, 60:] //= 3
    probabilities = enlarged(rng.random((5, 7)).astype(np.float32), (32, 32))[None]
    np.testing.assert_allclose(refined(probabilities, guide)[0], slow(probabilities[0], guide), atol=2e-3)


def scene():
    """A red disc in front of green, and its probability on a grid of 8 × 8, enlarged to 32 × 32."""
    y, x = np.mgrid[:180, :320]
    disc = (y - 90) ** 2 + (x - 150) ** 2 < 60**2
    noise = np.random.default_rng(1).integers(0, 30, (180, 320, 3))
    guide = (np.where(disc[..., None], (170, 60, 40), (60, 150, 70)) + noise).astype(np.uint8)
    grid = np.asarray([[disc[r * 22 : r * 22 + 22, c * 40 : c * 40 + 40].mean() for c in range(8)] for r in range(8)])
    return disc, guide, enlarged(grid.astype(np.float32), (32, 32))


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_contours_follow_the_edges_of_the_picture():
    disc, guide, probability = scene()
    bilinear = enlarged(probability, (320, 180)) > 0.5
    assert iou(bilinear, disc) < 0.92
    assert iou(refined(probability[None], guide)[0] > 0.5, disc) > 0.96


def test_without_edges_the_bilinear_value_is_kept():
    _, _, probability = scene()
    flat = np.full((180, 320, 3), 90, np.uint8)
    np.testing.assert_allclose(refined(probability[None], flat)[0], enlarged(probability, (320, 180)), atol=1e-5)


def test_channels_are_independent():
    _, guide, probability = scene()
    both = refined(np.stack([probability, 1 - probability]), guide)
    np.testing.assert_array_equal(both[0], refined(probability[None], guide)[0])
    assert both.min() >= 0
    assert both.max() <= 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [((720, 1280), (270, 480)), ((1280, 720), (480, 270)), ((90, 160), (90, 160)), ((1, 2000), (1, 480))],
)
def test_guides_keep_the_aspect_ratio(size, expected):
    assert guide_size(size) == expected


def test_texture_nearly_vanishes_and_the_contour_stays():
    plain = np.float32([[0.8, 0.8, 0.8, 0.2, 0.2, 0.2, 0.5]])
    fitted = np.float32([[0.74, 0.86, 0.3, 0.26, 0.14, 0.7, 0.9]])
    found = without_texture(fitted, plain, 0.5)
    np.testing.assert_allclose(found, [[0.788, 0.818, 0.3, 0.212, 0.182, 0.7, 0.9]], atol=1e-6)
    np.testing.assert_array_equal(found > 0.5, fitted > 0.5)
    assert without_texture(np.float32([[0.35]]), np.float32([[0.5]]), 0.3)[0, 0] == pytest.approx(0.3875)
