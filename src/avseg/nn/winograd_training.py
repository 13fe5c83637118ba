"""Winograd's minimal filtering for training: the convolution of :mod:`avseg.nn.winograd` and both of its gradients.

Per tile, Y = Aᵀ (U ⊙ V) A with V = Bᵀ d B of the inputs d and U = G g Gᵀ of the kernel g. With M' = A Y' Aᵀ of the
gradient Y' of the outputs, the gradients are Gᵀ (Σ M' ⊙ V) G of the kernel, summed over tiles, and B (M' ⊙ U) Bᵀ of the
inputs, where tiles overlap and add. V is computed again in the backward pass, because it is 2.25 times as large as d.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from avseg.nn.packed import available, products
from avseg.nn.winograd import KERNEL, TILE_IN, TILE_OUT, transforms

_CHUNK = 200
"""Tiles that are transformed at once: few enough for the cache, enough for a matrix product."""
_FEWEST = 30_000
"""Tiles times the harmonic mean of the channels, halved, below which the transforms cost more than they save."""
MIN_CHANNELS, MIN_WIDEST = 128, 256
"""Least number of channels of the narrower and of the wider side."""


def pays(x: Tensor, weight: Tensor) -> bool:
    """Return whether this form of the convolution of (N, C, h, w) by (K, C, 3, 3) is faster than the direct one."""
    outputs, inputs = weight.shape[:2]
    tiles = len(x) * -(-x.shape[2] // TILE_OUT) * -(-x.shape[3] // TILE_OUT)
    wide = min(outputs, inputs) >= MIN_CHANNELS and max(outputs, inputs) >= MIN_WIDEST
    return wide and available() and tiles * outputs * inputs >= _FEWEST * (outputs + inputs)


def winograd_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with stride 1 and padding 1, differentiably.

    Args:
        x: (N, C, h, w) in float32 on the CPU, best in the channels-last memory format.
        weight: (K, C, 3, 3).
        bias: (K,) or None.

    Returns:
        (N, K, h, w) in the channels-last memory format.
    """
    out: Tensor = _WinogradConv.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


@cache
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """Return B ⊗ B transposed (36, 36), G ⊗ G (36, 9) and A ⊗ A transposed (16, 36) in float32."""
    inputs, kernel, outputs = (torch.kron(m, m).float() for m in transforms())
    return inputs, kernel, outputs


