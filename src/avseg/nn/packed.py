"""Convolutions and linear layers of oneDNN for inference: weights in its own layout, activations computed in place.

torch reorders the weights of a convolution at every call, writes the output before an activation reads it again, and
passes linear layers to another library. These layers call the operators of ``torch.compile``, without a compiler.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from avseg.nn.efficientnet import SameConv2d

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}


def available(dtype: torch.dtype = torch.float32) -> bool:
    """Return whether this build of torch has the operators, and this processor computes them in a type."""
    operators = ("_convolution_pointwise", "_linear_pointwise")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in operators):
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
        self._padding = cast("tuple[int, ...]", conv.padding)  # not the name of a kind, see suits
        self._settings = conv.stride, conv.dilation, conv.groups
        self._activation = _attributes(activation)
        self._dtype, self._format = dtype, _FORMATS[conv.weight.ndim]
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.groups = conv.groups
        self._packed: tuple[torch.Size, Sequence[int], Tensor] | None = (
            None  # for a size: its layout depends on the input
        )
        self._kernel: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, ...)."""
        x = x.to(self._dtype).contiguous(memory_format=self._format)
        if self._packed is None or self._packed[0] != x.shape[1:]:
            kernel, padding = self._padded(x.shape[2:])
            kernel = kernel.detach().to(self._dtype).contiguous(memory_format=self._format)
            pack = torch.ops.mkldnn._reorder_convolution_weight
            self._packed = x.shape[1:], padding, pack(kernel, padding, *self._settings, [*x.shape])
        _, padding, weight = self._packed
        operator = torch.ops.mkldnn._convolution_pointwise
        out: Tensor = operator(x, weight, self._bias, padding, *self._settings, *self._activation)
        return out

    def _padded(self, size: torch.Size) -> tuple[Tensor, Sequence[int]]:
        """Return the kernel, and the zeros on both sides of each axis of an input of a size."""
        return self.weight, self._padding

    def pixels(self, around: Tensor) -> Tensor:
        """Map the inputs of single outputs, (P, h · w · C) in the order of the channels-last kernel, to (P, K)."""
        around = around.to(self._dtype)
        if self._kernel is None:
            kernel = self.weight.detach().movedim(1, -1).flatten(1).to(self._dtype)
            self._kernel = torch.ops.mkldnn._reorder_linear_weight(kernel, len(around))
        out: Tensor = torch.ops.mkldnn._linear_pointwise(around, self._kernel, self._bias, *self._activation)
        return out


class PackedSameConv(PackedConv):
    """A :class:`PackedConv` whose padding depends on the size of its input.

    An odd number of zeros has its larger half at the end. A leading zero in the kernel makes both halves equal, so that
    the input is not copied.

    Args:
        conv: The convolution to replace.
        activation: The layer after it, see :func:`can_follow`; None for none.
        dtype: Type of input, weights and output: float32 or bfloat16.
    """

    def __init__(self, conv: SameConv2d, activation: nn.Module | None, dtype: torch.dtype) -> None:
        super().__init__(conv, activation, dtype)
        self._total = conv.total_padding

    def _padded(self, size: torch.Size) -> tuple[Tensor, Sequence[int]]:
        down, right = (self._total(axis, length) for axis, length in enumerate(size))
        return pad(self.weight, (right % 2, 0, down % 2, 0)), ((down + 1) // 2, (right + 1) // 2)


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
    return (
        type(layer) in (nn.Conv2d, nn.Conv3d, SameConv2d)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


def packed(layer: Any, activation: nn.Module | None, dtype: torch.dtype) -> nn.Module:
    """Return the replacement of a layer that :func:`suits`."""
    if isinstance(layer, nn.Linear) or (
        {*layer.kernel_size, *layer.stride, layer.groups} == {1} and {*layer.padding} == {0}
    ):
        return PackedLinear(layer, activation, dtype)
    if isinstance(layer, SameConv2d):
        return PackedSameConv(layer, activation, dtype)
    return PackedConv(layer, activation, dtype)
