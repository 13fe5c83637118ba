"""Folder of a saved model: ``model.safetensors``, ``avseg.json`` (the card that describes the weights), ``README.md``.

:mod:`avseg.checkpoints.store` builds models from these folders; this file only writes and describes them.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from avseg.documents import check_fields, is_count, is_list_of, is_number, is_text, read_json
from avseg.errors import CheckpointError
from avseg.files import replacing, write_text

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

CARD = "avseg.json"
WEIGHTS = "model.safetensors"
README = "README.md"
_MOST_BYTES = 1 << 24
"""Largest card in bytes; those of avseg have about 3 kB."""
_MOST_CLASSES = 256
"""Largest K: masks are images of 8 bits."""
_MOST_FRAMES, _LONGEST_SIDE = 1_000, 8_192
"""Largest clip and frame that a card may specify."""


class Saveable(Protocol):
    """The members of :class:`avseg.AVSModel` that are saved; that class imports this file."""

    config: Any
    classes: int
    card: dict[str, Any]
    optimized: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the name of the model."""

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors by name."""

    def parameters(self) -> "Iterator[Parameter]":
        """Yield the parameters."""


def save(model: Saveable, folder: str | Path, *, half: bool = False, **card: Any) -> Path:
    """Write the weights, config and number of classes of a model to a folder for :func:`load`.

    Args:
        model: The model.
        folder: Created if missing. Each of the two files is replaced atomically, see :func:`avseg.files.replacing`.
        half: Write floating-point tensors with 16 bits: half the size, with an error that is negligible in inference.
        **card: Further JSON-able fields of the card: ``data``, ``class_names``, ``metrics``, ``commit`` …

    Returns:
        The folder.

    Raises:
        CheckpointError: When the model comes from :func:`avseg.optimize`.
        OSError: When the folder cannot be written.
    """
    if model.optimized:
        raise CheckpointError(f"the model is optimized ({', '.join(model.optimized)}) for inference: save the original")
    from safetensors.torch import save as serialise  # imports torch, which readers of a card do not need

    folder = Path(folder)
    card = {"model": model.name, "classes": model.classes, "config": dataclasses.asdict(model.config), **card}
    state: dict[str, Tensor] = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
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


def folder_of(source: str) -> Path | None:
    """Return the folder of a bundled model, or ``source`` if it is a folder with a card; None for anything else."""
    folder = Path(str(files("avseg").joinpath("weights", source))) if source in bundled() else Path(source)
    return folder if (folder / CARD).is_file() else None


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


def _is_probability(value: Any) -> bool:
    return value is None or (is_number(value) and 0 <= value < 1)


_CARD_FIELDS = {
    "model": (is_text, "the name of a model"),
    "classes": (lambda value: is_count(value, _MOST_CLASSES), f"a number from 1 to {_MOST_CLASSES}"),
    "config": (lambda value: isinstance(value, dict), "an object"),
    "class_names": (lambda value: value is None or is_list_of(value, is_text), "a list of names, or null"),
    "data": (_is_object, "an object, or null"),
    "metrics": (_is_object, "an object, or null"),
    "peak_gate": (_is_probability, "a probability from 0 to below 1, or null"),
    "train": (_is_object, "an object, or null"),
}
"""Fields of a card that avseg reads; all but the first three may be missing."""
_DATA_FIELDS = {
    "name": (lambda value: value is None or is_text(value), "the name of a data set"),
    "frames": (  # a name: the folder of the frames, in the layouts of AVSBench
        lambda value: value is None or is_text(value) or is_count(value, _MOST_FRAMES),
        f"a number from 1 to {_MOST_FRAMES}, or the name of a folder",
    ),
    "size": (_is_size, f"a number of pixels from 0 to {_LONGEST_SIDE}, or two"),
}
"""Fields of ``data`` that a prediction reads."""


def is_model(source: str) -> bool:
    """Return whether ``source`` is a bundled name, or a folder written by ``avseg train`` or ``avseg convert``."""
    return folder_of(source) is not None


def save_pretrained(model: Saveable, folder: str | Path, *, repo_id: str | None = None) -> Path:
    """Write the weights, ``avseg.json`` and a model card to a folder that :func:`avseg.load` reads.

    Args:
        model: The model; what its ``card`` records is written too.
        folder: Created if missing. A ``README.md`` that is already there is kept.
        repo_id: Name of the model in the example on the card; None for that of the folder.

    Returns:
        The folder.

    Raises:
        CheckpointError: When ``folder`` is a file.
        OSError: When the folder cannot be written.
    """
    folder = Path(folder)
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file: give a folder for {WEIGHTS}, {CARD} and {README}")
    recorded = {key: value for key, value in model.card.items() if key not in ("model", "classes", "config")}
    save(model, folder, **recorded)
    if not (folder / README).exists():
        write_text(folder / README, model_card(model, repo_id or str(folder)))
    return folder


def push_to_hub(
    model: Saveable, repo_id: str, *, token: str | bool | None, private: bool | None, revision: str | None, message: str
) -> str:
    """Upload a model, see :meth:`avseg.AVSModel.push_to_hub`."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(model, Path(temporary, "model"), repo_id=repo_id)
        try:
            created = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=created.repo_id, folder_path=folder, revision=revision, commit_message=message)
        except Exception as error:
            # The Hub client raises a dozen kinds: offline, no permission, not a valid name.
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(f"{repo_id} was not uploaded, the Hub reports: {reason}") from error
    return str(created)


def model_card(model: Saveable, name: str) -> str:
    """Return the text of a ``README.md`` in the format of the Hub.

    Args:
        model: The model; its ``card`` gives data and metrics if it records them.
        name: Hub id or folder, for the example.
    """
    names = model.card.get("class_names")
    lines = [
        "---",
        yaml.safe_dump({"library_name": "avseg", "tags": ["audio-visual-segmentation", model.name]}).strip(),
        "---",
        "",
        f"# {model.name} for audio-visual segmentation",
        "",
        f"- Parameters: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M",
        f"- Classes: {', '.join(map(str, names)) if names else model.classes}",
        *_training_data(model.card),
        "",
        f"All settings are in `{CARD}`. To use the model:",
        "",
        "```python",
        "import avseg",
        "",
        f'model = avseg.load("{name}")',
        'result = avseg.predict("video.mp4", model)',
        "```",
        *_scores(model.card),
    ]
    return "\n".join(lines) + "\n"


def _training_data(card: Mapping[str, Any]) -> list[str]:
    data = card.get("data") or {}
    return [f"- Training data: `{data['name']}`"] if "name" in data else []


def _scores(card: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table of the recorded metrics; none without metrics."""
    metrics = card.get("metrics") or {}
    rows = [f"| `{key}` | {value:.4g} |" for key, value in metrics.items() if isinstance(value, int | float)]
    return ["", "| metric | value |", "|---|---|", *rows] if rows else []
