"""Convolutions and linear layers of oneDNN for inference: weights in its own layout, activations computed in place.

torch reorders the weights of a convolution at every call, writes the output before an activation reads it again, and
passes linear layers to another library. These layers call the operators that ``torch.compile`` uses, without a compiler.
"""

from typing import Any

import torch
from torch import Tensor, nn

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
_USUAL_SIZE = 28
"""Height and width for which the layout of the weights of a convolution is chosen; any size may follow."""
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}


def available() -> bool:
    """Return whether this build of torch has the operators."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", "_linear_pointwise")
    )


def can_follow(layer: nn.Module) -> bool:
    """Return whether a convolution can compute the layer that follows it."""
    return type(layer) in _ACTIVATIONS


class PackedConv(nn.Module):
    """A convolution, and the activation after it, in the channels-last memory format.

    Args:
        conv: The convolution to replace, see :func:`suits`.
        activation: The layer after it, see :func:`can_follow`; None for none.
        dtype: Type of input, weights and output: float32 or bfloat16.

    Attributes:
        weight: The kernel, in the original layout and type.
        bias: As in ``conv``.
        activation: The activation.
    """

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, activation: nn.Module | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.bias, self.activation = conv.weight, conv.bias, activation
        self._settings = conv.padding, conv.stride, conv.dilation, conv.groups
        self._activation = _ACTIVATIONS[type(activation)] if activation is not None else ("none", [])
        self._dtype, self._format = dtype, _FORMATS[conv.weight.ndim]
        size = [1, conv.in_channels, *[_USUAL_SIZE] * (conv.weight.ndim - 2)]
        weight = conv.weight.detach().to(dtype).contiguous(memory_format=self._format)
        # Plain attributes: packed tensors can be neither saved nor converted.
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self._packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._settings, size)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, ...)."""
        x = x.to(self._dtype).contiguous(memory_format=self._format)
        operator = torch.ops.mkldnn._convolution_pointwise
        out: Tensor = operator(x, self._packed, self._bias, *self._settings, *self._activation, "")
        return out


class PackedLinear(nn.Module):
    """A linear layer.

    Args:
        weight: (outputs, inputs).
        bias: (outputs,), or None.
        dtype: Type of input, weights and output: float32 or bfloat16.

    Attributes:
        weight: As given.
        bias: As given.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.bias, self._dtype = weight, bias, dtype
        self._bias = None if bias is None else bias.detach().to(dtype)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        x = x.to(self._dtype).contiguous()
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return out


def suits(layer: nn.Module) -> bool:
    """Return whether :class:`PackedConv` or :class:`PackedLinear` can replace a module."""
    if type(layer) is nn.Linear:
        return True
    conv: Any = layer
    return type(layer) in (nn.Conv2d, nn.Conv3d) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def packed(layer: Any, activation: nn.Module | None, dtype: torch.dtype) -> nn.Module:
    """Return the replacement of a layer that :func:`suits`."""
    if isinstance(layer, nn.Linear):
        return PackedLinear(layer.weight, layer.bias, dtype)
    return PackedConv(layer, activation, dtype)
