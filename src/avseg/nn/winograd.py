"""3 × 3 convolution of stride 1 by Winograd's minimal filtering: 36 multiplications for 4 × 4 outputs instead of 144.

Source: Lavin and Gray, arXiv 1509.09308. The outputs equal those of the convolution up to rounding. The interpolation
points are 0, ±1/√2, ±√2 and ∞, whose rounding errors are smaller than those of 0, ±1, ±2 and ∞.
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

_OUT, _KERNEL = 4, 3
_IN = _OUT + _KERNEL - 1
_POINTS = (0.0, 2**-0.5, -(2**-0.5), 2**0.5, -(2**0.5))
_CHUNK = 256
"""Tiles of 6 by 6 inputs that are transformed at once: few enough for the cache, enough for a matrix product."""
MIN_CHANNELS = 128
"""Below, the transforms cost more than they save."""


@cache
def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Return Bᵀ (6, 6), G (6, 3) and Aᵀ (4, 6) of Y = Aᵀ ((G g) ⊙ (Bᵀ d)), in float64."""
    points = torch.tensor(_POINTS, dtype=torch.float64)
    inputs, kernel, outputs = (torch.zeros(_IN, n, dtype=torch.float64) for n in (_IN, _KERNEL, _OUT))
    for i, point in enumerate(points):
        others = points[torch.arange(len(points)) != i]
        inputs[i, :-1] = _coefficients(others)
        kernel[i] = point ** torch.arange(_KERNEL) / (point - others).prod()
        outputs[i] = point ** torch.arange(_OUT)
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
    """Return whether :class:`Winograd` can replace a module and is faster on a CPU."""
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.padding == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS
    )


class Winograd(nn.Module):
    """A 3 × 3 convolution with padding 1, for inference.

    Args:
        conv: The convolution to replace, see :func:`suits`.

    Attributes:
        weight: The kernel (K, C, 3, 3).
        bias: (K,), or None.
    """

    bias: Tensor | None
    transformed: Tensor
    forth: Tensor
    back: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        inputs, kernel, outputs = _transforms()
        self.weight = nn.Parameter(conv.weight.detach(), requires_grad=False)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        transformed = kernel @ conv.weight.detach().double().cpu() @ kernel.T
        for name, value in (
            ("transformed", transformed.permute(2, 3, 1, 0).flatten(0, 1).contiguous()),
            ("forth", torch.kron(inputs, inputs)),
            ("back", torch.kron(outputs, outputs)),
        ):
            self.register_buffer(name, value.to(conv.weight), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, h, w) to (N, K, h, w), in the channels-last memory format."""
        n, _, h, w = x.shape
        rows, columns, k = -(-h // _OUT), -(-w // _OUT), self.transformed.shape[2]
        right, down = columns * _OUT + 1 - w, rows * _OUT + 1 - h
        x_NHWC = pad(x.movedim(1, -1), (0, 0, 1, right, 1, down)).contiguous()
        out = x_NHWC.new_empty(n, rows, _OUT, columns, _OUT, k)
        frames = max(1, _CHUNK // (rows * columns))
        for start in range(0, n, frames):
            tiles = x_NHWC[start : start + frames].unfold(1, _IN, _OUT).unfold(2, _IN, _OUT)
            out[start : start + frames] = self._tiles(tiles)
        out = out.view(n, rows * _OUT, columns * _OUT, k)[:, :h, :w]
        return (out if self.bias is None else out + self.bias).movedim(-1, 1)

    def _tiles(self, tiles: Tensor) -> Tensor:
        """Map tiles (n, r, c, C, 6, 6) to outputs (n, r, 4, c, 4, K)."""
        n, rows, columns, channels = tiles.shape[:4]
        forth = self.forth @ tiles.permute(4, 5, 0, 1, 2, 3).reshape(_IN**2, -1)
        products = torch.bmm(forth.view(_IN**2, -1, channels), self.transformed)
        back = self.back @ products.flatten(1)
        return back.view(_OUT, _OUT, n, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
