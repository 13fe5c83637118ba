"""Convolutions and linear layers of oneDNN for inference: weights in its own layout, activations computed in place.

torch reorders the weights of a convolution at every call, writes the output before an activation reads it again, and
passes linear layers to another library. These layers call the operators of ``torch.compile``, without a compiler.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}


def available() -> bool:
    """Return whether this build of torch has the operators."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", "_linear_pointwise")
    )


def products(matrices: Tensor, rows: int) -> Callable[[Tensor], Tensor]:
    """Return a function that maps (n, rows, C) to (n, rows, K) by n linear layers.

    Args:
        matrices: (n, K, C), which are copied into the layout of oneDNN.
        rows: Usual number of rows, for which the layout is chosen.
    """
    operators = torch.ops.mkldnn
    packed_matrices = [operators._reorder_linear_weight(m.contiguous(), rows) for m in matrices]

    def multiply(x: Tensor) -> Tensor:
        pairs = zip(x, packed_matrices, strict=True)
        return torch.stack([operators._linear_pointwise(part, m, None, "none", [], "") for part, m in pairs])

    return multiply


def can_follow(layer: nn.Module) -> bool:
    """Return whether a convolution can compute the layer that follows it."""
    return type(layer) in _ACTIVATIONS


class _Packed(nn.Module):
    """A module with weights in the layout of oneDNN, which a copy makes again: they can be neither copied nor saved."""

    _caches = ("_packed", "_kernel", "_multiply")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {name: None for name in self._caches if name in self.__dict__}


class PackedConv(_Packed):
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
        self._activation = _attributes(activation)
        self._dtype, self._format = dtype, _FORMATS[conv.weight.ndim]
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.groups = conv.groups
        self._packed: tuple[torch.Size, Tensor] | None = None  # for a size: its layout depends on the input
        self._kernel: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, ...)."""
        x = x.to(self._dtype).contiguous(memory_format=self._format)
        if self._packed is None or self._packed[0] != x.shape[1:]:
            weight = self.weight.detach().to(self._dtype).contiguous(memory_format=self._format)
            pack = torch.ops.mkldnn._reorder_convolution_weight
            self._packed = x.shape[1:], pack(weight, *self._settings, [*x.shape])
        operator = torch.ops.mkldnn._convolution_pointwise
        out: Tensor = operator(x, self._packed[1], self._bias, *self._settings, *self._activation)
        return out

    def pixels(self, around: Tensor) -> Tensor:
        """Map the inputs of single outputs, (P, h · w · C) in the order of the channels-last kernel, to (P, K)."""
        around = around.to(self._dtype)
        if self._kernel is None:
            kernel = self.weight.detach().movedim(1, -1).flatten(1).to(self._dtype)
            self._kernel = torch.ops.mkldnn._reorder_linear_weight(kernel, len(around))
        out: Tensor = torch.ops.mkldnn._linear_pointwise(around, self._kernel, self._bias, *self._activation)
        return out


class PackedLinear(_Packed):
    """A linear layer, or a convolution of one pixel, and the activation after it.

    Args:
        layer: The layer to replace, see :func:`suits`.
        activation: The layer after it, see :func:`can_follow`; None for none.
        dtype: Type of input, weights and output: float32 or bfloat16.

    Attributes:
        weight: As in ``layer``.
        bias: As in ``layer``.
        activation: The activation.
    """

    def __init__(
        self, layer: nn.Linear | nn.Conv2d | nn.Conv3d, activation: nn.Module | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.activation = layer.weight, layer.bias, activation
        self._activation, self._dtype = _attributes(activation), dtype
        self._channels = -1 if isinstance(layer, nn.Linear) else 1
        self._bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs), or (N, inputs, ...) to (N, outputs, ...)."""
        return self.rows(x.movedim(self._channels, -1)).movedim(-1, self._channels)

    def rows(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        x = x.to(self._dtype).contiguous()
        if self._packed is None:
            weight = self.weight.detach().flatten(1).to(self._dtype)
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, x[..., 0].numel())
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, *self._activation)
        return out


def _attributes(activation: nn.Module | None) -> tuple[str, list[float], str]:
    """Return the arguments of an operator that describe an activation."""
    return (*(_ACTIVATIONS[type(activation)] if activation is not None else ("none", [])), "")


def suits(layer: nn.Module) -> bool:
    """Return whether :class:`PackedConv` or :class:`PackedLinear` can replace a module."""
    if type(layer) is nn.Linear:
        return True
    conv: Any = layer
    return type(layer) in (nn.Conv2d, nn.Conv3d) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def packed(layer: Any, activation: nn.Module | None, dtype: torch.dtype) -> nn.Module:
    """Return the replacement of a layer that :func:`suits`."""
    if isinstance(layer, nn.Linear) or (
        {*layer.kernel_size, *layer.stride, layer.groups} == {1} and {*layer.padding} == {0}
    ):
        return PackedLinear(layer, activation, dtype)
    return PackedConv(layer, activation, dtype)
