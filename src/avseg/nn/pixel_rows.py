"""Convolutions at selected pixels: features are rows (P, C), one per pixel of a mask, in the order of its ``nonzero``.

The cost is proportional to the number of selected pixels. Values equal those of the dense convolution with zero
padding, provided that the rows contain the 3 × 3 neighbourhood of each output pixel, see :func:`grow`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, max_pool2d

from avseg.nn.packed import PackedConv, PackedLinear


def grow(mask: Tensor) -> Tensor:
    """Return the mask (N, h, w) bool with the 3 × 3 neighbourhood of each pixel."""
    return max_pool2d(mask[:, None].float(), 3, 1, 1)[:, 0] > 0


def rows_of(maps: Tensor, mask: Tensor) -> Tensor:
    """Return the pixels of (N, C, h, w) in a mask (N, h, w) as (P, C)."""
    return maps.movedim(1, -1)[mask]


def conv_rows(block: nn.Sequential, rows: Tensor, given: Tensor, wanted: Tensor) -> Tensor:
    """Apply a block that begins with a 3 × 3 convolution at the pixels of a mask.

    Args:
        block: A sequence: a 3 × 3 convolution with padding 1, then elementwise layers and 1 × 1 convolutions. Batch
            norms must be folded into the convolutions.
        rows: Input (P, C) at the pixels ``given``.
        given: (N, h, w) bool; must contain ``grow(wanted)``.
        wanted: (N, h, w) bool.

    Returns:
        (Q, K) at the pixels ``wanted``.
    """
    conv: Any = block[0]
    around = _neighbourhoods(rows, given, wanted)
    if isinstance(conv, PackedConv):
        out = conv.pixels(around)
    else:
        out = linear(around, conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias)
    return _apply([*block][1:], out)


def pointwise_rows(block: nn.Sequential, rows: Tensor) -> Tensor:
    """Apply 1 × 1 convolutions and elementwise layers to rows (P, C)."""
    return _apply([*block], rows)


def _apply(layers: list[Any], rows: Tensor) -> Tensor:
    for layer in layers:
        if isinstance(layer, PackedLinear):
            rows = layer.rows(rows)
        elif isinstance(layer, PackedConv | nn.Conv2d):
            kernel = layer.weight.flatten(1).unflatten(0, (layer.groups, -1))
            grouped = rows.unflatten(1, (layer.groups, -1)).to(kernel.dtype)
            rows = torch.einsum("pgi,goi->pgo", grouped, kernel).flatten(1)
            rows = rows if layer.bias is None else rows + layer.bias
            rows = layer.activation(rows) if isinstance(layer, PackedConv) and layer.activation else rows
        else:
            rows = layer(rows)
    return rows


def _neighbourhoods(rows: Tensor, given: Tensor, wanted: Tensor) -> Tensor:
    """Return the 3 × 3 neighbourhoods (Q, 9 · C) of the pixels ``wanted``; zeros outside of the map."""
    n, h, w = given.shape
    number = torch.zeros(n, h + 2, w + 2, dtype=torch.int64, device=given.device)
    number[:, 1:-1, 1:-1][given] = torch.arange(1, len(rows) + 1, device=given.device)
    around = number.unfold(1, 3, 1).unfold(2, 3, 1)[wanted]
    padded = torch.cat([rows.new_zeros(1, rows.shape[1]), rows])
    return padded[around.flatten(1)].flatten(1)
