"""Optimized models give the logits of the original, on inputs of any size."""

import copy
import warnings
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import avseg
from avseg import fast_paths
from avseg.errors import AvsegWarning, CheckpointError, ConfigError
from avseg.fast_paths import Mode
from avseg.interface import AVSModel, Clip
from avseg.model_folder import save
from avseg.models import model_class
from avseg.models.pcmanet import STAGES, PCMANet
from avseg.nn.efficientnet import SameConv2d
from avseg.nn.packed import PackedConv, PackedLinear, PackedSameConv, available
from avseg.nn.winograd import MIN_CHANNELS, MIN_CHANNELS_AVX512, Winograd
from avseg.testing import small_settings

NAMES = avseg.list_models()
WIDE = {"visual": "pvt_v2_b0", "channels": MIN_CHANNELS, "audio": "none", "audio_dim": 16}
SIZES = [(1, 64, 64), (2, 67, 45)]
"""T, H, W."""


def build(name: str, classes: int = 1, **settings: Any) -> AVSModel:
    """Build a model whose batch norms are not the identity."""
    torch.manual_seed(0)
    settings = {**small_settings(model_class(name)), **WIDE, **settings}
    if name == "cpm":
        settings |= {
            "acp": False,
            "pcl": False,
            "warmup": 1,
            "classifier": "softmax",
        }  # mixtures that are not fitted give zeros
    model = avseg.build(name, classes, **settings).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
            for value, low in (
                (norm.running_mean, -0.2),
                (norm.running_var, 0.5),
                (norm.weight, 0.5),
                (norm.bias, -0.2),
            ):
                cast("Tensor", value).data.uniform_(low, low + 0.5)
    return model


@cache
def original(name: str) -> AVSModel:
    """Return a model of :func:`build` on ResNet-18, shared by the tests that do not change it."""
    return build(name, visual="resnet18")


@cache
def optimized(name: str) -> AVSModel:
    """Return the optimized :func:`original`, shared as well."""
    return avseg.optimize(original(name))


def clip(model: AVSModel, size: tuple[int, int, int] = SIZES[1]) -> Clip:
    frames, height, width = size
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(1, frames, 3, height, width, generator=generator)
    return Clip(pictures, torch.randn(1, frames, model.config.audio_dim, generator=generator))


@torch.no_grad()
def logits(model: AVSModel, inputs: Clip) -> Tensor:
    return model(inputs).logits


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_exact_differs_by_less_than_a_thousandth(name: str) -> None:
    model, fast = original(name), optimized(name)
    norms = [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    assert not norms
    for size in SIZES:
        assert (logits(fast, clip(model, size)) - logits(model, clip(model, size))).abs().max() < 1e-3, size


@pytest.mark.slow
def test_exact_with_wide_layers_and_another_size_after_the_first() -> None:
    model = build("pcmanet", channels=MIN_CHANNELS_AVX512)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fast = avseg.optimize(model)
    assert any(isinstance(m, Winograd) for m in fast.modules())
    assert any(type(m) is PackedConv for m in fast.modules()) == available()
    assert any(isinstance(m, PackedLinear) for m in fast.modules()) == available()
    for size in ((2, 64, 96), (1, 67, 45), (2, 64, 96)):
        assert (logits(fast, clip(model, size)) - logits(model, clip(model, size))).abs().max() < 1e-3
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_optimized_model_can_be_copied() -> None:
    fast = optimized("pcmanet")
    expected = logits(fast, clip(fast))
    assert torch.equal(logits(copy.deepcopy(fast), clip(fast)), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"visual": "pvt_v2_b0"}, {"visual": "efficientnet_lite0"}, {**PCMANet.RELEASE, "visual": "resnet18"}]
)
def test_exact_for_other_backbones_and_the_release(settings: dict[str, Any]) -> None:
    model = build("pcmanet", 3, **settings)
    assert (logits(avseg.optimize(model), clip(model)) - logits(model, clip(model))).abs().max() < 1e-3


