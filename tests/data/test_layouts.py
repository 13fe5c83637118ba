"""Each released layout goes through training and evaluation, by the commands a user gives."""

import json
from pathlib import Path

import pytest

from avseg.cli import main

SMALL = ("--model.visual", "resnet18", "--model.audio", "compact", "--model.train_audio", "true")
STEP = ("--train.max_steps", "1", "--train.epochs", "1", "--train.batch_size", "2", "--train.workers", "0")


@pytest.mark.parametrize(
    ("name", "protocol"), [("s4", "avsbench"), ("ms3", "avsbench"), ("avss", "avsbench_semantic_padded")]
)
def test_trains_a_step_and_evaluates(tiny, tmp_path: Path, name: str, protocol: str) -> None:
    root, run, scores = getattr(tiny, name)(), tmp_path / "run", tmp_path / "scores.json"
    data = ("--data", name, "--data.root", str(root), "--data.size", "32")
    assert main(["train", *SMALL, "--model.channels", "16", *data, *STEP, "--train.out", str(run)]) == 0
    for original in ("false", "true"):  # squashed, and at the masks' own resolution
        command = ["eval", str(run / "last"), "--negatives", "false", "--data.original_masks", original]
        assert main([*command, "-o", str(scores)]) == 0
    numbers = json.loads(scores.read_text())["numbers"]
    assert numbers["clips"] == (2 if name != "avss" else 6)
    assert numbers["frames"] == (10 if name != "avss" else 40)
    assert all(value is not None for value in numbers["scores"][protocol].values())
    assert ("per_category" in numbers) == (name == "s4")
