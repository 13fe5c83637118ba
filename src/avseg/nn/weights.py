"""Pretrained weights of backbones, by Hub id or local path. Nothing else reads them, no constructor does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from avseg.errors import CheckpointError
from avseg.interface import AVSModel, Source
from avseg.nn.audio import AudioEncoder
from avseg.nn.visual import VisualBackbone, original_source


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


def _file(source: str, hub_file: str) -> Path:
    """A local path as it is, or the file of that name of a Hub repository.

    Raises:
        CheckpointError: When neither can be had.
    """
    if Path(source).exists():
        return Path(source)
    if source.count("/") != 1:
        raise CheckpointError(f"no weights at {source}: give a file, or a Hub id such as owner/name")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source, hub_file))
    except Exception as error:
        # The Hub client raises a dozen kinds: offline, unknown repository, no such file, no permission.
        raise CheckpointError(
            f"{source} is no local file, and the Hub says: {str(error).strip().splitlines()[0]}"
        ) from error


def load_visual(model: AVSModel, source: str = "default") -> None:
    """ImageNet weights for ``model.visual``.

    Args:
        model: With a :class:`~avseg.nn.visual.VisualBackbone` as ``visual``.
        source: A Hub id with transformers' weights, a file of torchvision's ResNet, of the PVT-v2 authors or of
            transformers, or ``default``: the id that belongs to the backbone.

    Raises:
        CheckpointError: When the weights cannot be had or do not fit.
    """
    backbone = model.visual
    if not isinstance(backbone, VisualBackbone):
        raise CheckpointError(f"{model.name} has no visual backbone to load weights into")
    state = read_state(_file(backbone.hub if source == "default" else source, "model.safetensors"))
    name = model.config.visual
    state = {k.removeprefix("resnet.").removeprefix("pvt_v2."): v for k, v in state.items()}
    if name.startswith("swin"):
        # Norms of each stage exist in detection models alone; they start as the identity.
        norms = {k.removeprefix("net."): v for k, v in backbone.state_dict().items() if "hidden_states_norms" in k}
        state = norms | state
    of_transformers = any(k.startswith(("embedder.", "encoder.", "swin.")) for k in state)

    def locate(key: str) -> Source:
        return Source(key.removeprefix("net.")) if of_transformers else original_source(name, key)

    fit(
        backbone,
        state,
        source,
        source=locate,
        unused=("classifier.", "fc.", "head.", "swin.layernorm.", "swin.pooler."),
    )


def load_audio(model: AVSModel, source: str) -> None:
    """AudioSet weights for ``model.audio``.

    Args:
        model: With an :class:`~avseg.nn.audio.AudioEncoder` as ``audio``.
        source: ``vggish-10086976.pth`` of the public PyTorch port, or a Hub id that holds a file of that name.

    Raises:
        CheckpointError: When the weights cannot be had or do not fit.
    """
    encoder = model.audio
    if not isinstance(encoder, AudioEncoder) or encoder.net is None:
        raise CheckpointError(f"{model.name} has no audio encoder to load weights into")
    state = read_state(_file(source, "vggish-10086976.pth"))
    fit(encoder.net, state, source, unused=("pproc.",))
