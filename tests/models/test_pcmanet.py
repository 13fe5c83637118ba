"""Tests of PCMANet: equations against plain loops, gradients, and every row of Table IV."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import avseg
from avseg.errors import ConfigError
from avseg.interface import Clip, Target
from avseg.losses import bce, iou_loss
from avseg.models.pcmanet import AVGA, CIM, GF, QSCA, PCMANet

SMALL: dict[str, Any] = {"visual": "pvt_v2_b0", "audio": "none", "channels": 32, "groups": 2, "heads": 2}
PRIOR: dict[str, Any] = {"visual": "efficientnet_lite0", "audio": "mobile", "class_prior": True}
ABLATION = {
    "baseline": {"avga": False, "qsca": False},
    "AVGA": {"qsca": False},
    "QSCA without mask": {"select": False},
    "CIM without progression": {"progression": False},
    "QSCA without continuity": {"continuity": False},
    "full": {},
}
"""Settings of the rows of Table IV, in order."""


def build(classes: int = 1, **config: Any) -> PCMANet:
    return avseg.build("pcmanet", classes, **{**SMALL, **config})  # type: ignore[return-value]


def clip(b: int = 2, t: int = 3, h: int = 64, w: int = 64, seed: int = 0) -> Clip:
    make = torch.Generator().manual_seed(seed)
    return Clip(torch.randn(b, t, 3, h, w, generator=make), torch.randn(b, t, 128, generator=make))


def target(like: Clip, classes: int = 1) -> Target:
    b, t, _, h, w = like.frames.shape
    return Target(torch.randint(0, max(classes, 2), (b, t, h, w)), torch.ones(b, t, dtype=torch.bool))


def qsca(**settings: Any) -> QSCA:
    return QSCA(8, 2, **{"update_audio": True, "scatter_grad": True, "transpose": True, "gather": True, **settings})


def test_fig3_avga_is_a_cosine_per_group_and_pixel() -> None:
    module = AVGA(8, 2).eval()
    maps, audio = torch.randn(2, 8, 3, 3), torch.randn(2, 8)
    grouped, audio_in = module.visual(maps), module.audio(audio)
    weighted = torch.zeros_like(grouped)
    found = module(maps, audio)
    for n in range(2):
        for g in range(2):
            for y in range(3):
                for x in range(3):
                    v = grouped[n, 4 * g : 4 * g + 4, y, x]
                    cosine = v @ audio_in[n] / (v.norm().clamp(min=1e-12) * audio_in[n].norm().clamp(min=1e-12))
                    assert found[1][n, g, y, x].item() == pytest.approx(cosine.item(), abs=1e-5)
                    weighted[n, 4 * g : 4 * g + 4, y, x] = cosine * v
    assert torch.allclose(found[0], module.mix(weighted), atol=1e-5)


def _slow_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Compute Eq. (2) for one query and a list of keys."""
    size = len(q) // heads
    out = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = [math.exp((q[part] @ key[part]).item() / math.sqrt(size)) for key in k]
        out.append(sum(s / sum(scores) * value[part] for s, value in zip(scores, v, strict=True)))
    return torch.cat(out)


