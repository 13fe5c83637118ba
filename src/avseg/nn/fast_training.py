"""Faster convolutions for training on a CPU in float32. Outputs and gradients differ by rounding only.

==============================================  =====================================================================
convolution                                     computed
==============================================  =====================================================================
all                                             in the channels-last memory format
1 × 1                                           by oneDNN; for less than 16 frames on one thread torch calls a slower
                                                library
3 × 3 with many channels                        by Winograd's filtering, :mod:`avseg.nn.winograd_training`
3 × 3 of an enlarged map (:func:`conv_resized`) before enlarging, :mod:`avseg.nn.resized_conv`
==============================================  =====================================================================
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from avseg.nn import resized_conv, winograd_training
from avseg.nn.packed import available

_BATCH = 16
"""Number of images from which torch passes convolutions of one pixel to oneDNN on one thread too."""
_MOST = 256
"""Largest number of images into which pixels are divided."""


class FastConv2d(nn.Conv2d):
    """A convolution with faster forms in training; otherwise, such as in evaluation mode, it is :class:`nn.Conv2d`."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, h, w)."""
        if not self._fast(input):
            return super().forward(input)
        x = input.contiguous(memory_format=torch.channels_last)
        if self._is((1, 1), (0, 0)):
            return _pixelwise(x, self.weight, self.bias)
        if self._is((3, 3), (1, 1)) and winograd_training.pays(x, self.weight):
            return winograd_training.winograd_conv(x, self.weight, self.bias)
        return super().forward(x)

    def resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize (N, C, h, w) bilinearly to ``size`` and convolve."""
        if self._fast(x) and self._is((3, 3), (1, 1)) and resized_conv.pays(x, self.weight, size):
            return resized_conv.resized_conv(x, self.weight, self.bias, size)
        return self.forward(interpolate(x, size, mode="bilinear"))

    def _fast(self, x: Tensor) -> bool:
        """Return whether gradients are computed in float32 on a CPU."""
        plain = x.device.type == "cpu" and x.dtype == self.weight.dtype == torch.float32
        return (
            plain and x.ndim == 4 and self.training and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        )

    def _is(self, kernel: tuple[int, int], padding: tuple[int, int]) -> bool:
        """Return whether this is a convolution of stride 1 with such a kernel, in one group, padded by zeros."""
        plain = self.stride == self.dilation == (1, 1) and self.groups == 1 and self.padding_mode == "zeros"
        return plain and self.kernel_size == kernel and self.padding == padding


def conv_resized(conv: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) bilinearly to ``size`` (H, W) and apply a convolution."""
    if isinstance(conv, FastConv2d):
        return conv.resized(x, size)
    out: Tensor = conv(interpolate(x, size, mode="bilinear"))
    return out


@contextmanager
def fast_convolutions(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Make the convolutions of a model :class:`FastConv2d` within the block, if it is trained on a CPU.

    Parameters, their names and the saved weights stay the same.
    """
    convs = [m for m in model.modules() if type(m) is nn.Conv2d] if device.type == "cpu" and available() else []
    for conv in convs:
        conv.__class__ = FastConv2d
    try:
        yield
    finally:
        for conv in convs:
            conv.__class__ = nn.Conv2d


def _pixelwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve (N, C, h, w) in the channels-last format by (K, C, 1, 1), with the pixels divided among more images."""
    n, channels, h, w = x.shape
    pixels = n * h * w
    images = next((m for m in range(_BATCH, _MOST) if pixels % m == 0), n)
    if n >= _BATCH or images == n:
        return conv2d(x, weight, bias)
    out = conv2d(x.movedim(1, -1).reshape(images, 1, -1, channels).movedim(-1, 1), weight, bias)
    return out.movedim(1, -1).reshape(n, h, w, -1).movedim(-1, 1)
