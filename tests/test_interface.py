"""Tests of the interface with a minimal model."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from avseg.errors import ConfigError
from avseg.interface import AVSModel, Clip, Prediction, Target, make_config
from avseg.models import model_class


class Loudness(AVSModel):
    """Model that predicts foreground for all pixels of a loud frame."""

    @dataclass(frozen=True)
    class Config:
        gain: float = 1.0

    paper: ClassVar[str] = "0000.00000"
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"decoder": ("weight",)}

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        self.weight = nn.Linear(1, classes)

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        loud = self.weight(clip.audio.flatten(2).mean(2, keepdim=True) * self.config.gain)
        logits = loud[..., None, None].expand(*loud.shape, *clip.frames.shape[-2:])
        return Prediction(logits, scalars={"loud": loud.mean()}, maps={"loud": logits} if maps else {})

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        return {"all": prediction.logits[:, :, 0][target.labelled].square().mean()}


def _clip(b: int = 2, t: int = 3, h: int = 8, w: int = 6) -> Clip:
    return Clip(torch.randn(b, t, 3, h, w), torch.randn(b, t, 1, 96, 64))


@pytest.mark.parametrize(("classes", "dtype"), [(1, torch.bool), (4, torch.int64)])
def test_clip_to_prediction_to_masks(classes: int, dtype: torch.dtype) -> None:
    prediction = Loudness(Loudness.Config(), classes)(_clip(), maps=True)
    assert prediction.logits.shape == (2, 3, classes, 8, 6)
    assert prediction.masks.shape == (2, 3, 8, 6)
    assert prediction.masks.dtype == dtype
    assert prediction.maps["loud"].shape == (2, 3, classes, 8, 6)
    total = prediction.probabilities.sum(2)
    assert classes == 1 or torch.allclose(total, torch.ones_like(total))


def test_probability_of_exactly_a_half_is_background() -> None:
    assert not Prediction(torch.zeros(1, 1, 1, 2, 2)).masks.any()


def test_valid_is_all_frames_by_default() -> None:
    assert _clip().valid.all()


@pytest.mark.parametrize(
    ("frames", "audio", "valid", "message"),
    [
        ((2, 3, 8, 8), (2, 3, 128), None, r"frames must be \(B, T, 3, H, W\), got \(2, 3, 8, 8\)"),
        ((2, 3, 3, 8, 8), (2, 3, 96, 64), None, "audio must be log-mel"),
        ((2, 3, 3, 8, 8), (2, 4, 128), None, r"agree on \(B, T\)"),
        ((2, 3, 3, 8, 8), (2, 3, 128), torch.ones(2, 3), "valid must be bool"),
        ((2, 0, 3, 8, 8), (2, 0, 128), None, "at least one frame"),
    ],
)
def test_clip_checks_shapes(frames: tuple, audio: tuple, valid: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Clip(torch.zeros(frames), torch.zeros(audio), valid)


def test_target_checks_shapes() -> None:
    with pytest.raises(ValueError, match="int64"):
        Target(torch.zeros(1, 2, 4, 4), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="labelled must be bool"):
        Target(torch.zeros(1, 2, 4, 4, dtype=torch.int64), torch.ones(1, 3, dtype=torch.bool))


def test_to_converts_floating_tensors_only() -> None:
    clip = _clip().to(dtype=torch.float64)
    assert clip.frames.dtype == clip.audio.dtype == torch.float64
    assert clip.valid.dtype == torch.bool
    moved = Prediction(torch.zeros(1, 1, 1, 2, 2), aux=(torch.zeros(2),), scalars={"a": torch.ones(())}).to(
        dtype=torch.float16
    )
    assert moved.aux[0].dtype == moved.scalars["a"].dtype == torch.float16


def test_record_prints_shapes() -> None:
    assert repr(_clip()) == "Clip(frames=(2, 3, 3, 8, 6), audio=(2, 3, 1, 96, 64), valid=(2, 3))"
    prediction = Prediction(torch.zeros(1, 1, 1, 2, 2), aux=(torch.zeros(3),), scalars={"a": torch.tensor(0.5)})
    assert "aux=[(3,)], scalars={a: 0.5}" in repr(prediction)


def test_unknown_settings_are_named_with_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'gian' of Loudness. Did you mean 'gain'\?"):
        make_config(Loudness, {"gian": 2.0})
    with pytest.raises(ConfigError, match="classes must be 1"):
        Loudness(Loudness.Config(), 0)


def test_setting_of_wrong_type_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="matching of TPAVI must be float, got 'a'"):
        make_config(model_class("tpavi"), {"matching": "a"})


def test_prediction_at_another_size_resizes_logits() -> None:
    prediction = Prediction(torch.randn(2, 3, 1, 4, 6), (torch.randn(2, 3, 1, 4, 6),), {"a": torch.ones(())})
    larger = prediction.at((8, 9))
    expected = torch.nn.functional.interpolate(prediction.logits[1], (8, 9), mode="bilinear")
    assert torch.equal(larger.logits[1], expected)
    assert larger.aux[0].shape == (2, 3, 1, 8, 9)
    assert larger.scalars == prediction.scalars
    assert torch.equal(larger.masks[1], expected[:, 0] > 0)
    assert prediction.at((4, 6)) is prediction


@pytest.mark.parametrize("part", ["frames", "audio"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_clip_refuses_nan_and_infinity(part: str, value: float) -> None:
    tensors = {"frames": torch.zeros(1, 2, 3, 4, 4), "audio": torch.zeros(1, 2, 1, 96, 64)}
    tensors[part][0, 1, 0, 2] = value
    with pytest.raises(ValueError, match=f"{part} must be finite"):
        Clip(**tensors)


def test_clip_accepts_values_whose_sum_overflows() -> None:
    assert Clip(torch.full((1, 1, 3, 4, 4), 3e38), torch.zeros(1, 1, 128)).frames.isfinite().all()


@pytest.mark.slow
def test_clip_accepts_symbolic_sizes_of_export_and_keeps_its_checks() -> None:
    class Levels(torch.nn.Module):
        def forward(self, frames: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
            return Clip(frames, audio).frames.mean((2, 3, 4))

    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    pair = torch.randn(2, 3, 3, 4, 4), torch.randn(2, 3, 1, 96, 64)
    module = torch.export.export(Levels(), pair, dynamic_shapes=(dynamic, dynamic)).module()
    frames, audio = torch.randn(3, 5, 3, 4, 4), torch.randn(3, 5, 1, 96, 64)
    torch.testing.assert_close(module(frames, audio), frames.mean((2, 3, 4)))
    with pytest.raises((RuntimeError, AssertionError)):
        module(frames, audio[:, :4])


@pytest.mark.filterwarnings("ignore")  # torch.jit.trace is deprecated and warns about the checks
def test_clip_can_be_traced() -> None:
    pair = torch.randn(1, 2, 3, 4, 4), torch.randn(1, 2, 1, 96, 64)
    traced = torch.jit.trace(lambda frames, audio: Clip(frames, audio).frames.sum((2, 3, 4)), pair)
    torch.testing.assert_close(traced(*pair), pair[0].sum((2, 3, 4)))