class _Tiles:
    """The tiles of a map (N, h, w, channels), and chunks of its frames.

    Args:
        frames: N.
        height: h.
        width: w.

    Attributes:
        count: Tiles of one chunk.
    """

    def __init__(self, frames: int, height: int, width: int) -> None:
        self.frames, self.height, self.width = frames, height, width
        self.rows, self.columns = -(-height // TILE_OUT), -(-width // TILE_OUT)

        self._step = max(1, _CHUNK // (self.rows * self.columns))
        self.count = self._step * self.rows * self.columns

    def chunks(self) -> Iterator[slice]:
        """Yield slices of the frames with :attr:`count` tiles each, the last of which may be smaller."""
        return (slice(start, start + self._step) for start in range(0, self.frames, self._step))

    def transformed(self, x: Tensor) -> Tensor:
        """Return V (36, tiles, C) of frames (n, h, w, C)."""
        right, down = self.columns * TILE_OUT + 1 - self.width, self.rows * TILE_OUT + 1 - self.height
        tiles = pad(x, (0, 0, 1, right, 1, down)).unfold(1, TILE_IN, TILE_OUT).unfold(2, TILE_IN, TILE_OUT)
        flat = tiles.permute(4, 5, 0, 1, 2, 3).reshape(TILE_IN**2, -1)
        return (_matrices()[0] @ flat).view(TILE_IN**2, -1, x.shape[-1])

    def outputs(self, m: Tensor) -> Tensor:
        """Return the outputs (n, h, w, K) of the products (36, tiles, K)."""
        flat = _matrices()[2] @ m.flatten(1)
        tiles = flat.view(TILE_OUT, TILE_OUT, -1, self.rows, self.columns, m.shape[-1])
        whole: Tensor = tiles.permute(2, 3, 0, 4, 1, 5).flatten(3, 4).flatten(1, 2)
        return whole[:, : self.height, : self.width]

    def output_gradients(self, g: Tensor) -> Tensor:
        """Return M' (36, tiles, K) of the gradients (n, h, w, K) of the outputs."""
        right, down = self.columns * TILE_OUT - self.width, self.rows * TILE_OUT - self.height
        whole = pad(g, (0, 0, 0, right, 0, down)) if right or down else g
        tiles = whole.unflatten(2, (-1, TILE_OUT)).unflatten(1, (-1, TILE_OUT))
        flat = tiles.permute(2, 4, 0, 1, 3, 5).reshape(TILE_OUT**2, -1)
        spread: Tensor = _matrices()[2].T @ flat
        return spread.view(TILE_IN**2, -1, g.shape[-1])

    def input_gradients(self, v: Tensor) -> Tensor:
        """Return the gradients (n, h, w, C) of the inputs from those of V (36, tiles, C)."""
        flat = _matrices()[0].T @ v.flatten(1)
        tiles = flat.view(TILE_IN, TILE_IN, -1, self.rows, self.columns, v.shape[-1]).permute(2, 3, 0, 4, 1, 5)
        n, rows, _, columns, _, channels = tiles.shape
        out = v.new_zeros(n, rows + 1, TILE_OUT, columns + 1, TILE_OUT, channels)
        # A tile of 6 x 6 covers one block of 4 x 4 and the first two rows and columns of the next blocks.
        over = TILE_IN - TILE_OUT
        out[:, :-1, :, :-1] = tiles[:, :, :TILE_OUT, :, :TILE_OUT]
        out[:, 1:, :over, :-1] += tiles[:, :, TILE_OUT:, :, :TILE_OUT]
        out[:, :-1, :, 1:, :over] += tiles[:, :, :TILE_OUT, :, TILE_OUT:]
        out[:, 1:, :over, 1:, :over] += tiles[:, :, TILE_OUT:, :, TILE_OUT:]
        return out.flatten(3, 4).flatten(1, 2)[:, 1 : self.height + 1, 1 : self.width + 1]


class _WinogradConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        x_NHWC = x.movedim(1, -1)
        tiles = _Tiles(*x_NHWC.shape[:3])
        kernel = products(_transformed_kernel(weight), tiles.count)
        out = x_NHWC.new_empty(*x_NHWC.shape[:3], len(weight))
        for chunk in tiles.chunks():
            out[chunk] = tiles.outputs(kernel(tiles.transformed(x_NHWC[chunk])))
            if bias is not None:
                out[chunk] += bias
        return out.movedim(-1, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        x_NHWC, g_NHWC = x.movedim(1, -1), gradient.movedim(1, -1)
        tiles, u = _Tiles(*x_NHWC.shape[:3]), _transformed_kernel(weight)
        kernel = products(u.mT, tiles.count) if of_x else None
        x_gradient, u_gradient = torch.empty_like(x_NHWC), torch.zeros_like(u)
        for chunk in tiles.chunks():
            m = tiles.output_gradients(g_NHWC[chunk])
            if kernel is not None:
                x_gradient[chunk] = tiles.input_gradients(kernel(m))
            if of_weight:
                u_gradient.baddbmm_(m.mT, tiles.transformed(x_NHWC[chunk]))
        return (
            x_gradient.movedim(-1, 1) if of_x else None,
            _kernel_gradient(u_gradient) if of_weight else None,
            g_NHWC.sum((0, 1, 2)) if of_bias else None,
        )


def _transformed_kernel(weight: Tensor) -> Tensor:
    """Return U (36, K, C) of a kernel (K, C, 3, 3)."""
    flat = _matrices()[1] @ weight.permute(2, 3, 0, 1).reshape(KERNEL**2, -1)
    return flat.view(TILE_IN**2, *weight.shape[:2])


def _kernel_gradient(u: Tensor) -> Tensor:
    """Return the gradient (K, C, 3, 3) of a kernel from that of U (36, K, C)."""
    flat = _matrices()[1].T @ u.flatten(1)
    return flat.view(KERNEL, KERNEL, *u.shape[1:]).permute(2, 3, 0, 1)
