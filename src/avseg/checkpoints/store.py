"""Save and load models: a folder with ``model.safetensors`` and ``avseg.json``, the card that describes them."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise

from avseg.checkpoints.download import download
from avseg.checkpoints.state import fit, read_state
from avseg.devices import find_device, move
from avseg.documents import check_fields, is_count, is_list_of, is_text, read_json
from avseg.errors import CheckpointError, ConfigError, did_you_mean
from avseg.files import replacing, sha256
from avseg.interface import AVSModel
from avseg.models import build
from avseg.registry import is_class_path

CARD = "avseg.json"
WEIGHTS = "model.safetensors"
EXPORTED = ".onnx"
"""End of the name of an exported model."""
_MOST_BYTES = 1 << 24
"""Largest card in bytes; those of avseg have about 3 kB."""
_MOST_CLASSES = 256
"""Largest K: masks are images of 8 bits."""
_MOST_FRAMES, _LONGEST_SIDE = 1_000, 8_192
"""Largest clip and frame that a card can ask a prediction for."""


def save(model: AVSModel, folder: str | Path, *, half: bool = False, **card: Any) -> Path:
    """Write the weights, config and number of classes of a model to a folder for :func:`load`.

    Args:
        model: The model.
        folder: Created if missing. Each of the two files is replaced atomically, see :func:`avseg.files.replacing`.
        half: Write floating-point tensors with 16 bits: half the size, with an error that is negligible in inference.
        **card: Further JSON-able fields of the card: ``data``, ``class_names``, ``metrics``, ``commit`` …

    Returns:
        The folder.

    Raises:
        OSError: When the folder cannot be written.
    """
    folder = Path(folder)
    card = {"model": model.name, "classes": model.classes, "config": dataclasses.asdict(model.config), **card}
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    with replacing(folder / CARD) as text, replacing(folder / WEIGHTS) as weights:  # none is replaced if one fails
        # Python creates the file with the usual permissions; safetensors would make it private.
        weights.write_bytes(serialise(state, metadata={"format": "pt"}))
        text.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def bundled() -> list[str]:
    """Return the names of the models in the package."""
    return sorted(p.name for p in files("avseg").joinpath("weights").iterdir() if p.joinpath(CARD).is_file())


def read_card(folder: str | Path) -> dict[str, Any]:
    """Read the card of a saved model.

    Raises:
        CheckpointError: When the folder has no card, it cannot be read, or a field has another type than avseg writes.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no {CARD}: give a folder written by avseg train or avseg convert")
    return check_card(path)


def check_card(path: Path) -> dict[str, Any]:
    """Read a file in the format of a card.

    Raises:
        CheckpointError: When it cannot be read, or a field has another type than avseg writes.
    """
    card = read_json(path, CheckpointError, "a card of avseg", most_bytes=_MOST_BYTES)
    if not isinstance(card, dict) or not {"model", "classes", "config"} <= set(card):
        raise CheckpointError(f"{path} lacks model, classes or config: it is not a card of avseg")
    check_fields(card, _CARD_FIELDS, path, CheckpointError)
    data, names = card.get("data") or {}, card.get("class_names")
    check_fields(data, _DATA_FIELDS, path, CheckpointError)
    expected = max(card["classes"], 2)
    if names is not None and len(names) != expected:
        raise CheckpointError(f"{path} names {len(names)} classes, expected {expected}: the background and its classes")
    return dict(card)


def _is_size(value: object) -> bool:
    """Return whether a value is None, a height and width in pixels, or one number for both."""
    sides = value if isinstance(value, list) and len(value) == 2 else [value]
    return value is None or all(side == 0 or is_count(side, _LONGEST_SIDE) for side in sides)


def _is_object(value: object) -> bool:
    return value is None or isinstance(value, dict)


_CARD_FIELDS = {
    "model": (is_text, "the name of a model"),
    "classes": (lambda value: is_count(value, _MOST_CLASSES), f"a number from 1 to {_MOST_CLASSES}"),
    "config": (lambda value: isinstance(value, dict), "an object"),
    "class_names": (lambda value: value is None or is_list_of(value, is_text), "a list of names, or null"),
    "data": (_is_object, "an object, or null"),
    "metrics": (_is_object, "an object, or null"),
    "train": (_is_object, "an object, or null"),
}
"""Fields of a card that avseg reads; all but the first three may be missing."""
_DATA_FIELDS = {
    "name": (lambda value: value is None or is_text(value), "the name of a data set"),
    "frames": (lambda value: value is None or is_count(value, _MOST_FRAMES), f"a number from 1 to {_MOST_FRAMES}"),
    "size": (_is_size, f"a number of pixels from 0 to {_LONGEST_SIDE}, or two"),
}
"""Fields of ``data`` that a prediction reads."""


