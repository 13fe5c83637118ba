"""``after_step`` updates the buffers that ``loss`` leaves alone."""

import pytest
from torch import Tensor

import avseg
from avseg.interface import AVSModel, Prediction, Target
from avseg.models import model_class
from avseg.testing import example, small_settings


def build(name: str, classes: int) -> AVSModel:
    return avseg.build(name, classes, **{**small_settings(model_class(name)), "visual": "pvt_v2_b0"})


def tensors(model: AVSModel) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in [*model.named_parameters(), *model.named_buffers()]}


def predict(model: AVSModel, classes: int) -> tuple[Prediction, Target]:
    clip, target = example(2, classes=classes)
    return model(clip, target), target


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
