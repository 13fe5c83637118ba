"""Tests of TPAVI: equations against plain loops, its two forms, settings and padding."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, layer_norm

import avseg
from avseg.costs import all_macs, memory
from avseg.errors import ConfigError
from avseg.interface import Clip, Target
from avseg.losses import bce, iou_loss
from avseg.models.tpavi import TPAVI, Dilated, Fusion, Interaction, Residual

SMALL: dict[str, Any] = {"visual": "pvt_v2_b0", "audio": "none", "channels": 16}


def build(classes: int = 1, **config: Any) -> TPAVI:
    """Return a small model whose blocks have non-zero last batch norms, which are zero at initialisation."""
    model = avseg.build("tpavi", classes, **{**SMALL, **config})
    for name, parameter in model.named_parameters():
        if ".mu.1." in name:
            torch.nn.init.normal_(parameter)
    return model  # type: ignore[return-value]


def clip(b: int = 2, t: int = 3, h: int = 64, w: int = 64) -> Clip:
    make = torch.Generator().manual_seed(0)
    return Clip(torch.randn(b, t, 3, h, w, generator=make), torch.randn(b, t, 128, generator=make))


def target(like: Clip, classes: int = 1) -> Target:
    b, t, _, h, w = like.frames.shape
    return Target(torch.randint(0, max(classes, 2), (b, t, h, w)), torch.ones(b, t, dtype=torch.bool))


def block(form: str = "linear", channels: int = 8) -> Interaction:
    torch.manual_seed(3)
    module = Interaction(channels, 6, align_bias=True, form=form)  # type: ignore[arg-type]
    for parameter in module.mu[1].parameters():
        torch.nn.init.normal_(parameter)
    return module.eval()


def slow_block(module: Interaction, maps: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
    """Compute Eq. (1) for each position; keys (B, C, T, h, w)."""
    out = torch.zeros_like(maps)
    weights = {n: getattr(module, n).weight.flatten(1) for n in ("theta", "phi", "g")}
    b, _, t, h, w = maps.shape
    places = [(slice(None), k, y, x) for k in range(t) for y in range(h) for x in range(w)]
    for clip_ in range(b):
        seen = [p for p in places if valid[clip_, p[1]]]
        for place in places:
            here = weights["theta"] @ maps[clip_][place] + module.theta.bias
            output = torch.zeros_like(here)
            for other in seen:
                key = weights["phi"] @ keys[clip_][other] + module.phi.bias
                value = weights["g"] @ maps[clip_][other] + module.g.bias
                output += (here @ key) / len(seen) * value
            norm = module.mu[1]
            mixed = module.mu[0].weight.flatten(1) @ output + module.mu[0].bias
            mixed = batch_norm(mixed[None], norm.running_mean, norm.running_var, norm.weight, norm.bias)[0]
            total = mixed + maps[clip_][place]
            out[clip_][place] = layer_norm(total, total.shape, module.norm.weight, module.norm.bias)
    return out


@pytest.mark.parametrize("form", ["linear", "quadratic"])
@pytest.mark.parametrize("padded", [False, True])
def test_eq1_pixels_attend_to_the_audio_of_all_frames(form: str, padded: bool) -> None:
    module = block(form)
    maps, audio = torch.randn(2, 8, 3, 2, 3), torch.randn(2, 3, 6)
    valid = torch.tensor([[True, True, not padded], [True, True, True]])
    projected = (audio @ module.align.weight.T + module.align.bias).mT[..., None, None]
    expected = slow_block(module, maps, projected.expand_as(maps), valid)
    assert torch.allclose(module(maps, module.project_audio(audio), valid), expected, atol=1e-5)


@pytest.mark.parametrize("form", ["linear", "quadratic"])
def test_eq1_pixels_attend_to_pixels(form: str) -> None:
    module, maps, valid = block(form), torch.randn(1, 8, 2, 3, 2), torch.tensor([[True, True]])
    assert torch.allclose(module(maps, maps, valid), slow_block(module, maps, maps, valid), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"visual_visual": True}, {"visual_audio": False, "visual_visual": True}])
def test_linear_and_quadratic_forms_have_equal_outputs_and_gradients(settings: dict[str, bool]) -> None:
    linear = build(**settings).double()
    quadratic = TPAVI(replace(linear.config, form="quadratic"), 1).double()
    quadratic.load_state_dict(linear.state_dict())
    inputs = clip().to(dtype=torch.float64)
    outputs = []
    for model in (linear, quadratic):
        torch.manual_seed(4)  # the same paths of the backbone are dropped
        outputs.append(model(inputs).logits)
    assert torch.allclose(*outputs, atol=1e-10)
    for output in outputs:
        output.square().mean().backward()
    for (name, one), two in zip(linear.named_parameters(), quadratic.parameters(), strict=True):
        if one.grad is not None:
            assert torch.allclose(one.grad, two.grad, atol=1e-10), name


def spent(form: str, side: int) -> tuple[float, int]:
    """Return the MACs of a block on 4 frames of side × side, and its peak memory."""
    module, maps = block(form), torch.randn(1, 8, 4, side, side)
    keys, valid = torch.randn(1, 8, 4, 1, 1), torch.ones(1, 4, dtype=torch.bool)
    with torch.no_grad(), all_macs() as macs:
        module(maps, keys, valid)
        counted = macs()
    with torch.no_grad(), memory(module, Clip(torch.zeros(1, 1, 3, 1, 1), torch.zeros(1, 1, 1))) as gauge:
        gauge.reset()
        before = gauge.peak()
        module(maps, keys, valid)
        return counted, gauge.peak() - before


def test_cost_is_linear_or_quadratic_in_positions() -> None:
    (small, small_memory), (large, large_memory) = spent("linear", 8), spent("linear", 32)
    assert large / small < 16.5
    assert large_memory / small_memory < 16.5
    (small, small_memory), (large, large_memory) = spent("quadratic", 8), spent("quadratic", 32)
    assert large / small > 200
    assert large_memory / small_memory > 100


def test_block_is_a_layer_norm_at_initialisation() -> None:
    module = Interaction(8, 6, align_bias=True, form="linear")
    maps = torch.randn(2, 8, 3, 2, 2)
    valid = torch.ones(2, 3, dtype=torch.bool)
    out = module(maps, module.project_audio(torch.randn(2, 3, 6)), valid)
    assert torch.allclose(out, layer_norm(maps.movedim(1, -1), (8,)).movedim(-1, 1), atol=1e-6)


def test_features_are_the_sum_of_four_dilated_convolutions() -> None:
    module = Dilated(5, 4)
    assert [branch.dilation for branch in module.branches] == [(3, 3), (6, 6), (12, 12), (18, 18)]
    maps = torch.randn(2, 5, 20, 20)
    expected = sum(
        torch.nn.functional.conv2d(maps, b.weight, b.bias, padding=d, dilation=d)
        for b, d in zip(module.branches, (3, 6, 12, 18), strict=True)
    )
    assert torch.allclose(module(maps), expected, atol=1e-6)


def test_residual_units_add_the_rectified_input() -> None:
    unit, x = Residual(4), torch.randn(1, 4, 5, 5)
    kept = x.clone()
    assert torch.allclose(unit(x) - unit.second(unit.first(x.relu()).relu()), x.relu(), atol=1e-6)
    assert torch.equal(x, kept)


def test_fusion_adds_the_deeper_level() -> None:
    module, level, deeper = Fusion(4, deeper=True), torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6)
    total = module.fuse(deeper + module.level(level))
    expected = torch.nn.functional.interpolate(total, scale_factor=2, mode="bilinear", align_corners=True)
    assert torch.allclose(module(level, deeper, (12, 12)), expected, atol=1e-6)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize(("t", "h", "w"), [(1, 32, 32), (7, 64, 96), (2, 90, 51)])
def test_any_length_size_and_number_of_classes(classes: int, t: int, h: int, w: int) -> None:
    model = build(classes).eval()
    prediction = model(clip(1, t, h, w), maps=True)
    assert prediction.logits.shape == (1, t, classes, h, w)
    assert sorted(prediction.maps) == [f"attention/tpavi{i}" for i in (1, 2, 3, 4)]
    assert prediction.maps["attention/tpavi1"].shape == (1, t, 1, -(-h // 4), -(-w // 4))
    assert torch.equal(prediction.logits, model(clip(1, t, h, w)).logits)


def test_attention_maps_are_theta_times_phi_of_the_same_frame() -> None:
    module, maps, audio = block(), torch.randn(1, 8, 2, 2, 2), torch.randn(1, 2, 6)
    projected = module.project_audio(audio)
    fit, theta, phi = module.fit(maps, projected), module.theta(maps), module.phi(projected)
    for t in range(2):
        assert fit[0, t, 0, 1, 0].item() == pytest.approx((theta[0, :, t, 1, 0] @ phi[0, :, t, 0, 0]).item(), abs=1e-6)


@pytest.mark.parametrize("settings", [{}, {"stages": (1, 3)}, {"visual_visual": True}, {"matching": 0.5}])
@pytest.mark.parametrize("classes", [1, 3])
def test_every_parameter_receives_gradient(classes: int, settings: dict[str, Any]) -> None:
    model, inputs = build(classes, **settings).train(), clip()
    sum(model.loss(model(inputs), target(inputs, classes)).values()).backward()
    still = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not still


def test_audio_affects_every_selected_stage() -> None:
    inputs = clip()
    other = Clip(inputs.frames, inputs.audio.flip(1))
    for stages in ((1, 2, 3, 4), (4,)):
        model = build(stages=stages).eval()
        assert not torch.allclose(model(inputs).logits, model(other).logits, atol=1e-4)
    for deaf in (build(stages=()), build(visual_audio=False, visual_visual=True)):
        assert torch.equal(deaf.eval()(inputs).logits, deaf(other).logits)


def test_equal_frames_get_equal_predictions_for_any_audio() -> None:
    """Check that the audio of a clip reaches its pixels through one matrix for all frames."""
    model, inputs = build().eval(), clip(1, 4)
    still = Clip(inputs.frames[:, :1].expand_as(inputs.frames).contiguous(), inputs.audio)
    logits = model(still).logits
    assert torch.allclose(logits, logits[:, :1].expand_as(logits), atol=1e-5)
    assert not torch.allclose(logits, model(Clip(still.frames, inputs.audio * 2)).logits, atol=1e-3)
    shuffled = model(Clip(still.frames, inputs.audio.flip(1))).logits
    assert torch.allclose(logits, shuffled, atol=1e-5)


def test_padding_frames_are_no_keys() -> None:
    model, inputs = build().eval(), clip(1, 3)
    valid = torch.tensor([[True, True, False]])
    whole = model(Clip(inputs.frames, inputs.audio, valid)).logits
    short = model(Clip(inputs.frames[:, :2], inputs.audio[:, :2])).logits
    assert torch.allclose(whole[:, :2], short, atol=1e-5)
    none = model(Clip(inputs.frames, inputs.audio, torch.zeros(1, 3, dtype=torch.bool))).logits
    assert none.isfinite().all()


def test_release_padding_frames_are_keys_and_predict_zero() -> None:
    model, inputs = build(3, padding="zero").eval(), clip(1, 3)
    valid = torch.tensor([[True, True, False]])
    padded = model(Clip(inputs.frames, inputs.audio, valid)).logits
    assert not padded[:, 2].any()
    short = model(Clip(inputs.frames[:, :2], inputs.audio[:, :2])).logits
    assert not torch.allclose(padded[:, :2], short, atol=1e-4)


def test_window_splits_the_clip() -> None:
    cut, inputs = build(window=2).eval(), clip(1, 5)
    whole = TPAVI(replace(cut.config, window=0), 1).eval()
    whole.load_state_dict(cut.state_dict())
    pieces = [whole(Clip(inputs.frames[:, k : k + 2], inputs.audio[:, k : k + 2])).logits for k in (0, 2, 4)]
    assert torch.allclose(cut(inputs).logits, torch.cat(pieces, 1), atol=1e-5)


@pytest.mark.parametrize("summed", [False, True])
def test_eq3_matching_is_the_divergence_of_audio_and_masked_pixels(summed: bool) -> None:
    model, inputs = build(matching=0.5, matching_sum=summed, stages=(2, 4)).eval(), clip(2, 2)
    prediction, truth = model(inputs), target(inputs)
    truth.labelled[1, 1] = False
    logits = prediction.logits
    total = 0.0
    for features, audio in zip(prediction.state.features, prediction.state.audio, strict=True):
        for b, t in ((0, 0), (0, 1), (1, 0)):
            size = features.shape[-1]
            step = 64 // size
            mean = torch.zeros(16)
            for y in range(size):
                for x in range(size):
                    cell = logits[b, t, 0, y * step : (y + 1) * step, x * step : (x + 1) * step].mean().sigmoid()
                    mean += cell * features[b, t, :, y, x] / size**2
            p, q = audio[b, t].softmax(0), mean.softmax(0)
            total += (p * (p / q).log()).sum().item() / 2
    found = model.loss(prediction, truth)["matching"].item()
    assert found == pytest.approx(0.5 * total / (1 if summed else 3), rel=1e-3)


def test_eq3_of_several_classes_uses_foreground_pixels() -> None:
    model, inputs = build(3, matching=1.0, stages=(4,)).eval(), clip(1, 1)
    prediction = model(inputs)
    marked = (prediction.masks != 0).float()[:, 0]
    share = torch.nn.functional.adaptive_avg_pool2d(marked, (2, 2))[0]
    mean = (prediction.state.features[0][0, 0] * share).mean((1, 2))
    p, q = prediction.state.audio[0][0, 0].softmax(0), mean.softmax(0)
    expected = (p * (p / q).log()).sum().item()
    assert model.loss(prediction, target(inputs, 3))["matching"].item() == pytest.approx(expected, abs=1e-6)


def test_eq2_adds_the_terms_with_their_weights() -> None:
    model, inputs = build(matching=0.25, iou=2.0).eval(), clip()
    prediction, truth = model(inputs), target(inputs)
    terms = model.loss(prediction, truth)
    pair = prediction.logits.flatten(0, 1), truth.masks.flatten(0, 1)
    assert terms["bce"].item() == pytest.approx(bce(*pair).item())
    assert terms["iou"].item() == pytest.approx(2 * iou_loss(*pair, smooth=1.0).item())
    assert sorted(terms) == ["bce", "iou", "matching"]
    assert sorted(build().loss(build()(inputs), truth)) == ["bce"]


def test_unlabelled_clip_has_zero_gradient() -> None:
    model, inputs = build(matching=0.5).train(), clip()
    truth = target(inputs)
    loss = sum(model.loss(model(inputs), Target(truth.masks, torch.zeros_like(truth.labelled))).values())
    assert loss.item() == 0
    loss.backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"stages": (0, 1)}, "different numbers out of"),
        ({"stages": (2, 2)}, "different numbers out of"),
        ({"visual_audio": False}, "visual_audio and visual_visual are both false"),
        ({"channels": 15}, "channels must be even"),
        ({"matching": -1.0}, "must be 0 or more"),
        ({"matching": 0.5, "stages": ()}, "needs stages and visual_audio"),
        ({"form": "cubic"}, "form = 'cubic'"),
        ({"padding": "none"}, "padding = 'none'"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        build(**settings)
