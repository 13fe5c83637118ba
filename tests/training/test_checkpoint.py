"""Fields of resume.ckpt are checked before they are used."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from avseg.config import Run, TrainConfig
from avseg.errors import CheckpointError
from avseg.training.checkpoint import find_resume


def state(run: Run) -> dict[str, Any]:
    """Return the fields that a checkpoint of this run has."""
    return {
        "global_step": 3,
        "epoch": 0,
        "state_dict": {"a": torch.zeros(1)},
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "lr_schedulers": [],
        "loops": {"fit_loop": {}},
        "callbacks": {"Keeper": {"best": 0.5}},
        "pytorch-lightning_version": "2.5.0",
        "avseg": {"run": json.dumps(run.as_dict()), "position": (0, 3), "curve_bytes": 17},
    }


def a_run(path: Path) -> Run:
    return Run({"name": "pcmanet"}, {"name": "synthetic"}, train=TrainConfig(resume=str(path)))


def test_complete_checkpoint_is_found(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a.ckpt")
    torch.save(state(run), tmp_path / "a.ckpt")
    found = find_resume(run, tmp_path / "new")
    assert (found.position, found.step, found.curve_bytes) == ((0, 3), 3, 17)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"global_step": "1"}, "global_step must be a number of steps"),
        ({"global_step": -1}, "global_step must be a number of steps"),
        ({"state_dict": [1]}, "state_dict must be tensors by name"),
        ({"state_dict": {"a": 1}}, "state_dict must be tensors by name"),
        ({"optimizer_states": None}, "optimizer_states must be a list of states"),
        ({"loops": 5}, "loops must be the states"),
        ({"callbacks": {}}, "callbacks must be the states"),
        ({"avseg": []}, "not written by avseg train"),
        ({"avseg": {"run": "[" * 100_000, "position": (0, 1), "curve_bytes": 0}}, "its settings are not JSON"),
        ({"avseg": {"run": "{}", "position": (0, 1), "curve_bytes": 0}}, "model must be settings by name"),
        ({"avseg": {"run": "{}", "position": (0, -1), "curve_bytes": 0}}, "position must be an epoch and a batch"),
        ({"avseg": {"run": "{}", "position": (0, 1), "curve_bytes": -1}}, "curve_bytes must be a number of bytes"),
    ],
)
def test_field_of_wrong_type_is_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = a_run(tmp_path / "a.ckpt")
    torch.save({**state(run), **change}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=message) as caught:
        find_resume(run, tmp_path / "new")
    assert "\n" not in str(caught.value)


def test_settings_of_an_older_version_may_lack_fields(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a.ckpt")
    old = run.as_dict()
    del old["train"]["loggers"]
    content = state(run)
    content["avseg"]["run"] = json.dumps(old)
    torch.save(content, tmp_path / "a.ckpt")
    assert find_resume(dataclasses.replace(run), tmp_path / "new").step == 3
