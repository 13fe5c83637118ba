"""Faster forms of a model for inference: folded batch norms, Winograd convolutions, gated decoding, bfloat16.

=========  ==========================================================================================
mode       effect
=========  ==========================================================================================
``exact``  Batch norms are folded into convolutions; on a CPU, layers keep their weights in the layout of
           oneDNN (:mod:`avseg.nn.packed`), and wide 3 × 3 convolutions use :mod:`avseg.nn.winograd`.
           Logits differ by rounding only.
``gated``  ``exact``, and the finest stage of the decoder computes uncertain pixels only (PCMANet).
``bf16``   ``exact`` without Winograd, and convolutions and matrix products run in bfloat16 (autocast).
=========  ==========================================================================================
"""

import copy
import platform
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from avseg.errors import AvsegWarning, ConfigError, did_you_mean
from avseg.interface import AVSModel
from avseg.nn.packed import available, can_follow, packed, suits
from avseg.nn.winograd import Winograd
from avseg.nn.winograd import suits as suits_winograd

Mode = Literal["exact", "gated", "bf16"]
Precision = Literal["float32", "bf16"]

_SLOW_BF16 = (
    "this processor has no bfloat16 instructions: bf16 is emulated, which is slower than float32; "
    "choose float32 (--precision float32)"
)
_NAMED_PAIRS = (("conv", "norm"), ("convolution", "normalization"))
"""Attributes of a convolution and of the batch norm that follows it, in ``ConvNorm`` and in transformers' ResNet."""
_WITH_PAIRS = ("ConvNorm", "ResNetConvLayer", "ResNetShortCut")


def optimize(
    model: AVSModel,
    mode: Mode | Sequence[Mode] = "exact",
    *,
    confidence: float | None = None,
    inplace: bool = False,
) -> AVSModel:
    """Return a copy of a model that predicts faster, in evaluation mode, without gradients.

    Args:
        model: Is not changed unless ``inplace``. The result cannot be trained or saved.
        mode: ``"exact"``, ``"gated"``, ``"bf16"``, or several, such as ``("gated", "bf16")``; ``exact`` is always
            included. See :mod:`avseg.fast_paths`. ``bf16`` warns on a processor without bfloat16 instructions, where
            it is slower than float32.
        confidence: With ``gated``, the probability in 0.5 … 1 above which a pixel is certain; None takes c of the
            model. A higher value computes more pixels.
        inplace: Change and return ``model`` itself, which saves the memory of a copy.

    Raises:
        ConfigError: When a mode does not exist or does not apply to the model, when ``confidence`` is given without
            ``gated``, or when the model is optimized already.
    """
    modes = _checked(model, mode, confidence)
    fast = (model if inplace else copy.deepcopy(model)).eval().requires_grad_(False)
    if "gated" in modes:
        fast.gate(confidence)  # first: it may refuse the model
    _fold(fast)
    if dtype_of(fast) == torch.float32:
        if "bf16" in modes:
            if not has_bf16(device_of(fast)):
                warnings.warn(_SLOW_BF16, AvsegWarning, stacklevel=2)
            autocast = torch.autocast(device_of(fast).type, torch.bfloat16)
            fast.forward = autocast(fast.forward)  # type: ignore[method-assign]
        if device_of(fast).type == "cpu":
            _pack(fast, torch.bfloat16 if "bf16" in modes else torch.float32)
    fast.optimized = modes
    return fast


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the type of the weights of a model, which its input must have; float32 for a model without weights."""
    return next(model.parameters(), torch.empty(0)).dtype


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the weights of a model; the CPU for a model without weights."""
    return next(model.parameters(), torch.empty(0)).device


def has_bf16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 itself; other processors emulate it. All but the CPU count."""
    if device.type != "cpu":
        return True
    # On x86, oneDNN reports support with AVX-512 alone, where bf16 takes twice the time of float32.
    if platform.machine() in ("x86_64", "AMD64") and hasattr(torch.cpu, "_is_avx512_bf16_supported"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _checked(model: AVSModel, mode: Mode | Sequence[Mode], confidence: float | None) -> tuple[str, ...]:
    """Return the modes in the order of :data:`Mode`, ``exact`` included."""
    given = (mode,) if isinstance(mode, str) else tuple(mode)
    for name in given:
        if name not in get_args(Mode):
            raise ConfigError(f"unknown mode {name!r} of optimize. {did_you_mean(str(name), get_args(Mode))}")
    if confidence is not None and "gated" not in given:
        raise ConfigError(f"confidence = {confidence} applies to mode 'gated' only: add that mode, or leave it out")
    if model.optimized:
        raise ConfigError(f"the model is optimized already ({', '.join(model.optimized)}): give the original model")
    return tuple(name for name in get_args(Mode) if name == "exact" or name in given)


def _fold(model: nn.Module) -> None:
    """Fold each batch norm that directly follows a convolution into it, in place."""
    for owner in list(model.modules()):
        for conv_name, norm_name in _pairs(owner):
            conv, norm = getattr(owner, conv_name), getattr(owner, norm_name)
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats:
                setattr(owner, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(owner, norm_name, nn.Identity())


def _pairs(owner: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of each convolution in a module and of the layer applied to its output."""
    if isinstance(owner, nn.Sequential):
        for (first, layer), (second, _) in pairwise(owner.named_children()):
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                yield first, second
    elif type(owner).__name__ in _WITH_PAIRS:
        yield from (pair for pair in _NAMED_PAIRS if hasattr(owner, pair[0]) and hasattr(owner, pair[1]))


def _pack(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace the layers that :func:`avseg.nn.packed.suits`, with the activations that follow them, in place."""
    if not available(dtype):
        return
    for owner in list(model.modules()):
        following = dict(_activations(owner))
        children: list[tuple[str, Any]] = list(owner.named_children())
        for name, layer in children:
            if suits(layer):
                after = following.get(name)
                activation = getattr(owner, after) if after else None
                fast = dtype == torch.float32 and suits_winograd(layer)
                setattr(owner, name, Winograd(layer, activation) if fast else packed(layer, activation, dtype))
                if after:
                    setattr(owner, after, nn.Identity())


def _activations(owner: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of convolutions in a module and of activations that only read their outputs."""
    if isinstance(owner, nn.Sequential):
        layers = [(name, layer) for name, layer in owner.named_children() if not isinstance(layer, nn.Identity)]
        names = [(first, second) for (first, _), (second, _) in pairwise(layers)]
    elif type(owner).__name__ == "ResNetConvLayer":
        names = [("convolution", "activation")]
    elif type(owner).__name__ == "ConvNorm" and isinstance(owner.norm, nn.Identity):
        names = [("conv", "act")]
    else:
        return
    for conv, activation in names:
        if isinstance(getattr(owner, conv), nn.Conv2d) and can_follow(getattr(owner, activation)):
            yield conv, activation