def test_eq1_to_eq4_query_selected_cross_attention() -> None:
    module = qsca().eval()
    valid = torch.tensor([[True, True], [True, False]])
    maps, audio = torch.randn(4, 8, 2, 3), torch.randn(2, 2, 8)
    mask = torch.rand(4, 1, 2, 3) > 0.5
    guide, updated = module(maps, audio, mask, valid)
    tokens, audio_in = module.embed(maps.flatten(2).mT).view(2, 2, 6, 8), module.audio(audio)
    normed_tokens, normed_audio = module.norm(tokens), module.norm(audio_in)
    for b in range(2):
        frames = [t for t in range(2) if valid[b, t]]
        q_a, k_a, v_a = module.audio_qkv(normed_audio[b]).chunk(3, -1)
        k_v, v_v = module.visual_kv(normed_tokens[b]).chunk(2, -1)
        for t in range(2):
            by_audio = _slow_attention(q_a[t], k_v[frames].flatten(0, 1), v_v[frames].flatten(0, 1), 2)
            assert torch.allclose(updated[b, t], module.out(by_audio) + audio_in[b, t], atol=1e-5)
            for n in range(6):
                y, x = divmod(n, 3)
                attended = torch.zeros(8)
                if mask[2 * b + t, 0, y, x]:
                    attended = _slow_attention(module.visual_q(normed_tokens[b, t, n]), k_a[frames], v_a[frames], 2)
                expected = module.out(attended) + tokens[b, t, n]
                assert torch.allclose(guide[2 * b + t, :, y, x], expected, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_eq4_gathered_equals_dense_on_selected_tokens(share: float) -> None:
    sparse, dense = qsca().eval(), qsca(gather=False).eval()
    dense.load_state_dict(sparse.state_dict())
    rows: list[int] = []
    sparse.visual_q.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[1]))
    maps, audio, valid = torch.randn(6, 8, 5, 5), torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool)
    mask = torch.rand(6, 1, 5, 5) < share
    for one, two in zip(sparse(maps, audio, mask, valid), dense(maps, audio, mask, valid), strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    assert sum(rows) == mask.sum()


def test_eq4_scatter_grad_controls_the_gradient() -> None:
    mask, valid = torch.rand(2, 1, 4, 4) > 0.3, torch.ones(1, 2, dtype=torch.bool)
    for scatter_grad in (True, False):
        module = qsca(scatter_grad=scatter_grad)
        guide, _ = module(torch.randn(2, 8, 4, 4), torch.randn(1, 2, 8), mask, valid)
        guide.square().sum().backward()
        grad = module.visual_q.weight.grad
        assert (grad is not None and grad.any().item()) is scatter_grad


def test_transpose_tokens_false_reshapes_as_the_release() -> None:
    right, scrambled = qsca().eval(), qsca(transpose=False).eval()
    scrambled.load_state_dict(right.state_dict())
    inputs = torch.randn(1, 8, 2, 4), torch.randn(1, 1, 8), None, torch.ones(1, 1, dtype=torch.bool)
    tokens = right(*inputs)[0].flatten(2).mT
    assert torch.allclose(scrambled(*inputs)[0], tokens.reshape(1, 8, 2, 4))


@pytest.mark.parametrize("closed", [False, True])
def test_eq7_a_mask_keeps_what_is_not_confident_in_an_open_or_closed_interval(closed: bool) -> None:
    unit = CIM(0.75, progression=True, closed=closed)
    probabilities = torch.tensor([0.1, 0.25, 0.26, 0.5, 0.74, 0.75, 0.9])
    logits = torch.logit(probabilities.double()).view(1, 1, 1, 7)
    # 0.25 and 0.75 are exact in floating point; their logits are made to come back as exactly that.
    found = unit(None, logits.float())
    assert found.flatten().tolist()[2:5] == [True] * 3
    assert found.flatten().tolist()[::6] == [False] * 2


def test_eq7_bounds() -> None:
    logit = torch.zeros(1, 1, 1, 1)
    assert CIM(0.5, progression=True, closed=True)(None, logit).item() is True
    assert CIM(0.5, progression=True, closed=False)(None, logit).item() is False


def test_eq7_progression_keeps_confident_pixels() -> None:
    previous = torch.tensor([[True, False]]).view(1, 1, 1, 2)
    output = torch.zeros(1, 1, 2, 4)
    progressive = CIM(0.99, progression=True, closed=False)(previous, output)
    assert progressive[0, 0].tolist() == [[True, True, False, False]] * 2
    assert CIM(0.99, progression=False, closed=False)(previous, output).all()


def test_eq7_with_several_classes_uses_the_largest_probability() -> None:
    output = torch.tensor([[9.0, 0.0], [0.0, 0.1], [0.0, 0.0]]).view(1, 3, 1, 2)
    assert CIM(0.99, progression=True, closed=False)(None, output).flatten().tolist() == [False, True]


def test_guided_fusion_adds_level_deeper_and_guide() -> None:
    module = GF(4, deeper=True, guide=True).eval()
    level, deeper, guide = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 2, 2), torch.randn(1, 4, 4, 4)
    large = nn.functional.interpolate(deeper, (4, 4), mode="bilinear")
    assert module.deeper is not None
    assert module.guide is not None
    assert torch.allclose(module(level, deeper, guide), module.fuse(level + module.deeper(large) + module.guide(guide)))
    assert GF(4, deeper=False, guide=True).deeper is None


