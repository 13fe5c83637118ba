"""Read state dicts safely, and load them into modules."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from avseg.errors import CheckpointError
from avseg.interface import Source


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` or torch file without running code from it.

    A dictionary with the state dict under ``model``, ``state_dict`` or ``module`` is unwrapped, and the prefix of
    DataParallel is removed from keys.

    Raises:
        CheckpointError: When the file is missing, unreadable, or contains anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}: give the path of a .pth or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} has no plain tensors that can be read safely: {read_failure(error)}") from error
    for wrapper in ("model", "state_dict", "module"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} is no state dict: expected a mapping from names to tensors")
    return strip_parallel(state)


def read_failure(error: Exception) -> str:
    """Return the reason for which ``torch.load`` or safetensors cannot read a file, in one line.

    The advice of torch to read the file without protection is left out.
    """
    text = str(error).strip()
    if isinstance(error, UnpicklingError):
        forbidden = re.search(r"GLOBAL (\S+)|(?:Unsupported|Blocklisted) \w+:? ?(\S+)", text)
        found = (
            next((group for group in forbidden.groups() if group), "other objects") if forbidden else "other objects"
        )
        return f"it holds {found}, which may run code; only tensors and plain values are read"
    if isinstance(error, EOFError | KeyError | IndexError | RecursionError):
        return "it is damaged or cut off"
    return " ".join(text.partition("\n")[0].split())[:160] or type(error).__name__


def strip_parallel(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the prefix ``module.`` of DataParallel."""
    prefix = "module." if all(k.startswith("module.") for k in state) else ""
    return {k[len(prefix) :]: v for k, v in state.items()}


def fit(
    module: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    *,
    source: Callable[[str], Source] = Source,
    unused: tuple[str, ...] = (),
) -> None:
    """Load ``state`` into ``module``, completely or not at all.

    Args:
        module: Module to load into.
        state: The tensors.
        what: Name of the weights for the error message.
        source: Function from a key of the module to the location of its tensor in ``state``.
        unused: Prefixes of keys that may remain unused, such as the head of another task.

    Raises:
        CheckpointError: With the missing, unexpected and wrongly shaped keys, as named in ``state``, or those of
            tensors that hold NaN or infinity.
    """
    own = module.state_dict()
    sources = {k: source(k) for k in own}
    # Counters of batch norm are missing in old files and not used in evaluation.
    missing = {s.key for k, s in sources.items() if s.key not in state and not k.endswith("num_batches_tracked")}
    unexpected = {k for k in state if not k.startswith(unused)} - {s.key for s in sources.values()}
    taken = {k: _take(state[s.key], s.half) for k, s in sources.items() if s.key in state}
    wrong = {
        f"{sources[k].key} {tuple(v.shape)} ≠ {tuple(own[k].shape)}"
        for k, v in taken.items()
        if v.shape != own[k].shape
    }
    kinds = (("missing", missing), ("unexpected", unexpected), ("wrongly shaped", wrong))
    if any(keys for _, keys in kinds):
        text = "; ".join(f"{len(keys)} {kind}: {_few(sorted(keys))}" for kind, keys in kinds if keys)
        raise CheckpointError(f"{what} does not fit {type(module).__name__}: {text}")
    if broken := [sources[k].key for k, v in taken.items() if not v.isfinite().all()]:
        raise CheckpointError(
            f"{what} has NaN or infinite weights in {_few(sorted(broken))}: its training diverged or the file is "
            "damaged, take an earlier checkpoint"
        )
    module.load_state_dict(taken, strict=False)


def _take(tensor: Tensor, half: int | None) -> Tensor:
    if half is None:
        return tensor
    rows = tensor.shape[0] // 2
    return tensor[half * rows : (half + 1) * rows]


def _few(keys: list[str], limit: int = 6) -> str:
    return ", ".join(keys[:limit]) + (f", … {len(keys) - limit} more" if len(keys) > limit else "")
