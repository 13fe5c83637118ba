"""Planes of a frame as H.264 stores it (YUV 4:2:0, 8 bits), and constant colours painted into planes.

Blending is linear, as is the conversion from RGB, so that painting on the planes gives the colours that painting on RGB
gives, without two conversions of the whole frame.
"""

from functools import lru_cache
from typing import NamedTuple, cast

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

BT709, UNSPECIFIED = 1, 2
"""FFmpeg's numbers of a YUV matrix."""
_BT601 = (5, 6)
"""FFmpeg's numbers of the matrices of PAL and NTSC, which are equal."""
_WEIGHTS = {BT709: (0.2126, 0.0722), UNSPECIFIED: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114)}
"""Weights of red and blue in the luma; swscale takes BT.601 where no matrix is specified."""
_FULL_RANGE = 2
_LEVELS = np.arange(256, dtype=np.float64)


class Planes(NamedTuple):
    """Planes that share pixels: RGB has three of full size, YUV two of half the height and width.

    Attributes:
        planes: Views (H, W), (h, w), (h, w) of uint8, which painting changes.
        step: 1 if all planes have full size, 2 if the second and third are halved.
        matrix: FFmpeg's number of the YUV matrix; 0 for RGB.
    """

    planes: tuple[Pixels, Pixels, Pixels]
    step: int
    matrix: int


def rgb_planes(image: Pixels) -> Planes:
    """Return the planes of an RGB image (H, W, 3), as views."""
    return Planes((image[..., 0], image[..., 1], image[..., 2]), 1, 0)


def yuv_planes(packed: Pixels, matrix: int) -> Planes:
    """Return the planes of a packed frame (3 H / 2, W) with even H and W, as views."""
    height, width = packed.shape[0] * 2 // 3, packed.shape[1]
    half = (height // 2, width // 2)
    u, v = packed[height:].reshape(2, *half)
    return Planes((packed[:height], u, v), 2, matrix)


def matrix_of(frame: VideoFrame) -> int | None:
    """Return the YUV matrix of a frame whose planes H.264 can take as they are; None for other formats."""
    if frame.format.name != "yuv420p" or frame.height % 2 or frame.width % 2 or frame.color_range == _FULL_RANGE:
        return None
    return int(frame.colorspace) if int(frame.colorspace) in _WEIGHTS else None


def packed_planes(frame: VideoFrame) -> Pixels:
    """Return a copy of the planes of a frame of :func:`matrix_of`: (3 H / 2, W) uint8."""
    return cast("Pixels", frame.to_ndarray())


def from_rgb(image: Pixels, matrix: int, pix_fmt: str = "yuv420p") -> VideoFrame:
    """Convert RGB to a YUV frame in limited range.

    Args:
        image: (H, W, 3), or (H, W, 4) with straight alpha. With 4:2:0, odd sizes repeat the last row or column.
        matrix: FFmpeg's number of the YUV matrix.
        pix_fmt: FFmpeg's name of the pixel format.
    """
    height, width, channels = image.shape
    if "420" in pix_fmt and (height % 2 or width % 2):
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24" if channels == 3 else "rgba")
    space = "ITU709" if matrix == BT709 else "ITU601"
    converted = frame.reformat(format=pix_fmt, dst_colorspace=space, dst_color_range="MPEG")
    if channels == 4:
        _write_alpha(converted, image[..., 3])
    return converted


def _write_alpha(frame: VideoFrame, alpha: Pixels) -> None:
    """Write opacity (H, W) into the fourth plane of a frame, in place.

    FFmpeg's scaler converts slices of rows in threads, and some of its routines write up to eight values of alpha
    behind the end of a row, over the first values of the slice below.
    """
    depth = frame.format.components[3].bits
    kind = np.dtype(np.uint8 if depth == 8 else "<u2")
    plane = frame.planes[3]
    values = np.zeros((plane.height, plane.line_size // kind.itemsize), kind)
    values[:, : plane.width] = alpha if depth == 8 else (alpha * ((2**depth - 1) / 255)).round()
    plane.update(values.tobytes())


def to_yuv(colours: Pixels, matrix: int) -> Pixels:
    """Convert RGB (..., 3) uint8 to limited-range YUV (..., 3) uint8 without subsampling; matrix 0 changes nothing."""
    if not matrix:
        return colours
    red, blue = _WEIGHTS[matrix]
    rgb = colours / 255.0
    luma = rgb @ np.array([red, 1.0 - red - blue, blue])
    chroma = [(rgb[..., 2] - luma) / (2 * (1 - blue)), (rgb[..., 0] - luma) / (2 * (1 - red))]
    found = np.stack([16 + 219 * luma, *(128 + 224 * c for c in chroma)], -1)
    return np.asarray(found.round(), np.uint8)


def paint(target: Planes, top: int, left: int, mask: NDArray[np.bool_], colour: Pixels, share: float) -> None:
    """Blend a constant colour into the pixels of a mask, in place.

    A halved plane is changed where two or more of the four pixels are in the mask.

    Args:
        target: The planes.
        top: First row of the mask, a multiple of ``target.step``.
        left: First column of the mask, the same.
        mask: (h, w), both multiples of ``target.step``.
        colour: (3,) RGB.
        share: Share of the colour, 0..1.
    """
    tables = _tables(tuple(colour.tolist()), share, target.matrix)
    halved = mask if target.step == 1 else _halved(mask)
    for index, (plane, table) in enumerate(zip(target.planes, tables, strict=True)):
        step, where = (1, mask) if index == 0 else (target.step, halved)
        part = plane[top // step : top // step + where.shape[0], left // step : left // step + where.shape[1]]
        if share == 1.0:
            part[where] = table[0]
        else:
            np.copyto(part, table[part], where=where)


def paste(target: Planes, top: int, left: int, image: Pixels) -> None:
    """Replace a rectangle by an RGB image (h, w, 3), in place; position and size are multiples of ``target.step``."""
    for plane, patch in zip(target.planes, subsampled(image, target), strict=True):
        step = image.shape[0] // patch.shape[0]
        plane[top // step : top // step + patch.shape[0], left // step : left // step + patch.shape[1]] = patch


def subsampled(image: Pixels, like: Planes) -> tuple[Pixels, Pixels, Pixels]:
    """Return an RGB image (h, w, 3) as three planes in the colours and sizes of ``like``."""
    y, u, v = np.moveaxis(to_yuv(image, like.matrix), -1, 0)
    if like.step == 1:
        return y, u, v
    height, width = y.shape
    boxes = (c.reshape(height // 2, 2, width // 2, 2).mean((1, 3)).round().astype(np.uint8) for c in (u, v))
    return y, next(boxes), next(boxes)


@lru_cache(maxsize=1024)
def _tables(colour: tuple[int, ...], share: float, matrix: int) -> tuple[Pixels, ...]:
    """Return old → new level of each plane."""
    values = to_yuv(np.array(colour, np.uint8), matrix).tolist()
    return tuple((_LEVELS + (value - _LEVELS) * share).round().astype(np.uint8) for value in values)


def _halved(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows = mask[::2].view(np.uint8) + mask[1::2].view(np.uint8)
    found: NDArray[np.bool_] = (rows[:, ::2] + rows[:, 1::2]) >= 2
    return found
