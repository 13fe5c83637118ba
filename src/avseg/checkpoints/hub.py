"""Models on the Hugging Face Hub: a folder with a model card, and its upload."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from avseg.checkpoints.store import CARD, WEIGHTS, save
from avseg.errors import CheckpointError
from avseg.interface import AVSModel

README = "README.md"


def save_pretrained(model: AVSModel, folder: str | Path, *, repo_id: str | None = None) -> Path:
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
        (folder / README).write_text(model_card(model, repo_id or str(folder)), encoding="utf-8")
    return folder


def push_to_hub(
    model: AVSModel,
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model with avseg",
) -> str:
    """Upload a model, see :meth:`avseg.AVSModel.push_to_hub`."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(model, Path(temporary, "model"), repo_id=repo_id)
        try:
            created = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=created.repo_id, folder_path=folder, revision=revision, commit_message=commit_message
            )
        except Exception as error:
            # The Hub client raises a dozen kinds: offline, no permission, not a valid name.
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(f"{repo_id} was not uploaded, the Hub reports: {reason}") from error
    return str(created)


def model_card(model: AVSModel, name: str) -> str:
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