def test_eq10_eq11_sum_over_stages_with_their_weights() -> None:
    weights = (1.0, 0.5, 2.0, 0.0)
    model = build(stage_weights=weights, iou_smooth=1.0)
    inputs = clip()
    prediction, truth = model(inputs), target(inputs)
    truth = Target(truth.masks, torch.tensor([[True, False, False], [True, True, False]]))
    total = 0.0
    for logits, weight in zip((prediction.logits, *prediction.aux), weights, strict=True):
        pair = logits[truth.labelled], truth.masks[truth.labelled]
        total = total + weight * (bce(*pair) + iou_loss(*pair, smooth=1.0))
    assert torch.allclose(torch.stack(list(model.loss(prediction, truth).values())).sum(), total)


def test_semantic_loss_is_cross_entropy_only() -> None:
    inputs = clip(1, 1)
    model = build(classes=5)
    assert set(model.loss(model(inputs), target(inputs, 5))) == {"ce/1", "ce/2", "ce/3", "ce/4"}


@pytest.mark.parametrize("row", ABLATION)
@pytest.mark.parametrize("classes", [1, 5])
def test_table4_every_row_trains_every_parameter(row: str, classes: int) -> None:
    model = build(classes, audio="compact", train_audio=True, **ABLATION[row]).train()
    inputs = Clip(torch.randn(2, 3, 3, 64, 64), torch.randn(2, 3, 1, 96, 64))
    sum(model.loss(model(inputs), target(inputs, classes)).values()).backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


@pytest.mark.parametrize("row", ABLATION)
def test_table4_rows_report_the_masks_they_have(row: str) -> None:
    expected = {"keep_ratio/4", "keep_ratio/3", "keep_ratio/2"}
    has_masks = row not in ("baseline", "AVGA", "QSCA without mask")
    assert set(build(**ABLATION[row]).eval()(clip()).scalars) == (expected if has_masks else set())


def test_release_masked_queries_receive_no_gradient() -> None:
    model = build(**PCMANet.RELEASE).train()
    inputs = clip()
    sum(model.loss(model(inputs), target(inputs)).values()).backward()
    grads = {i: model.qsca[str(i)].visual_q.weight.grad for i in (4, 3, 2, 1)}
    assert [i for i, g in grads.items() if g is not None and g.any()] == [4]


@pytest.mark.parametrize("settings", [{}, {"pool_tokens": True}])
def test_outputs_and_maps_of_every_stage(settings: dict[str, Any]) -> None:
    prediction = build(3, **settings).eval()(clip(1, 2, 75, 51), maps=True)
    assert [a.shape for a in prediction.aux] == [(1, 2, 3, 75, 51)] * 3
    assert prediction.maps["attention/avga4"].shape[:3] == (1, 2, 2)
    assert prediction.maps["mask/cim2"].dtype == torch.bool


def test_first_aux_output_is_o2() -> None:
    model = build().eval()
    coarse = []
    model.head["2"].register_forward_hook(lambda _, __, out: coarse.append(out))
    inputs = clip()
    enlarged = nn.functional.interpolate(coarse[0] if model(inputs) and coarse else None, (64, 64), mode="bilinear")
    assert torch.allclose(model(inputs).aux[0].flatten(0, 1), enlarged)


def test_padding_zero_attends_to_padding_frames_and_scalars_ignore_them() -> None:
    short = clip(1, 3)
    noise = torch.randn(1, 2, 3, 64, 64), torch.randn(1, 2, 128)
    padded = Clip(
        torch.cat([short.frames, noise[0]], 1),
        torch.cat([short.audio, noise[1]], 1),
        torch.tensor([[True, True, True, False, False]]),
    )
    model = build().eval()
    one, two = model(short).scalars, model(padded).scalars
    assert all(torch.allclose(one[k], two[k]) for k in one)
    zeroing = build(padding="zero").eval()
    assert not torch.allclose(zeroing(short).logits, zeroing(padded).logits[:, :3], atol=1e-5)


