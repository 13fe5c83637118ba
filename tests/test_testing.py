"""The checks of avseg.testing: each one fails for a model that is wrong in one way."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import avseg.testing
from avseg.data import AVSDataset, Sample, build_dataset
from avseg.errors import ConfigError
from avseg.interface import AVSModel, Clip, Prediction, Target
from avseg.losses import bce, labelled, semantic_ce
from avseg.testing import CHECKS, check_dataset, check_model, example

Fault = Literal[
    "none", "output_size", "gradients", "padding_values", "padding_gradients", "clips_are_independent",
    "unlabelled_frames", "loss_is_pure", "target_is_optional", "bfloat16", "export", "overfits",
]  # fmt: skip


class Pixelwise(AVSModel):
    """Logits of each pixel from its own colour and position and from the sound; one fault at a time."""

    @dataclass(frozen=True)
    class Config:
        fault: Fault = "none"

    paper = "none"
    parts: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init__(self, config: Any, classes: int) -> None:
        super().__init__(config, classes)
        self.look, self.listen = nn.Conv2d(5, 128, 1), nn.Linear(64, 128)
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(128, 32, 1), nn.ReLU(), nn.Conv2d(32, classes, 1))
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))
        self.unused = nn.Parameter(torch.ones(1), requires_grad=config.fault == "gradients")

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        fault, (b, t, _, h, w) = self.config.fault, clip.frames.shape
        where = torch.stack(torch.meshgrid(torch.linspace(-6, 6, h), torch.linspace(-6, 6, w), indexing="ij"))
        frames = torch.cat([clip.frames, where.expand(b, t, 2, h, w)], 2)
        if fault == "export" and frames.sum() > 0:
            frames = frames + 0
        features = self.look(frames.flatten(0, 1)) + self.listen(clip.audio[:, :, 0, 0]).flatten(0, 1)[..., None, None]
        logits = self.head(features)
        if fault == "overfits":
            logits = logits * 0 + logits.mean((2, 3), keepdim=True)
        if fault == "bfloat16" and torch.is_autocast_enabled("cpu"):
            logits = logits / 0
        if fault == "output_size":
            logits = interpolate(logits, (h // 2 * 2, w // 2 * 2))
        logits = logits.unflatten(0, (b, t))
        if fault == "padding_values":
            logits = logits + logits.mean(1, keepdim=True)
        if fault == "padding_gradients":
            logits = logits + clip.frames.mean()
        if fault == "clips_are_independent":
            logits = logits + logits.mean(0, keepdim=True)
        if fault == "target_is_optional" and target is not None:
            logits = logits + target.masks.float().mean()
        return Prediction(logits)

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        if self.config.fault == "loss_is_pure":
            self.calls += 1
        if self.config.fault == "unlabelled_frames":
            target = Target(target.masks, torch.ones_like(target.labelled))
        logits, labels = labelled(prediction.logits, target)
        return {"bce": bce(logits, labels)} if self.classes == 1 else {"ce": semantic_ce(logits, labels)}


@pytest.mark.parametrize("check", CHECKS)
def test_right_model_passes(check: str) -> None:
    check_model(Pixelwise, [check])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("output_size", r"logits of \(1, 2, 5, 74, 50\), expected \(1, 2, 5, 75, 51\)"),
        ("gradients", r"K = 1: parameters without gradient: \['unused'\]"),
        ("padding_values", "content of padding frames changes the logits"),
        ("padding_gradients", "a gradient reaches the padding frames"),
        ("clips_are_independent", "the other clips of a batch change the logits"),
        ("unlabelled_frames", "labels of frames that are not labelled change the loss"),
        ("loss_is_pure", r"K = 1: loss changes \['calls'\]; use after_step"),
        ("target_is_optional", "the target changes the logits"),
        ("bfloat16", "gradients that are not finite under bfloat16"),
        ("export", "torch.export refuses the model"),
        ("overfits", "after 80 steps on one clip 0.875 of its pixels are right"),
    ],
)
def test_wrong_model_fails(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_model(Pixelwise, [fault], fault=fault)


def test_model_that_accepts_a_wrong_setting_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avseg.testing, "make_config", lambda owner, settings: owner.Config(**settings))
    with pytest.raises(AssertionError, match="fault = 'no_such_value' is accepted by Pixelwise"):
        check_model(Pixelwise, ["wrong_settings"])


def test_random_state_is_restored() -> None:
    before = torch.get_rng_state()
    check_model(Pixelwise, ["output_size"])
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_check_and_setting() -> None:
    with pytest.raises(ConfigError, match=r"unknown check 'overfit'\. Did you mean 'overfits'"):
        check_model(Pixelwise, ["overfit"])
    with pytest.raises(ConfigError, match="unknown setting 'falt'"):
        check_model(Pixelwise, falt="none")


def test_example_has_the_requested_shapes() -> None:
    clip, target = example(4, (8, 10), 3, clips=1)
    assert clip.frames.shape == (1, 4, 3, 8, 10)
    assert clip.audio.shape == (1, 4, 1, 96, 64)
    assert target.masks.shape == (1, 4, 8, 10)
    assert set(target.masks.unique().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("variant", ["s4", "ms3", "avss"])
def test_synthetic_data_passes(variant: str) -> None:
    check_dataset(build_dataset("synthetic", "val", variant=variant, size=32, frames=2, val=2))


class Numbers(AVSDataset):
    """Two samples with one fault."""

    class_names = ("background", "sounding")

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 0 if self.fault == "empty" else 2

    def __getitem__(self, index: int) -> Sample:
        if self.fault != "random":
            torch.manual_seed(index)
        clip, target = example(2, (8, 8), clips=2 if self.fault == "batch" else 1)
        if self.fault == "label":
            target.masks[0, 0, 0, 0] = 2
        labelled = torch.zeros_like(target.labelled) if self.fault == "unlabelled" else target.labelled
        name = "a" if self.fault == "name" else f"sample {index}"
        return Sample(clip, Target(target.masks, labelled), [name] * len(clip.frames))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("empty", "the data set is empty"),
        ("random", "sample 0 differs between two reads"),
        ("batch", "sample 0 has another B than 1"),
        ("label", "sample 0 has labels outside of 0 … 1"),
        ("unlabelled", "sample 0 has no labelled frame"),
        ("name", "two samples have the same name"),
    ],
)
def test_wrong_data_set_fails(fault: str, message: str) -> None:
    check_dataset(Numbers())
    with pytest.raises(AssertionError, match=message):
        check_dataset(Numbers(fault))
