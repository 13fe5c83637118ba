"""Faster layers for training on a CPU in float32. Outputs and gradients differ by rounding only.

==============================================  =====================================================================
layer                                           computed
==============================================  =====================================================================
all convolutions                                in the channels-last memory format
1 × 1                                           by oneDNN; for less than 16 frames on one thread torch calls a slower
                                                library
3 × 3 with many channels                        by Winograd's filtering, :mod:`avseg.nn.winograd_training`
3 × 3 of an enlarged map (:func:`conv_resized`) before enlarging, :mod:`avseg.nn.resized_conv`
batch norm                                      with exact sums, :mod:`avseg.nn.channels_last_norm`
==============================================  =====================================================================
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from avseg.nn import resized_conv, winograd_training
from avseg.nn.channels_last_norm import batch_norm
from avseg.nn.packed import available

_BATCH = 16
"""Number of images from which torch passes convolutions of one pixel to oneDNN on one thread too."""
_MOST = 256
"""Largest number of images into which pixels are divided."""


class FastConv2d(nn.Conv2d):
    """A convolution with faster forms in training; otherwise, such as in evaluation mode, it is :class:`nn.Conv2d`."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, h, w)."""
        if not _fast(self, input):
            return super().forward(input)
        x = input.contiguous(memory_format=torch.channels_last)
        if self._is((1, 1), (0, 0)):
            return _pixelwise(x, self.weight, self.bias)
        if self._is((3, 3), (1, 1)) and winograd_training.pays(x, self.weight):
            return winograd_training.winograd_conv(x, self.weight, self.bias)
        return super().forward(x)

    def resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize (N, C, h, w) bilinearly to ``size`` and convolve."""
        if _fast(self, x) and self._is((3, 3), (1, 1)) and resized_conv.pays(x, self.weight, size):
            return resized_conv.resized_conv(x, self.weight, self.bias, size)
        return self.forward(interpolate(x, size, mode="bilinear"))

    def _is(self, kernel: tuple[int, int], padding: tuple[int, int]) -> bool:
        """Return whether this is a convolution of stride 1 with such a kernel, in one group, padded by zeros."""
        plain = self.stride == self.dilation == (1, 1) and self.groups == 1 and self.padding_mode == "zeros"
        return plain and self.kernel_size == kernel and self.padding == padding


class FastBatchNorm2d(nn.BatchNorm2d):
    """A batch norm with exact statistics in training; otherwise it is :class:`nn.BatchNorm2d`."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, h, w)."""
        last = input.is_contiguous(memory_format=torch.channels_last)
        count = input.numel() // self.num_features
        mean, variance, momentum = self.running_mean, self.running_var, self.momentum
        if mean is None or variance is None or momentum is None or not (self.affine and last and count > 1):
            return super().forward(input)
        if not _fast(self, input):
            return super().forward(input)
        out, found_mean, found_variance = batch_norm(input, self.weight, self.bias, self.eps)
        with torch.no_grad():
            cast("Tensor", self.num_batches_tracked).add_(1)
            mean.lerp_(found_mean, momentum)
            variance.lerp_(found_variance * (count / (count - 1)), momentum)
        return out


def _fast(layer: nn.Conv2d | nn.BatchNorm2d, x: Tensor) -> bool:
    """Return whether a layer is trained in float32 on a CPU."""
    plain = x.device.type == "cpu" and x.dtype == layer.weight.dtype == torch.float32 and x.ndim == 4
    return plain and layer.training and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def conv_resized(conv: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) bilinearly to ``size`` (H, W) and apply a convolution."""
    if isinstance(conv, FastConv2d):
        return conv.resized(x, size)
    out: Tensor = conv(interpolate(x, size, mode="bilinear"))
    return out


_FAST: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: FastConv2d, nn.BatchNorm2d: FastBatchNorm2d}


@contextmanager
def fast_layers(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Make layers :class:`FastConv2d` and :class:`FastBatchNorm2d` within the block, if the model is trained on a CPU.

    Parameters, their names and the saved weights stay the same.
    """
    on_cpu = device.type == "cpu" and available()
    layers = [m for m in model.modules() if type(m) in _FAST] if on_cpu else []
    for layer in layers:
        layer.__class__ = _FAST[type(layer)]
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = type(layer).__bases__[0]


def _pixelwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve (N, C, h, w) in the channels-last format by (K, C, 1, 1), with the pixels divided among more images."""
    n, channels, h, w = x.shape
    pixels = n * h * w
    images = next((m for m in range(_BATCH, _MOST) if pixels % m == 0), n)
    if n >= _BATCH or images == n:
        return conv2d(x, weight, bias)
    out = conv2d(x.movedim(1, -1).reshape(images, 1, -1, channels).movedim(-1, 1), weight, bias)
    return out.movedim(1, -1).reshape(n, h, w, -1).movedim(-1, 1)
