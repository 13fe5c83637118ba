"""``loss`` changes no state of a model; what follows an optimizer step is ``after_step``."""

from typing import Any

import pytest
import torch
from torch import Tensor

import avseg
from avseg.interface import AVSModel, Clip, Prediction, Target
from avseg.models import model_class

SMALL: dict[str, Any] = {
    "visual": "resnet18",
    "audio": "compact",
    "train_audio": True,
    "channels": 32,
    "queries": 6,
    "layers": 2,
    "pixel_layers": 1,
    "heads": 4,
    "feedforward": 64,
    "points": 64,
    "warmup": 0,
}
"""Settings that make a model small, as far as it has them."""


def build(name: str, classes: int) -> AVSModel:
    fields = model_class(name).Config.__dataclass_fields__
    torch.manual_seed(0)
    return avseg.build(name, classes, **{k: v for k, v in SMALL.items() if k in fields})


def batch(classes: int) -> tuple[Clip, Target]:
    make = torch.Generator().manual_seed(1)
    frames, audio = torch.randn(2, 2, 3, 64, 64, generator=make), torch.randn(2, 2, 1, 96, 64, generator=make)
    masks = torch.zeros(2, 2, 64, 64, dtype=torch.int64)
    masks[..., 16:48, 16:48] = max(1, classes - 1)
    return Clip(frames, audio), Target(masks, torch.ones(2, 2, dtype=torch.bool))


def tensors(model: AVSModel) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in [*model.named_parameters(), *model.named_buffers()]}


def predict(model: AVSModel, classes: int) -> tuple[Prediction, Target]:
    clip, target = batch(classes)
    return model(clip, target), target


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("name", avseg.list_models())
def test_loss_called_twice_changes_no_tensor(name: str, classes: int) -> None:
    model = build(name, classes).train()
    prediction, target = predict(model, classes)
    before = tensors(model)
    for _ in range(2):
        model.loss(prediction, target)
    after = tensors(model)
    assert after.keys() == before.keys()
    assert not [k for k in before if not torch.equal(before[k], after[k])]


@pytest.mark.parametrize("name", avseg.list_models())
def test_loss_called_twice_in_evaluation_returns_the_same(name: str) -> None:
    model = build(name, 3).eval()
    prediction, target = predict(model, 3)
    one, two = model.loss(prediction, target), model.loss(prediction, target)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(("name", "changed"), [("cpm", {"steps", "mixtures.calls"}), ("ama_ue", {"steps"})])
def test_after_step_counts_one_batch(name: str, changed: set[str]) -> None:
    model = build(name, 3).train()
    prediction, target = predict(model, 3)
    model.loss(prediction, target)
    before = tensors(model)
    model.after_step(prediction, target)
    after = tensors(model)
    assert all(after[k] == before[k] + 1 for k in changed)


def test_after_step_of_cpm_needs_the_matches_of_loss() -> None:
    model = build("cpm", 3).train()
    with pytest.raises(ValueError, match="passed to loss before"):
        model.after_step(*predict(model, 3))
