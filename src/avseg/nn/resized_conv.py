"""Convolution of an enlarged map, with the products computed at the size before enlarging.

Both steps are linear, so that the output is Σ_ab S_a U (W_ab x) Uᵀ S_bᵀ over the nine pixels (a, b) of the kernel W,
with the bilinear interpolation U along one side, and the shift S that moves zeros in. W_ab x has the size of x: for a
map enlarged by two, a quarter of the multiplications. The enlarged map is neither computed nor kept for the gradient.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import interpolate, pad

from avseg.nn.packed import available, products

_KERNEL = 3
MIN_CHANNELS = 64
"""Below, the sums of shifted maps cost more than the products save."""


def pays(x: Tensor, weight: Tensor, size: tuple[int, int]) -> bool:
    """Return whether :func:`resized_conv` is faster than to enlarge (N, C, h, w) to (H, W) and to convolve."""
    wide = min(weight.shape[:2]) >= MIN_CHANNELS
    return wide and available() and size[0] * size[1] >= 3 * x.shape[2] * x.shape[3]


def resized_conv(x: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly and convolve with stride 1 and padding 1, differentiably.

    Args:
        x: (N, C, h, w) in float32 on the CPU.
        weight: (K, C, 3, 3).
        bias: (K,) or None.
        size: H and W.

    Returns:
        (N, K, H, W) in the channels-last memory format.
    """
    out: Tensor = _ResizedConv.apply(x, weight, bias, size)  # type: ignore[no-untyped-call]
    return out


@cache
def _side(small: int, large: int) -> Tensor:
    """Return the matrices S_a U of one side, (H, 3, h)."""
    enlarge = interpolate(torch.eye(small)[None], large, mode="linear")[0].T
    padded = pad(enlarge, (0, 0, 1, 1))
    return torch.stack([padded[a : a + large] for a in range(_KERNEL)], 1)


class _ResizedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.size = size
        n, _, h, w = x.shape
        (height, width), k = size, len(weight)
        down, right = _side(h, height).flatten(1), _side(w, width).mT.flatten(1)  # (H, 3 h), (W, w 3)
        kernel = products(_by_row(weight), h * w)
        sums = x.new_empty(_KERNEL, h, width, k)
        out = x.new_empty(n, height, width, k)
        for frame, result in zip(x.movedim(1, -1).flatten(1, 2), out, strict=True):
            mapped = kernel(frame.expand(_KERNEL, -1, -1)).view(_KERNEL * h, w * _KERNEL, k)
            torch.matmul(right, mapped, out=sums.flatten(0, 1))
            torch.mm(down, sums.view(_KERNEL * h, -1), out=result.view(height, -1))
            if bias is not None:
                result += bias
        return out.movedim(-1, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        (height, width), (n, c, h, w), k = ctx.size, x.shape, len(weight)
        down, right = _side(h, height).flatten(1).T, _side(w, width).mT.flatten(1).T
        by_row = _by_row(weight)
        kernel = products(by_row.mT, h * w) if of_x else None
        x_gradient, weight_gradient = x.new_empty(n, h * w, c), torch.zeros_like(by_row)
        g_NHWC = gradient.movedim(1, -1)
        for i, (frame, g) in enumerate(zip(x.movedim(1, -1).flatten(1, 2), g_NHWC, strict=True)):
            sums = (down @ g.reshape(height, -1)).view(_KERNEL * h, width, k)
            mapped = torch.matmul(right, sums).view(_KERNEL, h * w, _KERNEL * k)
            if kernel is not None:
                torch.sum(kernel(mapped), 0, out=x_gradient[i])
            if of_weight:
                weight_gradient.baddbmm_(mapped.mT, frame.expand(_KERNEL, -1, -1))
        return (
            x_gradient.view(n, h, w, c).movedim(-1, 1) if of_x else None,
            weight_gradient.view(_KERNEL, _KERNEL, k, c).permute(2, 3, 0, 1) if of_weight else None,
            g_NHWC.sum((0, 1, 2)) if of_bias else None,
            None,
        )


def _by_row(weight: Tensor) -> Tensor:
    """Return a kernel (K, C, 3, 3) as one matrix per row of the kernel, (3, 3 K, C)."""
    return weight.permute(2, 3, 0, 1).flatten(1, 2)
