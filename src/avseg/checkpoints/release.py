"""Convert checkpoints of the authors' releases to our models, with equal outputs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from avseg.checkpoints.pretrained import load_audio
from avseg.checkpoints.state import fit, read_state, strip_parallel
from avseg.errors import CheckpointError
from avseg.interface import AVSModel
from avseg.model_folder import CARD, WEIGHTS, save
from avseg.models import list_models, model_class

_NOT_YET = {"sem_seg_head.": "a detectron2 model"}
"""Prefix of a key → source of the checkpoint, for recognised formats that cannot be read."""


def from_release(state_dict_or_path: Mapping[str, Tensor] | str | Path, vggish: str | None = None) -> AVSModel:
    """Build a model from a checkpoint of an authors' release, in evaluation mode.

    Model, backbone, groups and classes are recognised from keys and shapes. Settings in which the release differs from
    its paper follow the release; tensors that the release does not use are dropped.

    Args:
        state_dict_or_path: The state dict, or a ``.pth`` or ``.safetensors`` file with it.
        vggish: File or Hub id of the weights of VGGish, which no release contains. Without it the model takes audio
            embeddings (B, T, 128) instead of log-mel.

    Raises:
        CheckpointError: When the checkpoint is not recognised, or keys do not fit.
    """
    if isinstance(state_dict_or_path, Mapping):
        what, state = "this state dict", strip_parallel(state_dict_or_path)
    else:
        what, state = str(state_dict_or_path), read_state(state_dict_or_path)
    for name in list_models():
        adopted = model_class(name).adopt(state)
        if adopted is not None:
            model = model_class(name)(adopted.config, adopted.classes)
            fit(model, state, what, source=adopted.source, unused=adopted.unused)
            return _with_vggish(model, vggish) if vggish else model.eval()
    raise CheckpointError(_unknown(what, state))


def _with_vggish(model: AVSModel, vggish: str) -> AVSModel:
    """Return the model with VGGish as its audio encoder."""
    complete = type(model)(replace(model.config, audio="vggish"), model.classes)
    load_audio(complete, vggish)
    complete.load_state_dict(model.state_dict(), strict=False)
    return complete.eval()


def _unknown(what: str, state: Mapping[str, Tensor]) -> str:
    for prefix, name in _NOT_YET.items():
        if any(k.startswith(prefix) for k in state):
            return f"{what} is a checkpoint of {name}: avseg reads those of {', '.join(list_models())}"
    return (
        f"{what} is no released checkpoint of {', '.join(list_models())}: among its {len(state)} keys "
        f"are {', '.join(sorted(state)[:3])}"
    )


def convert(file: Path, output: Path, vggish: str | None = None) -> Path:
    """Convert a checkpoint of an authors' release to a folder for :func:`avseg.load`.

    Args:
        file: The .pth file of the authors.
        output: Folder to write; it must contain neither avseg.json nor model.safetensors.
        vggish: File or Hub id of the weights of VGGish, for a model that takes log-mel instead of embeddings.

    Returns:
        The folder.

    Raises:
        CheckpointError: When the file is not recognised or does not fit, or the folder contains a model
            or its weights.
    """
    for name in (CARD, WEIGHTS):
        if (output / name).exists():
            raise CheckpointError(f"{output} already contains {name}: choose another folder")
    model = from_release(file, vggish)
    return save(model, output, source=file.name, class_names=None)
