"""3 × 3 convolution of stride 1 by Winograd's minimal filtering: 36 multiplications for 4 × 4 outputs instead of 144.

Source: Lavin and Gray, arXiv 1509.09308. The outputs equal those of the convolution up to rounding. The interpolation
points are 0, ±1/√2, ±√2 and ∞, whose rounding errors are smaller than those of 0, ±1, ±2 and ∞.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from avseg.nn.packed import PackedConv, available, products

TILE_OUT, KERNEL = 4, 3
TILE_IN = TILE_OUT + KERNEL - 1
_POINTS = (0.0, 2**-0.5, -(2**-0.5), 2**0.5, -(2**0.5))
_CHUNK = 256
"""Tiles of 6 by 6 inputs that are transformed at once: few enough for the cache, enough for a matrix product."""
MIN_CHANNELS, MIN_CHANNELS_AVX512 = 128, 256
"""Below, the transforms cost more than they save; with 512-bit registers the direct convolution is twice as fast."""
_FEWEST_TILES = 64
"""With fewer tiles, reading the transformed kernel, four times the size of the kernel, costs more than it saves."""


@cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Return Bᵀ (6, 6), G (6, 3) and Aᵀ (4, 6) of Y = Aᵀ ((G g) ⊙ (Bᵀ d)), in float64."""
    points = torch.tensor(_POINTS, dtype=torch.float64)
    inputs, kernel, outputs = (torch.zeros(TILE_IN, n, dtype=torch.float64) for n in (TILE_IN, KERNEL, TILE_OUT))
    for i, point in enumerate(points):
        others = points[torch.arange(len(points)) != i]
        inputs[i, :-1] = _coefficients(others)
        kernel[i] = point ** torch.arange(KERNEL) / (point - others).prod()
        outputs[i] = point ** torch.arange(TILE_OUT)
    inputs[-1] = _coefficients(points)
    kernel[-1, -1] = outputs[-1, -1] = 1.0
    return inputs, kernel, outputs.T.contiguous()


def _coefficients(roots: Tensor) -> Tensor:
    """Return the coefficients of ∏ (x - root), the lowest degree first."""
    found = torch.ones(1, dtype=torch.float64)
    for root in roots:
        found = pad(found, (1, 0)) - root * pad(found, (0, 1))
    return found


def suits(conv: nn.Module) -> bool:
    """Return whether :class:`Winograd` can replace a module and is faster on this CPU."""
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.padding == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and min(conv.in_channels, conv.out_channels) >= (MIN_CHANNELS_AVX512 if _avx512() else MIN_CHANNELS)
    )


def _avx512() -> bool:
    """Return whether oneDNN uses 512-bit registers, with which its matrix products are twice as fast as torch's."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


class Winograd(PackedConv):
    """A 3 × 3 convolution with padding 1, and the activation after it, for inference.

    Args:
        conv: The convolution to replace, see :func:`suits`.
        activation: The layer after it, see :func:`avseg.nn.packed.can_follow`; None for none.
    """

    transformed: Tensor
    forth: Tensor
    back: Tensor

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__(conv, activation, conv.weight.dtype)
        inputs, kernel, outputs = transforms()
        transformed = kernel @ conv.weight.detach().double().cpu() @ kernel.T
        for name, value in (
            ("transformed", transformed.permute(2, 3, 1, 0).flatten(0, 1).contiguous()),
            ("forth", torch.kron(inputs, inputs)),
            ("back", torch.kron(outputs, outputs)),
        ):
            self.register_buffer(name, value.to(conv.weight), persistent=False)
        self._multiply: Callable[[Tensor], Tensor] | None = None
        self._pack = _avx512() and available() and conv.weight.dtype == torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, h, w) to (N, K, h, w), in the channels-last memory format."""
        n, _, h, w = x.shape
        rows, columns, k = -(-h // TILE_OUT), -(-w // TILE_OUT), self.transformed.shape[2]
        if n * rows * columns < _FEWEST_TILES and available() and x.dtype == torch.float32:
            return super().forward(x)
        right, down = columns * TILE_OUT + 1 - w, rows * TILE_OUT + 1 - h
        x_NHWC = pad(x.movedim(1, -1), (0, 0, 1, right, 1, down)).contiguous()
        out = x_NHWC.new_empty(n, rows, TILE_OUT, columns, TILE_OUT, k)
        frames = max(1, _CHUNK // (rows * columns))
        for start in range(0, n, frames):
            tiles = x_NHWC[start : start + frames].unfold(1, TILE_IN, TILE_OUT).unfold(2, TILE_IN, TILE_OUT)
            out[start : start + frames] = self._tiles(tiles)
        out = out.view(n, rows * TILE_OUT, columns * TILE_OUT, k)
        if self.bias is not None:
            out += self.bias.detach()
        activated: Tensor = out if self.activation is None else self.activation(out)
        return activated[:, :h, :w].movedim(-1, 1)

    def _tiles(self, tiles: Tensor) -> Tensor:
        """Map tiles (n, r, c, C, 6, 6) to outputs (n, r, 4, c, 4, K)."""
        n, rows, columns, channels = tiles.shape[:4]
        forth = (self.forth @ tiles.permute(4, 5, 0, 1, 2, 3).reshape(TILE_IN**2, -1)).view(TILE_IN**2, -1, channels)
        back = self.back @ self._products(forth).flatten(1)
        return back.view(TILE_OUT, TILE_OUT, n, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)

    def _products(self, forth: Tensor) -> Tensor:
        """Multiply (36, tiles, C) by the transformed kernel (36, C, K)."""
        if not self._pack:
            return torch.bmm(forth, self.transformed)
        if self._multiply is None:
            self._multiply = products(self.transformed.mT, forth.shape[1])
        return self._multiply(forth)