def test_clip_of_padding_only_is_finite() -> None:
    inputs = clip(2, 2)
    prediction = build().eval()(Clip(inputs.frames, inputs.audio, torch.tensor([[True, True], [False, False]])))
    assert prediction.logits.isfinite().all()


def test_confident_network_without_queries_predicts_finite_masks() -> None:
    model = build().eval()
    for head in model.head.values():
        nn.init.constant_(head[-1].bias, -20.0)
    prediction = model(clip())
    assert prediction.logits.isfinite().all()
    assert all(v == 0 for v in prediction.scalars.values())


def test_live_parameters_are_the_published_minus_unused() -> None:
    with torch.device("meta"):
        released = avseg.build("pcmanet", audio="none", unheard_audio=True)
        ours = avseg.build("pcmanet", audio="none")
    _, unused = PCMANet.published(released.config)
    live = sum(p.numel() for p in released.parameters())
    assert live / 1e6 == pytest.approx(43.03, abs=0.01)
    assert (live + unused) / 1e6 == pytest.approx(65.68, rel=1e-3)
    assert sum(p.numel() for p in ours.parameters()) == live - 3 * 256 * 256  # K_v, V_v and Q_a for A_0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"groups": 7}, "channels = 32 must be a multiple of groups = 7"),
        ({"heads": 0}, "multiple of heads = 0"),
        ({"confidence": 0.3}, r"confidence must be in 0.5..1, got 0.3"),
        ({"class_prior": True}, "class_prior needs visual = 'efficientnet_lite0', audio = 'mobile'"),
        ({**PRIOR, "stereo": True}, "class_prior needs"),
        ({**PRIOR, "embedding_dropout": 1.0}, "embedding_dropout must be"),
        ({**PRIOR, "embedding_dropout": -0.1}, "embedding_dropout must be"),
    ],
)
def test_invalid_settings_are_refused(config: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**config)


def train_step(model: PCMANet, inputs: Clip) -> None:
    torch.stack([*model.loss(model.train()(inputs), target(inputs)).values()]).sum().backward()