@pytest.mark.parametrize("confidence", [0.5, 1.0], ids=["all confident", "none confident"])
def test_exact_when_all_or_no_pixels_are_confident(confidence: float) -> None:
    model = build("pcmanet", confidence=confidence)
    ratio = model(clip(model)).scalars["keep_ratio/2"]
    assert ratio == (0.0 if confidence == 0.5 else 1.0)
    assert (logits(avseg.optimize(model), clip(model)) - logits(model, clip(model))).abs().max() < 1e-3


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("settings", [{}, PCMANet.RELEASE], ids=["paper", "release"])
def test_gated_computes_uncertain_pixels_and_copies_the_others(classes: int, settings: dict[str, Any]) -> None:
    model = cast("PCMANet", build("pcmanet", classes, progression=False, **settings))
    for head in model.head.values():
        cast("Any", head)[3].weight.data *= 30
    sizes = dict(zip(STAGES, ((2, 3), (4, 5), (8, 9), (16, 17)), strict=True))
    fused = {i: torch.randn(2, MIN_CHANNELS, *size) for i, size in sizes.items()}
    inputs = fused, torch.randn(1, 2, MIN_CHANNELS), torch.ones(1, 2, dtype=torch.bool)
    with torch.no_grad():
        dense = model._decode(*inputs)[0]
        p = dense[2].sigmoid() if classes == 1 else dense[2].softmax(1).amax(1, keepdim=True)
        certainty = torch.maximum(p, 1 - p)
        threshold = certainty.quantile(0.15).item()
        found = cast("PCMANet", avseg.optimize(model, "gated", confidence=threshold))._decode(*inputs)[0]
    closed = 1e-7 if model.config.closed_bounds else 0.0
    unsure = nn.functional.interpolate((certainty < threshold + closed).float(), sizes[1]).bool()
    assert 0.005 < unsure.float().mean() < 0.4
    coarse = nn.functional.interpolate(dense[2], sizes[1], mode="bilinear")
    assert (found[1] - torch.where(unsure, dense[1], coarse)).abs().max() < 1e-3
    assert (dense[1] - coarse).abs().max() > 0.1


@pytest.mark.parametrize("classes", [1, 3])
def test_gated_computes_the_finest_features_at_uncertain_pixels_only(classes: int) -> None:
    model = cast("PCMANet", build("pcmanet", classes, progression=False))
    for head in model.head.values():
        cast("Any", head)[3].weight.data *= 30
    inputs, valid = clip(model, (3, 64, 96)), torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        stages = model.visual(inputs.frames[0])
        audio = model.audio_linear(inputs.audio)
        fused = model._fuse({i: model.reduce[str(i)](f) for i, f in enumerate(stages, 1)}, audio)[0]
        dense = model._decode(dict(fused), audio, valid)[0]
        p = dense[2].sigmoid() if classes == 1 else dense[2].softmax(1).amax(1, keepdim=True)
        certainty = torch.maximum(p, 1 - p)
        threshold = certainty.quantile(0.05).item()
        fast = cast("PCMANet", avseg.optimize(model, "gated", confidence=threshold))
        assert fast._late()
        later = {i: f for i, f in fused.items() if i > 1}
        found = fast._decode(later, audio, valid, stages[0])[0]
        whole = fast(inputs).logits
    unsure = nn.functional.interpolate((certainty < threshold).float(), stages[0].shape[-2:]).bool()
    assert 0.005 < unsure.float().mean() < 0.4
    coarse = nn.functional.interpolate(dense[2], stages[0].shape[-2:], mode="bilinear")
    expected = torch.where(unsure, dense[1], coarse)
    assert 1 not in later  # V_1 was not computed as a whole
    assert (found[1] - expected).abs().max() < 1e-3
    assert (whole[0] - nn.functional.interpolate(expected, (64, 96), mode="bilinear")).abs().max() < 1e-3


@pytest.mark.slow
def test_gated_copies_everything_when_all_pixels_are_confident() -> None:
    model = original("pcmanet")
    with torch.no_grad():
        coarse = model(clip(model)).aux[0]
        found = avseg.optimize(model, "gated", confidence=0.5)(clip(model)).logits
    assert nn.functional.l1_loss(found, coarse) < 0.1 * coarse.abs().mean()  # upsampled in two steps


