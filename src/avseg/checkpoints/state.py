"""State dicts: read without running code, and loaded into modules."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from avseg.errors import CheckpointError
from avseg.interface import Source


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a torch file, which cannot run code here.

    A dictionary that wraps the state dict under ``model``, ``state_dict`` or ``module`` is opened, and the prefix
    that DataParallel puts on every key is dropped.

    Raises:
        CheckpointError: When the file is missing, unreadable, or holds anything but tensors.
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
        # Whatever a broken or hostile file provokes: the first line says enough.
        reason = str(error).strip().partition("\n")[0][:160]
        raise CheckpointError(f"{path} holds no plain tensors that can be read safely: {reason}") from error
    for wrapper in ("model", "state_dict", "module"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} is no state dict: expected names of tensors, and tensors")
    return strip_parallel(state)


def strip_parallel(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the ``module.`` that DataParallel puts before every key."""
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
    """Load ``state`` into ``module``, all of it or nothing.

    Args:
        module: Takes the weights.
        state: The tensors.
        what: Named in the error.
        source: Key of the module → where its tensor is in ``state``; errors speak in the names of ``state``.
        unused: Prefixes of keys that may be left over, such as another task's head.

    Raises:
        CheckpointError: With the missing, unexpected and wrongly shaped keys.
    """
    own = module.state_dict()
    sources = {k: source(k) for k in own}
    # Counters of batch norm are absent in old files and mean nothing in evaluation.
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
    module.load_state_dict(taken, strict=False)


def _take(tensor: Tensor, half: int | None) -> Tensor:
    if half is None:
        return tensor
    rows = tensor.shape[0] // 2
    return tensor[half * rows : (half + 1) * rows]


def _few(keys: list[str], limit: int = 6) -> str:
    return ", ".join(keys[:limit]) + (f", … {len(keys) - limit} more" if len(keys) > limit else "")
