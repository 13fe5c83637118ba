"""Polygons of a mask, for annotation tools that have no run lengths."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

from avseg.errors import ConfigError
from avseg.outputs.frames import Format

Polygon = NDArray[np.float64]


@dataclass(frozen=True)
class PolygonConfig:
    """Settings of every output of polygons.

    Attributes:
        format: Format of the images, as written by the output frames.
        tolerance: Largest distance in pixels of a polygon from the outline of the mask; 0 keeps every point.
    """

    format: Format = "png"
    tolerance: float = 1.0

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ConfigError(f"tolerance must be 0 pixels or more, got {self.tolerance}")


def polygons(mask: NDArray[np.bool_], tolerance: float) -> list[Polygon]:
    """Return one polygon for each connected part of a mask.

    A hole is joined to the outline by two equal edges in opposite directions, because the formats have no holes.

    Args:
        mask: (H, W).
        tolerance: Largest distance in pixels of the outline from the simplified outline; 0 keeps every point.

    Returns:
        Polygons (n, 2) of x and y in pixels, n >= 3; (0, 0) is the outer corner of the first pixel.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(np.float64)
    filled = contour_generator(z=part, fill_type=FillType.OuterOffset).filled(0.5, 2.0)
    found = []
    for points, offsets in zip(*filled, strict=True):
        shifted = np.asarray(points) + np.array([left - 0.5, top - 0.5])
        rings = [simplified(shifted[a : b - 1], tolerance) for a, b in pairwise(offsets)]
        polygon = rings[0]
        for hole in rings[1:]:
            polygon = _joined(polygon, hole)
        found.append(polygon)
    return found


def simplified(ring: Polygon, tolerance: float) -> Polygon:
    """Return the points of a closed ring (n, 2) that Douglas and Peucker's algorithm keeps; at least three."""
    if tolerance <= 0 or len(ring) <= 4:
        return ring
    far = int(((ring - ring[0]) ** 2).sum(1).argmax())
    closed = np.concatenate([ring, ring[:1]])
    kept = np.zeros(len(closed), bool)
    kept[[0, far, -1]] = True
    stretches = [(0, far), (far, len(closed) - 1)]
    while stretches:
        first, last = stretches.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        worst = int(distances.argmax())
        if distances[worst] > tolerance:
            middle = first + 1 + worst
            kept[middle] = True
            stretches += [(first, middle), (middle, last)]
    kept[-1] = False
    return ring if kept.sum() < 3 else closed[kept]


def _distances(points: Polygon, start: Polygon, end: Polygon) -> NDArray[np.float64]:
    """Return the distances of points (n, 2) from a segment."""
    along, offsets = end - start, points - start
    length = float(along @ along)
    share = np.clip(offsets @ along / length, 0, 1) if length else np.zeros(len(points))
    distances: NDArray[np.float64] = np.hypot(*(offsets - share[:, None] * along).T)
    return distances


def _joined(outline: Polygon, hole: Polygon) -> Polygon:
    """Insert a hole at the closest pair of points."""
    distances = ((outline[:, None] - hole[None]) ** 2).sum(2)
    i, j = np.unravel_index(int(distances.argmin()), distances.shape)
    return np.concatenate([outline[: i + 1], hole[j:], hole[: j + 1], outline[i:]])