@pytest.mark.slow
def test_gated_equals_exact_when_no_pixel_is_confident() -> None:
    model = original("pcmanet")
    gated = avseg.optimize(model, "gated", confidence=1.0)
    assert (logits(gated, clip(model)) - logits(model, clip(model))).abs().max() < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_bf16_has_the_logits_of_float32_rounded(name: str) -> None:
    model = original(name)
    found, expected = logits(avseg.optimize(model, "bf16"), clip(model)), logits(model, clip(model))
    assert not torch.equal(found.float(), expected)
    assert (found.float() - expected).abs().mean() < 0.05 * expected.abs().mean() + 0.02


@pytest.mark.slow
def test_bf16_without_instructions_warns_once_and_names_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_paths, "has_bf16", lambda device: False)
    with pytest.warns(AvsegWarning, match=r"^this processor has no bfloat16 .*\(--precision float32\)$"):
        avseg.optimize(original("pcmanet"), "bf16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        avseg.optimize(original("pcmanet"))


@pytest.mark.parametrize(("avx512", "amx", "expected"), [(1, 0, True), (0, 1, True), (0, 0, False)])
def test_bf16_on_x86_needs_its_own_instructions(
    monkeypatch: pytest.MonkeyPatch, avx512: int, amx: int, expected: bool
) -> None:
    monkeypatch.setattr(fast_paths.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert fast_paths.has_bf16(torch.device("cpu")) is expected
    assert fast_paths.has_bf16(torch.device("cuda"))


def test_bf16_runs_where_its_packed_layers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_paths, "available", lambda dtype: dtype != torch.bfloat16)
    model = original("pcmanet")
    fast = avseg.optimize(model, "bf16")
    assert not any(isinstance(layer, PackedConv | PackedLinear) for layer in fast.modules())
    found, expected = logits(fast, clip(model)), logits(model, clip(model))
    assert (found.float() - expected).abs().mean() < 0.05 * expected.abs().mean() + 0.02


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(8, 8), (9, 8), (8, 7), (9, 9)])
@pytest.mark.skipif(not available(), reason="needs the operators of oneDNN")
def test_packed_same_convolution_pads_as_the_original(kernel: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    for stride, groups in ((1, 6), (2, 6), (2, 1)):
        conv = SameConv2d(6, 6, kernel, stride, groups=groups)
        x = torch.randn(2, 6, *size)
        assert (PackedSameConv(conv, None, torch.float32)(x) - conv(x)).abs().max() < 1e-5, (stride, groups)


def test_cpm_refuses_16_bit_weights_in_one_line() -> None:
    model = build("cpm").bfloat16()
    with pytest.raises(ConfigError, match=r"cpm needs float32 weights, got torch.bfloat16: .* 'bf16'"):
        model(clip(model).to(dtype=torch.bfloat16))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cpm"])
def test_float16_logits_are_finite(name: str) -> None:
    model = build(name)
    expected = logits(model, clip(model))
    found = logits(model.half(), clip(model).to(dtype=torch.float16)).float()
    assert (found - expected).abs().mean() < 0.05 * expected.abs().mean() + 0.02


@pytest.mark.slow
def test_load_optimizes(tmp_path: Path) -> None:
    model = original("pcmanet")
    save(model, tmp_path / "m")
    assert avseg.load(tmp_path / "m").optimized == ()
    fast = avseg.load(tmp_path / "m", optimize=("bf16", "gated"))
    assert fast.optimized == ("exact", "gated", "bf16")
    with pytest.raises(CheckpointError, match="save the original"):
        save(fast, tmp_path / "again")


def _model_without_masks() -> AVSModel:
    return build("pcmanet", select=False)


@pytest.mark.parametrize(
    ("make", "mode", "settings", "message"),
    [
        (lambda: original("tpavi"), "fast", {}, "unknown mode 'fast'"),
        (lambda: original("tpavi"), "gated", {}, "tpavi has no confidence masks"),
        (_model_without_masks, "gated", {}, "select false"),
        (lambda: original("pcmanet"), "gated", {"confidence": 0.3}, "0.5..1, got 0.3"),
        (lambda: original("pcmanet"), "exact", {"confidence": 0.9}, "mode 'gated' only"),
        (lambda: optimized("pcmanet"), "exact", {}, "optimized already"),
    ],
)
def test_refusals(make: Any, mode: Mode, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        avseg.optimize(make(), mode, **settings)
