"""Checkpoints of the authors' releases become our models, equal in their outputs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from avseg.checkpoints.pretrained import load_audio
from avseg.checkpoints.state import fit, read_state, strip_parallel
from avseg.checkpoints.store import CARD, save
from avseg.errors import CheckpointError
from avseg.interface import AVSModel
from avseg.models import list_models, model_class

_NOT_YET = {"sem_seg_head.": "a detectron2 model"}
"""Prefix of a key → whose checkpoint it is, for those we know and do not read."""


def from_release(state_dict_or_path: Mapping[str, Tensor] | str | Path, vggish: str | None = None) -> AVSModel:
    """The model of a checkpoint of an authors' release, in evaluation mode.

    Model, backbone, groups and classes are recognised from keys and shapes; every choice in which the release
    differs from its paper is set; what the release never ran is dropped.

    Args:
        state_dict_or_path: The state dict, or a ``.pth`` or ``.safetensors`` file with it.
        vggish: File or Hub id of VGGish's weights, which no release contains. Without it the model takes
            audio embeddings (B, T, 128) and no log-mel.

    Raises:
        CheckpointError: When nobody's checkpoint is recognised, or with the keys that do not fit.
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
    """The same model, hearing log-mel through VGGish."""
    hearing = type(model)(replace(model.config, audio="vggish"), model.classes)
    load_audio(hearing, vggish)
    hearing.load_state_dict(model.state_dict(), strict=False)
    return hearing.eval()


def _unknown(what: str, state: Mapping[str, Tensor]) -> str:
    for prefix, name in _NOT_YET.items():
        if any(k.startswith(prefix) for k in state):
            return f"{what} is a checkpoint of {name}, so far avseg reads {', '.join(list_models())}"
    return (
        f"{what} is no released checkpoint of {', '.join(list_models())}: among its {len(state)} keys "
        f"are {', '.join(sorted(state)[:3])}"
    )


def convert(file: Path, output: Path, vggish: str | None = None) -> Path:
    """Write a release's checkpoint as a folder :func:`avseg.load` reads.

    Args:
        file: The authors' .pth file.
        output: Folder to write; it must not hold a model yet.
        vggish: File or Hub id of VGGish's weights, to make a model that hears sound instead of embeddings.

    Returns:
        The folder.

    Raises:
        CheckpointError: When the file is not recognised or does not fit, or the folder is taken.
    """
    if (output / CARD).exists():
        raise CheckpointError(f"{output} already holds a model: choose another folder")
    model = from_release(file, vggish)
    return save(model, output, source=file.name, class_names=None)
