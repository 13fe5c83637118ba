"""Load models: bundled, from a folder (see :mod:`avseg.model_folder`) or from the Hub; reuse parts of them."""

import sys
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch

from avseg.checkpoints.download import download
from avseg.checkpoints.state import fit, read_state
from avseg.devices import find_device, move
from avseg.errors import CheckpointError, did_you_mean
from avseg.fast_paths import Mode
from avseg.fast_paths import optimize as optimized
from avseg.files import sha256
from avseg.interface import AVSModel
from avseg.model_folder import CARD, WEIGHTS, bundled, check_card, read_card
from avseg.models import build
from avseg.registry import is_class_path

EXPORTED = ".onnx"
"""End of the name of an exported model."""


def load(
    name_or_path: str | Path,
    device: torch.device | str = "cpu",
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    optimize: Mode | Sequence[Mode] | None = None,
) -> AVSModel:
    """Return a model with its weights, in evaluation mode, its card as ``model.card``.

    Args:
        name_or_path: A bundled name such as ``small``, a folder that avseg wrote or a file in it, a Hub id, or a file
            ``*.onnx`` of ``avseg export``, which runs with ONNX Runtime on the CPU.
        device: Device of the weights: ``"cpu"``, ``"cuda"``, ``"mps"`` …, or ``"auto"`` for the fastest one.
        revision: Branch, tag or commit of a Hub id.
        token: Access token for a private Hub id; None takes the one of ``hf auth login``.
        optimize: Modes of :func:`avseg.optimize` to apply; None for the model as it was trained.

    Raises:
        CheckpointError: When the model cannot be found or read, or does not fit, or ``revision`` is given for a model
            that is not from the Hub.
        ConfigError: When the device or a mode of ``optimize`` cannot be used, or ONNX Runtime, which a file ``*.onnx``
            needs, is not installed.
    """
    if not isinstance(name_or_path, str | Path):
        kind = type(name_or_path).__name__  # type: ignore[unreachable]
        raise CheckpointError(f"a model must be a bundled name, a path or a Hub id, as str or Path, got {kind}")
    find_device(device)
    name = str(name_or_path)
    exported = name.endswith(EXPORTED) and Path(name).is_file()
    if exported and device == "auto":
        device = "cpu"  # the only device of an exported file
    model = _load_exported(Path(name)) if exported else _load_local(name)
    if model is None:
        folder = _from_hub(name, revision, token)
        _refuse_import(read_card(folder), name)
        model = _load_folder(folder)
    elif revision is not None:
        raise CheckpointError(f"{name} is not read from the Hub and has no revision {revision!r}: leave revision out")
    model = move(model, device)
    return model if optimize is None else optimized(model, optimize, inplace=True)


def _load_exported(path: Path) -> AVSModel:
    """Return a model exported by ``avseg export``, with the same card."""
    from avseg.export.read import CARD_SUFFIX, OnnxModel, check_export

    card_path = path.with_name(path.name + CARD_SUFFIX)
    if not card_path.is_file():
        raise CheckpointError(f"{path} has no {card_path.name} next to it: copy both files that avseg export wrote")
    card = check_card(card_path)
    _refuse_import(card, str(path))
    check_export(card, path)
    return OnnxModel(card, path)


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
            raise CheckpointError(f"{path} has no {CARD} next to it. A release's file goes through avseg convert first")
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
