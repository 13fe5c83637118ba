"""What every model must do, found by file name: a new model is tested without an edit here."""

from pathlib import Path
from typing import Any

import pytest
import torch

import avseg
from avseg.checkpoints.store import save
from avseg.data import build_dataset
from avseg.errors import ConfigError
from avseg.interface import IGNORE, AVSModel, Clip, Target
from avseg.models import build_for, model_class

NAMES = avseg.list_models()


def small(name: str, classes: int = 1) -> AVSModel:
    """The model with its smallest backbones, as small as it gets."""
    return build(name, classes, visual="resnet18")


def build(name: str, classes: int = 1, **settings: Any) -> AVSModel:
    """A small model; settings it does not have are left out."""
    wanted = {"audio": "compact", "train_audio": True, "channels": 32, **SMALLER, **settings}
    fields = model_class(name).Config.__dataclass_fields__
    return avseg.build(name, classes, **{k: v for k, v in wanted.items() if k in fields})


SMALLER = {"queries": 8, "layers": 2, "pixel_layers": 1, "heads": 4, "feedforward": 64, "points": 256}
"""Settings that make models small, of those that have them."""


def clip(b: int = 2, t: int = 3, size: int = 64) -> Clip:
    make = torch.Generator().manual_seed(1)
    return Clip(torch.randn(b, t, 3, size, size, generator=make), torch.randn(b, t, 1, 96, 64, generator=make))


def target(like: Clip, classes: int = 1) -> Target:
    b, t, _, h, w = like.frames.shape
    return Target(torch.randint(0, max(2, classes), (b, t, h, w)), torch.ones(b, t, dtype=torch.bool))


@pytest.mark.parametrize("name", NAMES)
def test_describes_itself(name: str) -> None:
    model = model_class(name)
    assert len(model.paper.split(".")[0]) == 4, "paper is an arXiv id"
    assert model.parts
    assert model.__module__ == f"avseg.models.{name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_two_is_two_batches_of_one(name: str) -> None:
    model, both = small(name).eval(), clip()
    together = model(both).logits
    for b in range(2):
        alone = model(Clip(both.frames[b : b + 1], both.audio[b : b + 1])).logits
        assert torch.allclose(together[b], alone[0], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [1, 4])
def test_frames_without_label_do_not_train(name: str, classes: int) -> None:
    model, inputs = small(name, classes).eval(), clip()
    truth = target(inputs, classes)
    first = torch.zeros_like(truth.labelled)
    first[:, 0] = True
    other = truth.masks.clone()
    other[:, 1:] = 0
    prediction = model(inputs)
    one, two = (model.loss(prediction, Target(m, first)) for m in (truth.masks, other))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(
    ("name", "config"), [("pcmanet", {}), ("tpavi", {"iou": 1.0, "matching": 0.5}), ("ama_ue", {"positives": "truth"})]
)
def test_what_sounds_costs_the_same_whatever_category_it_is_of(name: str, config: dict[str, Any]) -> None:
    model = build(name, visual="resnet18", **config).eval()
    truth = target(clip())
    truth.masks[:, :, :8] = IGNORE
    categories = torch.where(truth.masks == 1, torch.randint(1, 71, truth.masks.shape), truth.masks)
    prediction = model(clip())
    one, other = (model.loss(prediction, Target(m, truth.labelled)) for m in (truth.masks, categories))
    assert len(one) >= 3
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("visual", ["resnet18", "pvt_v2_b0", "efficientnet_lite0"])
def test_padding_is_not_looked_at_and_breaks_no_gradient(name: str, visual: str) -> None:
    model = build(name, visual=visual).train()
    valid = torch.tensor([[True, True, True], [True, False, False]])
    frames = (clip().frames * valid[..., None, None, None]).requires_grad_()  # padding is grey: zeros
    inputs = Clip(frames, clip().audio, valid)
    truth = Target(target(inputs).masks, valid)
    sum(model.loss(model(inputs), truth).values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert not frames.grad[~valid].any()
    assert frames.grad[valid].any()


@pytest.mark.parametrize("name", NAMES)
def test_what_padding_shows_changes_nothing(name: str) -> None:
    model, inputs = small(name).eval(), clip()
    valid = torch.tensor([[True, True, False], [True, False, False]])
    other = torch.where(valid[..., None, None, None], inputs.frames, 9.0)
    one, two = (model(Clip(f, inputs.audio, valid)).logits for f in (inputs.frames, other))
    assert torch.equal(one, two)
    alone = model(Clip(inputs.frames[1:, :1], inputs.audio[1:, :1])).logits
    assert torch.allclose(one[1, :1], alone[0], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 45, 75), (3, 64, 33)])
def test_efficientnet_trains_at_any_number_of_frames_and_any_size(name: str, shape: tuple[int, int, int]) -> None:
    model, (t, h, w) = build(name, 4, visual="efficientnet_lite0").train(), shape
    inputs = Clip(torch.randn(2, t, 3, h, w), torch.randn(2, t, 1, 96, 64))
    truth = target(inputs, 4)
    before = model.visual.net.stem.conv.weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    prediction = model(inputs, truth)
    assert prediction.logits.shape == (2, t, 4, h, w)
    sum(model.loss(prediction, truth).values()).backward()
    optimizer.step()
    assert not torch.equal(model.visual.net.stem.conv.weight, before)
    assert model.eval()(inputs).logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_says_the_same(name: str, tmp_path: Path) -> None:
    model = small(name, 3).eval()
    save(model, tmp_path / "m", class_names=["background", "a", "b"])
    again = avseg.load(tmp_path / "m")
    assert again.config == model.config
    assert again.card["class_names"] == ["background", "a", "b"]
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(clip()).logits, model(clip()).logits)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_finite_both_ways(name: str) -> None:
    model, inputs = small(name).train(), clip()
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(inputs)
    sum(model.loss(prediction, target(inputs)).values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_overfits_one_clip(name: str) -> None:
    model, inputs = small(name).train(), clip(1, 2)
    masks = torch.zeros(1, 2, 64, 64, dtype=torch.int64)
    masks[:, 0, 16:48, 16:48] = 1
    truth = Target(masks, torch.ones(1, 2, dtype=torch.bool))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model.loss(model(inputs, truth), truth).values()).backward()
        optimizer.step()
    assert (model(inputs).masks == masks.bool()).float().mean() > 0.97


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_does_not_need_the_target(name: str) -> None:
    model, inputs = small(name).eval(), clip()
    assert torch.equal(model(inputs).logits, model(inputs, target(inputs)).logits)


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


def test_a_model_for_a_data_set_has_its_classes_and_categories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "learner.py").write_text(STAND_IN)
    monkeypatch.setattr(avseg.models, "__path__", [*avseg.models.__path__, str(tmp_path)])
    binary, told, semantic = (
        build_dataset("synthetic", "val", **settings)
        for settings in ({"variant": "s4"}, {"variant": "s4", "categories": True}, {"variant": "avss"})
    )
    found = [build_for(data, "learner") for data in (binary, told, semantic)]
    assert [(m.classes, m.config.categories) for m in found] == [(1, 1), (1, 12), (13, 12)]
    assert build_for(told, "learner", categories=None).config.categories == 12
    assert build_for(told, "learner", categories=30).config.categories == 30
    with pytest.raises(ConfigError, match="Did you mean 'learner'"):
        build_for(told, "lerner")
    plain = build_for(semantic, "tpavi", visual="resnet18", audio="none", channels=8)
    assert (plain.classes, plain.config.channels) == (13, 8)