def load(
    name_or_path: str | Path,
    device: torch.device | str = "cpu",
    *,
    revision: str | None = None,
    token: str | bool | None = None,
) -> AVSModel:
    """Return a model with its weights, in evaluation mode, its card as ``model.card``.

    Args:
        name_or_path: A bundled name such as ``small``, a folder that avseg wrote or a file in it, a Hub id, or a file
            ``*.onnx`` of ``avseg export``, which runs with ONNX Runtime on the CPU.
        device: Device of the weights: ``"cpu"``, ``"cuda"``, ``"mps"`` …, or ``"auto"`` for the fastest one.
        revision: Branch, tag or commit of a Hub id.
        token: Access token for a private Hub id; None takes the one of ``hf auth login``.

    Raises:
        CheckpointError: When the model cannot be found or read, or does not fit, or ``revision`` is given for a model
            that is not from the Hub.
        ConfigError: When the device cannot be used, or a file ``*.onnx`` is given without ONNX Runtime.
    """
    if not isinstance(name_or_path, str | Path):
        kind = type(name_or_path).__name__  # type: ignore[unreachable]
        raise CheckpointError(f"a model must be a bundled name, a path or a Hub id, as str or Path, got {kind}")
    found = find_device(device)
    name = str(name_or_path)
    if name.endswith(EXPORTED) and Path(name).is_file():
        return _load_exported(Path(name), torch.device("cpu") if device == "auto" else found)
    model = _load_local(name)
    if model is None:
        folder = _from_hub(name, revision, token)
        _refuse_import(read_card(folder), name)
        model = _load_folder(folder)
    elif revision is not None:
        raise CheckpointError(f"{name} is not read from the Hub and has no revision {revision!r}: leave revision out")
    return move(model, device)


def _load_exported(path: Path, device: torch.device) -> AVSModel:
    """Return a model exported by ``avseg export``, with the same card."""
    from avseg.export.read import CARD_SUFFIX, OnnxModel, check_export

    if device.type != "cpu":
        raise ConfigError(f"{path} runs on the CPU, not on {device}: choose device cpu, or give the torch model")
    card_path = path.with_name(path.name + CARD_SUFFIX)
    if not card_path.is_file():
        raise CheckpointError(f"{path} has no {card_path.name} beside it: copy both files that avseg export wrote")
    card = check_card(card_path)
    _refuse_import(card, str(path))
    check_export(card, path)
    model = OnnxModel(card, path)
    model.weights_sha256 = sha256(path)
    return model


def _load_local(name: str) -> AVSModel | None:
    """Return a bundled model or one from a path; None if the name can only be a Hub id."""
    path = Path(name)
    if name in bundled():
        with as_file(files("avseg").joinpath("weights", name)) as folder:
            return _load_folder(folder)
    if path.is_dir():
        return _load_folder(path)
    if path.is_file():
        if not (path.parent / CARD).is_file():
            raise CheckpointError(f"{path} has no {CARD} beside it. A release's file goes through avseg convert first")
        return _load_folder(path.parent, path)
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return None
    raise CheckpointError(
        f"no model {name!r}: no bundled name, folder, file or Hub id. {did_you_mean(name, bundled())}"
    )


def _from_hub(repository: str, revision: str | None, token: str | bool | None) -> Path:
    from huggingface_hub import snapshot_download

    return download(repository, snapshot_download, revision=revision, token=token, allow_patterns=[CARD, WEIGHTS])


def _refuse_import(card: Mapping[str, Any], repository: str) -> None:
    """Refuse a card that names a class in a module that is not imported: its author may be anybody."""
    name = str(card["model"])
    if is_class_path(name) and name.partition(":")[0] not in sys.modules:
        raise CheckpointError(
            f"{repository} names the class {name}, which no installed package registers: import it first, if you trust "
            "its module"
        )


def _load_folder(folder: Path, file: Path | None = None) -> AVSModel:
    """Return the model of a folder, with the weights of ``file`` instead of its own if it is given."""
    card, weights = read_card(folder), file or folder / WEIGHTS
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in card["config"].items()}
    model = build(card["model"], card["classes"], **config)
    fit(model, read_state(weights), str(folder))
    model.card, model.weights_sha256 = card, sha256(weights)
    return model.eval()


def is_model(source: str) -> bool:
    """Return whether ``source`` is a bundled name, or a folder written by ``avseg train`` or ``avseg convert``."""
    return source in bundled() or (Path(source) / CARD).is_file()


def take_part(model: AVSModel, part: str, source: str) -> None:
    """Copy the weights of one part, such as the backbone, from a trained model of any kind.

    Args:
        model: The model to copy to.
        part: The attribute that holds the part in both models.
        source: See :func:`load`.

    Raises:
        CheckpointError: When the source cannot be loaded, one of the models lacks the part, or the parts differ.
    """
    donor = load(source)
    for owner, who in ((model, "the model to train"), (donor, source)):
        if not hasattr(owner, part):
            raise CheckpointError(f"{who} is a {owner.name}, which has no part {part!r}")
    fit(getattr(model, part), getattr(donor, part).state_dict(), f"{part} of {source}")


def start_from(model: AVSModel, source: str) -> list[str]:
    """Copy the weights of a trained model of the same kind, which may have other classes or settings.

    Args:
        model: The model to copy to.
        source: See :func:`load`.

    Returns:
        Keys that are missing from the source or have another shape there: these tensors are not changed.

    Raises:
        CheckpointError: When the source cannot be loaded, is of another kind, or shares no tensor.
    """
    donor = load(source)
    if donor.name != model.name:
        raise CheckpointError(f"{source} is a {donor.name}, the model to train a {model.name}: they share no weights")
    theirs, ours = donor.state_dict(), model.state_dict()
    shared = {k: v for k, v in theirs.items() if k in ours and v.shape == ours[k].shape}
    if not shared:
        raise CheckpointError(f"{source} has no weights of the shapes of the model to train: check channels and visual")
    model.load_state_dict(shared, strict=False)
    return [k for k in ours if k not in shared]
