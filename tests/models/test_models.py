"""Checks that every model must pass; a model file is found by its name, no edit here is needed."""

from pathlib import Path
from typing import Any

import pytest
import torch

import avseg
from avseg.data import build_dataset
from avseg.errors import ConfigError
from avseg.interface import IGNORE, AVSModel, Target
from avseg.model_folder import save
from avseg.models import build_for, model_class
from avseg.testing import CHECKS, SMALL, check_model, example, small_settings

NAMES = avseg.list_models()
MOBILE = {"visual": "efficientnet_lite0", "audio": "mobile"}
BACKBONES: dict[str, dict[str, Any]] = {"resnet18": {"visual": "resnet18"}, "efficientnet_lite0": MOBILE}
OF_BACKBONES = ("output_size", "gradients", "padding_values", "padding_gradients", "clips_are_independent")
"""Checks whose result can depend on the backbone."""
PRIOR = {**MOBILE, "class_prior": True}
QUICK: dict[str, Any] = {"visual": "pvt_v2_b0"}
"""Settings of a backbone that takes half the time of ResNet-18.

EfficientNet-Lite0 takes less, but without trained weights its maps are near zero in evaluation mode, so that logits
hardly depend on the frames.
"""
CASES = [pytest.param(c, marks=pytest.mark.slow) if c in ("export", "overfits") else c for c in CHECKS]


def build(name: str, classes: int = 1, **settings: Any) -> AVSModel:
    return avseg.build(name, classes, **{**small_settings(model_class(name)), **QUICK, **settings})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", CASES)
def test_every_model(name: str, check: str) -> None:
    check_model(model_class(name), [check], **({} if check == "overfits" else QUICK))  # PVT-v2-B0 needs more steps


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("check", OF_BACKBONES)
def test_every_model_with_other_backbones(name: str, backbone: str, check: str) -> None:
    check_model(model_class(name), [check], **BACKBONES[backbone])


@pytest.mark.parametrize("check", CASES)
def test_pcmanet_with_class_prior(check: str) -> None:
    check_model(model_class("pcmanet"), [check], **PRIOR)


def test_small_settings_exist() -> None:
    known = {field for name in NAMES for field in model_class(name).Config.__dataclass_fields__}
    assert not SMALL.keys() - known


@pytest.mark.parametrize("name", NAMES)
def test_paper_parts_and_module(name: str) -> None:
    model = model_class(name)
    assert len(model.paper.split(".")[0]) == 4, "paper is an arXiv id"
    assert model.parts
    assert model.__module__ == f"avseg.models.{name}"


@pytest.mark.parametrize(
    ("name", "config"), [("pcmanet", {}), ("tpavi", {"iou": 1.0, "matching": 0.5}), ("ama_ue", {"positives": "truth"})]
)
def test_loss_with_one_class_ignores_the_category(name: str, config: dict[str, Any]) -> None:
    model, (clip, target) = build(name, **config).eval(), example()
    target.masks[:, :, :8] = IGNORE
    categories = torch.where(target.masks == 1, torch.randint(1, 71, target.masks.shape), target.masks)
    prediction = model(clip)
    one, other = (model.loss(prediction, Target(m, target.labelled)) for m in (target.masks, categories))
    assert len(one) >= 3
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_model_has_equal_logits(name: str, tmp_path: Path) -> None:
    model = build(name, 3).eval()
    save(model, tmp_path / "m", class_names=["background", "a", "b"])
    again = avseg.load(tmp_path / "m")
    assert again.config == model.config
    assert again.card["class_names"] == ["background", "a", "b"]
    assert not again.training
    clip, _ = example()
    with torch.no_grad():
        assert torch.equal(again(clip).logits, model(clip).logits)


def test_unknown_model() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'pcmanett'. Did you mean 'pcmanet'\?"):
        avseg.build("pcmanett")


STAND_IN = """
from dataclasses import dataclass
from avseg.interface import AVSModel

class Learner(AVSModel):
    @dataclass(frozen=True)
    class Config:
        categories: int | None = None

    def forward(self, clip, target=None, *, maps=False): ...
    def loss(self, prediction, target): ...
"""


def test_model_for_a_data_set_has_its_classes_and_categories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "learner.py").write_text(STAND_IN)
    monkeypatch.setattr(avseg.models, "__path__", [*avseg.models.__path__, str(tmp_path)])
    binary, named, semantic = (
        build_dataset("synthetic", "val", **settings)
        for settings in ({"variant": "s4"}, {"variant": "s4", "categories": True}, {"variant": "avss"})
    )
    found = [build_for(data, "learner") for data in (binary, named, semantic)]
    assert [(m.classes, m.config.categories) for m in found] == [(1, 1), (1, 12), (13, 12)]
    assert build_for(named, "learner", categories=None).config.categories == 12
    assert build_for(named, "learner", categories=30).config.categories == 30
    with pytest.raises(ConfigError, match="Did you mean 'learner'"):
        build_for(named, "lerner")
    plain = build_for(semantic, "tpavi", visual="resnet18", audio="none", channels=8)
    assert (plain.classes, plain.config.channels) == (13, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "channels of pcmanet must be 1 or more, got 0"),
        ({"heads": -1}, "channels = 256 must be a multiple of heads = -1"),
        ({"channels": 10**6}, "would have more than 2e"),
        ({"channels": 16.5}, "channels of PCMANet must be int, got 16.5"),
        ({"confidence": float("nan")}, "confidence of PCMANet must be float, got nan"),
    ],
)
def test_settings_that_no_model_can_have_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        avseg.build("pcmanet", visual="resnet18", **settings)