@pytest.mark.parametrize("visual", ["resnet18", "efficientnet_lite0"])
@pytest.mark.parametrize("training", ["full", "fixed_norm", "frozen"])
def test_visual_training_decides_gradients_and_batch_norm_statistics(training: str, visual: str) -> None:
    model = build(visual=visual, visual_training=training)
    norms = {n: m.running_mean.clone() for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    train_step(model, clip())
    with_gradient = {
        n.startswith("visual.") for n, p in model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert with_gradient == ({True, False} if training != "frozen" else {False})
    assert {p.requires_grad for p in model.visual.parameters()} == {training != "frozen"}
    changed = {n for n, m in model.named_modules() if n in norms and not torch.equal(m.running_mean, norms[n])}
    in_visual = {n for n in norms if n.startswith("visual.")}
    assert changed & in_visual == (in_visual if training == "full" else set())
    assert changed - in_visual == norms.keys() - in_visual
    assert model.visual.training is (training != "frozen")


def test_fixed_norm_trains_the_affine_parameters_of_batch_norms() -> None:
    model = build(visual_training="fixed_norm")
    train_step(model, clip())
    norms = [m for m in model.visual.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.weight.grad.any() and m.bias.grad.any() for m in norms)


def log_mel_clip(b: int, t: int = 2) -> Clip:
    return Clip(clip(b, t).frames, torch.randn(b, t, 1, 96, 64))


@torch.no_grad()
def test_embedding_dropout_zeroes_whole_clips_in_training_only() -> None:
    model = build(**PRIOR, embedding_dropout=0.5)
    embeddings = torch.rand(400, 3, 512) + 0.1
    dropped = model.train()._dropped(embeddings)
    zero = (dropped == 0).flatten(1)
    assert torch.equal(zero.all(1), zero.any(1))
    assert 150 < zero.all(1).sum() < 250
    assert torch.equal(dropped[~zero.all(1)], embeddings[~zero.all(1)])
    assert model.eval()._dropped(embeddings) is embeddings
    assert build(**PRIOR).train()._dropped(embeddings) is embeddings


@torch.no_grad()
def test_embedding_dropout_keeps_the_audio_of_the_prior() -> None:
    """With all embeddings dropped, audio reaches the masks through the AudioSet scores alone."""
    model, inputs = build(**PRIOR, embedding_dropout=0.5).eval(), log_mel_clip(1)
    seen: list[Tensor] = []
    model.prior.prior.register_forward_hook(lambda _, args, __: seen.append(args[1]))
    model.audio_linear.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    model._dropped = torch.zeros_like  # type: ignore[method-assign]
    model(inputs)
    embeddings, scores = seen
    assert not embeddings.any()
    assert torch.equal(scores, model.audio.scores(model.audio(inputs.audio)).flatten(0, 1))


@torch.no_grad()
def test_class_prior_changes_every_stage_and_is_a_map() -> None:
    model, inputs = build(**PRIOR).eval(), log_mel_clip(1)
    prediction = model(inputs, maps=True)
    assert prediction.maps["attention/prior"].shape == (1, 2, 4, 2, 2)
    for mix in model.prior.mix.values():
        weight = mix.weight.clone()
        mix.weight.zero_()
        assert not torch.equal(model(inputs).logits, prediction.logits)
        mix.weight.copy_(weight)


@torch.no_grad()
def test_object_scores_are_the_mean_of_the_class_maps_over_the_mask() -> None:
    model, inputs = build(**PRIOR).eval(), log_mel_clip(1)
    maps: list[Tensor] = []
    model.prior.prior.register_forward_hook(lambda _, __, out: maps.append(out[1]))
    prediction = model(inputs)
    height, width = maps[0].shape[-2:]
    logits = torch.full_like(prediction.logits, -20.0)
    stride = logits.shape[-1] // width
    logits[:, 0, :, :stride, :stride] = 20.0  # frame 0: one position; frame 1: none
    logits[:, 0, :, stride : 2 * stride, :stride] = 0.0  # another with half of the weight
    scores = model.object_scores(replace(prediction, logits=logits))
    assert scores.shape == (1, 2, len(model.object_names))
    assert height > 1
    expected = (maps[0][0, :, 0, 0] + 0.5 * maps[0][0, :, 1, 0]) / 1.5
    torch.testing.assert_close(scores[0, 0], expected)
    assert not scores[0, 1].any()
    assert model.object_names[:2] == ("person", "dog")


@torch.no_grad()
def test_objects_are_scored_with_a_class_prior_and_one_class_alone() -> None:
    without, several = build(**{**PRIOR, "class_prior": False}), avseg.build("pcmanet", classes=3, **PRIOR)
    for model in (without.eval(), several.eval()):
        assert model.object_names == ()
        assert model.object_scores(model(log_mel_clip(1))) is None


def test_class_prior_trains_its_scalars_and_rows_but_not_the_image_classifier() -> None:
    model = build(**PRIOR)
    train_step(model, log_mel_clip(2))
    prior = model.prior.prior
    for name in ("audio_scale", "audio_shift", "image_scale", "image_other"):
        assert getattr(prior, name).grad.abs() > 0, name
    assert prior.learned.weight.grad.any()
    assert all(p.grad is None for p in prior.head.parameters())
    assert all(p.grad is None for p in model.audio.parameters())


def test_avga_of_silence_and_of_a_black_region_is_finite_in_float16() -> None:
    block = AVGA(8, 2).half().eval()
    with torch.no_grad():
        block.audio[1].bias.fill_(-10.0)  # the ReLU after it makes all embeddings zero
        fused, attention = block(torch.randn(2, 8, 3, 3).half(), torch.zeros(2, 8).half())
    assert fused.isfinite().all()
    assert not attention.any()
