"""Measure the cost of one call of a model by part, with a meter that is read at the start and end of each part.

Multiply-accumulates (MACs) are counted in two ways:

- *as papers count* (:func:`paper_macs`), by the rules of ``thop`` 0.0.31: convolutions with their bias, linear layers,
  two per element of a batch norm, adaptive pools. Matrix products inside attention are not counted.
- *all* (:func:`all_macs`): every convolution and matrix product that torch runs, attention included.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from avseg.interface import TRAINING, AVSModel, Clip

OTHER = "other"
"""Name of the submodules that belong to no part of :attr:`AVSModel.parts`."""

Meter = Callable[[], float]
"""Returns the total cost so far."""


def part_of(model: AVSModel, name: str) -> str:
    """Return the part of a submodule or parameter by its dotted name."""
    for part, prefixes in model.parts.items():
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes):
            return part
    return OTHER


def parameters(model: AVSModel) -> dict[str, int]:
    """Return the number of parameters of each part."""
    counts = dict.fromkeys([*model.parts, OTHER], 0)
    for name, parameter in model.named_parameters():
        counts[part_of(model, name)] += parameter.numel()
    return counts


def _inference_parts(model: AVSModel) -> list[str]:
    """Return the parts that run at inference."""
    return [*(part for part in model.parts if part != TRAINING), OTHER]


def spent(model: AVSModel, clip: Clip, meter: Meter) -> dict[str, float]:
    """Return the increase of ``meter`` during one call of the model, by part."""
    total = dict.fromkeys(_inference_parts(model), 0.0)
    before = meter()

    def charge(part: str) -> None:
        nonlocal before
        now = meter()
        total[part] += now - before
        before = now

    with _watched(model, charge):
        model(clip)
    charge(OTHER)
    return total


@contextmanager
def _watched(model: AVSModel, stopped: Callable[[str], None]) -> Iterator[None]:
    """Call ``stopped`` with the name of a part whenever another part starts; nested calls count for the inner part."""
    running = [OTHER]

    def enter(part: str) -> None:
        if part != running[-1]:
            stopped(running[-1])
        running.append(part)

    def leave() -> None:
        part = running.pop()
        if part != running[-1]:
            stopped(part)

    handles = []
    for name, module in model.named_modules():
        # Hooks of module lists, and of modules of which only children are called, never run.
        if (part := part_of(model, name)) not in (OTHER, TRAINING):
            handles.append(module.register_forward_pre_hook(lambda *_, part=part: enter(part)))
            handles.append(module.register_forward_hook(lambda *_: leave()))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def paper_macs(model: nn.Module) -> Iterator[Meter]:
    """Provide a meter of MACs as papers count them."""
    total = 0

    def count(layer: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        nonlocal total
        total += _layer_macs(layer, args[0], out)

    leaves = [m for m in model.modules() if not any(m.children())]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        yield lambda: total
    finally:
        for handle in handles:
            handle.remove()


def _layer_macs(layer: nn.Module, given: Tensor, out: Tensor) -> int:
    """Return the MACs of one call of a layer, by the rules of ``thop`` 0.0.31."""
    if isinstance(layer, _ConvNd):
        inputs = layer.in_channels // layer.groups * torch.Size(layer.kernel_size).numel()
        return out.numel() * (inputs + (layer.bias is not None))
    if isinstance(layer, nn.Linear):
        return out.numel() * layer.in_features
    if isinstance(layer, _BatchNorm):
        return 2 * given.numel()
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        window = given.shape[-2:].numel() // out.shape[-2:].numel()
        return out.numel() * (window + 1)
    return 0


@contextmanager
def all_macs() -> Iterator[Meter]:
    """Provide a meter of the MACs of every convolution and matrix product."""
    # The counter does not support the fused attention of CPUs, but the two matrix products of the plain one.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield lambda: counter.get_total_flops() / 2


def seconds(device: torch.device) -> Meter:
    """Return a meter of time, which synchronises with an accelerator."""

    def read() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


class Gauge(Protocol):
    """Measures peak memory since the last reset."""

    def reset(self) -> None:
        """Reset the peak to the memory in use."""

    def peak(self) -> int:
        """Return the peak in bytes, weights and inputs included."""


def peaks(model: AVSModel, clip: Clip, gauge: Gauge) -> dict[str, int]:
    """Return the peak memory while each part runs, in bytes."""
    most = dict.fromkeys(_inference_parts(model), 0)

    def close(part: str) -> None:
        most[part] = max(most[part], gauge.peak())
        gauge.reset()

    gauge.reset()
    with _watched(model, close):
        model(clip)
    close(OTHER)
    return most


@contextmanager
def memory(model: nn.Module, clip: Clip) -> Iterator[Gauge]:
    """Provide a gauge of memory: of the CUDA allocator, or on other devices of live tensors."""
    if clip.frames.is_cuda:
        yield _CudaMemory(clip.frames.device)
    else:
        with _LiveTensors([*model.parameters(), *model.buffers(), clip.frames, clip.audio, clip.valid]) as gauge:
            yield gauge


class _CudaMemory:
    """Memory handed out by the CUDA allocator of torch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)


class _LiveTensors(TorchDispatchMode):
    """Sum of the tensors that operations returned and that are alive; memory inside kernels is not measured."""

    def __init__(self, alive: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known: set[int] = set()
        self.bytes = self.most = 0
        for tensor in alive:
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return out

    def reset(self) -> None:
        self.most = self.bytes

    def peak(self) -> int:
        return self.most

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if size and address not in self.known:
            self.known.add(address)
            self.bytes += size
            self.most = max(self.most, self.bytes)
            weakref.finalize(storage, self._drop, address, size)

    def _drop(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.bytes -= size


@contextmanager
def forced_keep_ratio(model: nn.Module, ratio: float) -> Iterator[None]:
    """Force token masks, so that the given share of tokens is kept, evenly spread over each frame.

    Every submodule that returns a bool tensor (N, …) is taken for a mask, such as CIM of PCMANet.
    """

    def force(_module: nn.Module, _args: Any, out: Any) -> Tensor | None:
        if not (isinstance(out, Tensor) and out.dtype == torch.bool):
            return None
        taken = (torch.arange(out[0].numel() + 1, device=out.device) * ratio).round()
        return (taken.diff() > 0).view(out.shape[1:]).expand_as(out)

    handles = [module.register_forward_hook(force) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
