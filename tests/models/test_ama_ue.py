"""Tests of AMA+UE: formulas against plain loops, effects of the audio, gradients, and invalid settings."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

import avseg
from avseg.errors import ConfigError
from avseg.interface import IGNORE, Clip, Target
from avseg.mel import OFFSET
from avseg.models.ama_ue import AMA, AMAUE, Temporal, extremes
from avseg.nn.evidence import vacuity


def settings(**changes: Any) -> AMAUE.Config:
    return AMAUE.Config(
        **{"visual": "pvt_v2_b0", "audio": "compact", "channels": 32, "heads": 4, "dropout": 0.0, **changes}
    )


def model(classes: int = 1, **changes: Any) -> AMAUE:
    torch.manual_seed(0)
    return AMAUE(settings(train_audio=True, **changes), classes)


def clip(b: int = 2, t: int = 3, size: int = 64) -> Clip:
    make = torch.Generator().manual_seed(1)
    return Clip(torch.randn(b, t, 3, size, size, generator=make), torch.randn(b, t, 1, 96, 64, generator=make))


def target(like: Clip, classes: int = 1) -> Target:
    b, t, _, h, w = like.frames.shape
    return Target(torch.randint(0, max(2, classes), (b, t, h, w)), torch.ones(b, t, dtype=torch.bool))


def ama(channels: int = 8, audio: int = 6, **changes: Any) -> AMA:
    torch.manual_seed(0)
    return AMA(channels, audio, settings(**{"heads": 2, **changes})).eval()


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([*terms.values()]).sum()


class Same(nn.Module):
    """Replace the refinement layer by the identity, which leaves the formula."""

    def forward(self, compact: Tensor) -> Tensor:
        return compact


@torch.no_grad()
def test_response_is_the_mean_of_head_logits() -> None:
    block, maps, audio = ama(), torch.randn(2, 8, 3, 3), torch.randn(2, 6)
    aligned = block(maps, audio)[1]
    for n in range(2):
        key = block.key(block.audio(audio[n]))
        for i, token in enumerate(aligned.tokens[n]):
            query = block.query(token)
            heads = [query[h * 4 : h * 4 + 4].dot(key[h * 4 : h * 4 + 4]) / math.sqrt(4) for h in range(2)]
            assert aligned.response[n, i].item() == pytest.approx(torch.stack(heads).mean().item(), abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("merging", ["audio", "mean"])
@pytest.mark.parametrize("correlation", ["global", "group"])
def test_groups_are_merged_and_refined_by_the_formula(merging: str, correlation: str) -> None:
    block = ama(merging=merging, correlation=correlation, refine_layers=2)
    block.layers = nn.ModuleList([Same(), Same()])
    fused, response = torch.randn(1, 6, 8), torch.randn(1, 6)
    groups = torch.tensor([[0, 1, 0, 2, 1, 0]])
    found = block._converge(fused, response, one_hot(groups).mT.bool())[0]
    f = fused[0]
    s = response[0] if merging == "audio" else torch.zeros(6)
    for p in range(3):
        mine = [i for i in range(6) if groups[0, i] == p]
        total = sum(math.exp(s[i]) for i in mine)
        g = sum((math.exp(s[i]) / total * f[i] for i in mine), torch.zeros(8))
        for _ in range(2):
            reached = mine if correlation == "group" else list(range(6))
            weights = [math.exp(float(g @ f[i]) / math.sqrt(8) + s[i]) for i in reached]
            g = g + sum((w / sum(weights) * f[i] for w, i in zip(weights, reached, strict=True)), torch.zeros(8))
        assert torch.allclose(found[p], g, atol=1e-4)


@torch.no_grad()
def test_ama_output_is_token_plus_audio_plus_group() -> None:
    block = ama(refine_layers=1, groups=3)
    block.layers = nn.ModuleList([Same()])
    maps, audio = torch.randn(1, 8, 4, 4), torch.randn(1, 6)
    out, aligned = block(maps, audio)
    assert aligned.members is not None
    fused = aligned.tokens + aligned.response.sigmoid()[..., None] * block.value(aligned.audio)[:, None]
    fused = (fused - fused.mean(-1, keepdim=True)) / fused.std(-1, unbiased=False, keepdim=True)
    compact = block._converge(fused, aligned.response, aligned.members)
    assert block.group_out is not None
    for i in range(16):
        mine = compact[0, aligned.members[0, :, i].int().argmax()]
        expected = maps[0, :, i // 4, i % 4] + block.token_out(fused[0, i]) + block.group_out(mine)
        assert torch.allclose(out[0, :, i // 4, i % 4], expected, atol=1e-4)


@torch.no_grad()
def test_ama_residual_is_small_at_initialisation() -> None:
    """Compare the residual with 0.1 of the token length for the token and for its group."""
    maps, audio = torch.randn(1, 8, 4, 4), 50 * torch.randn(1, 6)
    for grouping in (False, True):
        change = ama(grouping=grouping)(maps, audio)[0] - maps
        assert change.norm(dim=1).max() <= (0.1 + 0.1 * grouping) * math.sqrt(8) + 1e-5


@torch.no_grad()
def test_ama_invariant_to_audio_scale() -> None:
    block, maps, audio = ama(), torch.randn(2, 8, 4, 4), torch.randn(2, 6)
    (one, quiet), (two, loud) = block(maps, audio), block(maps, 100 * audio)
    assert torch.allclose(quiet.response, loud.response, atol=1e-3)
    assert torch.allclose(one, two, atol=1e-3)


@torch.no_grad()
def test_refined_groups_have_fixed_length() -> None:
    """Check that G has length √D after every layer, so that G fᵀ / √D does not exceed √D."""
    block, seen = ama(channels=16, refine_layers=3), []
    for layer in block.layers:
        layer.forward_block[-1].weight.mul_(1000)
        layer.register_forward_hook(lambda *args: seen.append(args[-1]))
    block(torch.randn(2, 16, 4, 4), 100 * torch.randn(2, 6))
    assert len(seen) == 3
    for vectors in seen:
        assert torch.allclose(vectors.norm(dim=-1), torch.tensor(4.0), atol=1e-2)


@torch.no_grad()
def test_ama_runs_between_backbone_stages() -> None:
    """Check that audio fused after stage 1 changes the outputs of later stages."""
    network, inputs = model(stages=(1,), temporal=False).eval(), clip()
    frames, audio = inputs.frames.flatten(0, 1), network.audio(inputs.audio).flatten(0, 1)

    def last(audio: Tensor) -> Tensor:
        seen: Tensor = network.visual(frames, lambda i, x: network.alignment["1"](x, audio)[0] if i == 1 else x)[-1]
        return seen

    assert not torch.allclose(last(audio), last(audio.flip(0)), atol=1e-4)
    assert torch.equal(network.visual(frames, lambda _, x: x)[-1], network.visual(frames)[-1])


@pytest.mark.parametrize("grid", [28, 4])
def test_empty_group_keeps_outputs_finite(grid: int) -> None:
    """Use a grid whose centres are not tokens, so that a group may be empty."""
    block = ama(groups=5, cluster_grid=grid)
    maps = torch.randn(2, 8, 8, 8).repeat(1, 1, 1, 1)
    maps[:, :, ::2] = -maps[:, :, 1::2]  # averages of opposites are near nothing
    out, aligned = block(maps.requires_grad_(), torch.randn(2, 6))
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in block.parameters())
    assert aligned.members is not None
    assert aligned.members.shape == (2, 5, 64)
    assert torch.equal(aligned.members.sum(1), torch.ones(2, 64, dtype=torch.int64))


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2)])
def test_fewer_tokens_than_clusters(size: tuple[int, int]) -> None:
    block = ama(groups=5)
    out, aligned = block(torch.randn(3, 8, *size), torch.randn(3, 6))
    assert out.isfinite().all()
    assert aligned.members is not None
    count = size[0] * size[1]
    assert aligned.members.shape == (3, count, count)
    assert (aligned.members.sum(1) == 1).all()
    assert (aligned.members.sum(2) == 1).all()


@torch.no_grad()
def test_identical_tokens_stay_identical() -> None:
    block = ama()
    maps = torch.randn(1, 8, 1, 1).expand(1, 8, 4, 4)
    out = block(maps, torch.randn(1, 6))[0].flatten(2)
    members = block(maps, torch.randn(1, 6))[1].members
    assert out.isfinite().all()
    assert members is not None
    others = out[0][:, members[0, 0]]
    assert torch.allclose(others, others[:, :1].expand_as(others), atol=1e-6)


@torch.no_grad()
def test_temporal_attention_excludes_padding_frames() -> None:
    torch.manual_seed(0)
    block, maps = Temporal(4, 2).eval(), torch.randn(3, 4, 2, 2)
    valid = torch.tensor([[True, True, False]])
    out = block(maps, valid)
    for y in range(2):
        for x in range(2):
            tokens = maps[:, :, y, x]
            q, k, v = block.inside(block.norm(tokens)).chunk(3, -1)
            for t in range(3):
                heads = []
                for h in (slice(0, 2), slice(2, 4)):
                    weights = [math.exp(float(q[t, h] @ k[u, h]) / math.sqrt(2)) for u in range(2)]
                    heads.append(sum(w / sum(weights) * v[u, h] for u, w in enumerate(weights)))
                expected = tokens[t] + block.outside(torch.cat(heads))
                assert torch.allclose(out[t, :, y, x], expected, atol=1e-5)


@torch.no_grad()
def test_frames_interact_only_through_temporal_attention() -> None:
    inputs = clip(1, 3)
    other = inputs.audio.clone()
    other[:, 2] = other[:, 2].flip(-1)
    for temporal, meets in ((True, True), (False, False)):
        network = model(temporal=temporal).eval()
        one, two = (network(Clip(inputs.frames, audio)).logits[:, 0] for audio in (inputs.audio, other))
        assert torch.equal(one, two) is not meets


def test_extremes_select_highest_and_lowest_responses() -> None:
    best, worst = extremes(torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0]]), 0.4)
    assert best.tolist() == [[False, False, False, True, True]]
    assert worst.tolist() == [[False, True, True, False, False]]
    assert [m.sum().item() for m in extremes(torch.zeros(1, 3), 0.1)] == [1, 1]
    assert not (extremes(torch.zeros(2, 9), 0.5)[0] & extremes(torch.zeros(2, 9), 0.5)[1]).any()
    assert [m.sum().item() for m in extremes(torch.zeros(1, 1), 0.2)] == [0, 0]


def silent(like: Clip) -> Clip:
    return Clip(like.frames, torch.full_like(like.audio, math.log(OFFSET)))


def test_contrast_of_silence_is_zero_and_finite() -> None:
    network, inputs = model().train(), clip()
    truth = target(inputs)
    half = Clip(inputs.frames, torch.cat([inputs.audio[:1], silent(inputs).audio[1:]]))
    terms = network.loss(network(silent(inputs)), truth)
    assert terms["contrast"].item() == 0
    total(terms).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    network.eval()
    of_first = Target(truth.masks[:1], truth.labelled[:1])
    alone = network.loss(network(Clip(half.frames[:1], half.audio[:1])), of_first)["contrast"]
    assert torch.allclose(network.loss(network(half), truth)["contrast"], alone, atol=1e-5)


def test_contrast_trains_audio_and_visual_paths_but_no_head() -> None:
    network, inputs = model().train(), clip()
    network.loss(network(inputs), target(inputs))["contrast"].backward()
    reached = {n.split(".")[0] for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"visual", "audio", "alignment"}


@torch.no_grad()
def test_contrast_by_truth_uses_sounding_pixels() -> None:
    network, inputs = model(positives="truth").eval(), clip(1, 2)
    masks = torch.zeros(1, 2, 64, 64, dtype=torch.int64)
    masks[:, 0, :32] = 1
    masks[:, 0, 32:, :32] = IGNORE
    prediction = network(inputs)
    found = network.loss(prediction, Target(masks, torch.ones(1, 2, dtype=torch.bool)))["contrast"]
    total = 0.0
    for stage in prediction.state.aligned:
        side = stage.size[0]
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        positive = (rows < side / 2).flatten()
        negative = (~positive) & (columns >= side / 2).flatten()
        near = torch.cosine_similarity(stage.audio[0], stage.tokens[0], dim=-1) / 0.07  # the second has no positives
        against = near[negative].exp().sum()
        total += float(-(near.exp() / (near.exp() + against)).log()[positive].mean()) / 4
    assert found.item() == pytest.approx(0.1 * total, rel=1e-4)
    nothing = network.loss(prediction, Target(masks, torch.zeros(1, 2, dtype=torch.bool)))
    assert nothing["contrast"].item() == 0


@torch.no_grad()
@pytest.mark.parametrize("classes", [1, 4])
def test_prediction_is_down_weighted_and_stays_a_distribution(classes: int) -> None:
    network = model(classes).eval()
    prediction = network(clip(), maps=True)
    state = prediction.state
    u = torch.nn.functional.interpolate(vacuity(state.alpha), (64, 64), mode="bilinear").unflatten(0, (2, 3))
    assert (u > 0).all()
    assert (u <= 1).all()
    if classes == 1:
        expected = state.logits.sigmoid() * (1 - u)
    else:
        p = state.logits.softmax(2)
        expected = p * (1 - u)
        expected[:, :, :1] += u
    assert torch.allclose(prediction.probabilities, expected, atol=1e-5)
    shown = prediction.maps["uncertainty"]
    assert shown.shape == (2, 3, 1, 16, 16)
    assert torch.equal(shown.flatten(0, 1), vacuity(state.alpha))


@torch.no_grad()
def test_without_uncertainty_prediction_is_the_mask_head() -> None:
    network = model(uncertainty=False).eval()
    prediction = network(clip(), maps=True)
    assert torch.equal(prediction.logits, prediction.state.logits)
    assert "uncertainty" not in prediction.maps
    assert set(network.loss(prediction, target(clip()))) == {"bce", "dice", "iou", "contrast"}


@pytest.mark.parametrize("classes", [1, 4])
def test_loss_has_the_weighted_terms(classes: int) -> None:
    network, inputs = model(classes, evidence_weight=2.0, contrast_weight=3.0).train(), clip()
    truth = target(inputs, classes)
    prediction = network(inputs)
    terms = network.loss(prediction, truth)
    assert set(terms) == {"bce" if classes == 1 else "ce", "dice", "iou", "contrast", "evidence"}
    plain = model(classes, evidence_weight=1.0, contrast_weight=1.0).train()
    once = plain.loss(prediction, truth)
    assert terms["evidence"].item() == pytest.approx(2 * once["evidence"].item())
    assert terms["contrast"].item() == pytest.approx(3 * once["contrast"].item())


@torch.no_grad()
@pytest.mark.parametrize(("data", "weigh"), [("cross_entropy", torch.digamma), ("likelihood", torch.log)])
def test_evidence_is_compared_at_the_resolution_of_the_head_and_annealed(
    data: str, weigh: Callable[[Tensor], Tensor]
) -> None:
    network, inputs = (
        model(4, kl_anneal_steps=10, kl_weight=0.5, data_term=data, evidence_weight=0.1).train(),
        clip(1, 1),
    )
    truth = target(inputs, 4)
    truth.masks[:, :, :8] = IGNORE
    prediction = network(inputs)
    alpha = prediction.state.alpha[0].double()
    for step in range(12):
        total, count = 0.0, 0
        for y in range(16):
            for x in range(16):
                label = int(truth.masks[0, 0, 4 * y + 2, 4 * x + 2])
                if label == IGNORE:
                    continue
                a = alpha[:, y, x]
                wrong = torch.where(torch.arange(4) == label, 1.0, a)
                flat = torch.distributions.Dirichlet(torch.ones(4, dtype=torch.float64))
                kl = torch.distributions.kl_divergence(torch.distributions.Dirichlet(wrong), flat)
                total += float(weigh(a.sum()) - weigh(a[label]) + 0.5 * min(1.0, step / 10) * kl)
                count += 1
        assert int(network.steps) == step
        found = network.loss(prediction, truth)["evidence"].item()
        assert found == pytest.approx(0.1 * total / count, rel=1e-3)
        network.after_step(prediction, truth)
    network.eval()
    network.loss(prediction, truth)
    assert int(network.steps) == 12
    assert network.state_dict()["steps"] == 12


@pytest.mark.parametrize(
    "changes", [{}, {"grouping": False}, {"merging": "mean"}, {"supervise_logits": "mask"}, {"stages": (2, 4)}]
)
@pytest.mark.parametrize("classes", [1, 3])
def test_every_parameter_receives_gradient(changes: dict[str, Any], classes: int) -> None:
    network, inputs = model(classes, **changes).train(), clip()
    total(network.loss(network(inputs), target(inputs, classes))).backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.slow
def test_supervise_logits_selects_final_or_mask_logits() -> None:
    inputs = clip()
    truth = target(inputs)
    for supervise, reaches in (("final", True), ("mask", False)):
        network = model(supervise_logits=supervise).train()
        network.loss(network(inputs), truth)["dice"].backward()
        assert network.evidence_head is not None
        assert (network.evidence_head.weight.grad is not None) is reaches


def test_training_is_deterministic() -> None:
    """Check that ties of clusters are broken by index, not at random."""
    inputs = clip()
    truth = target(inputs)
    logits, gradients = [], []
    for _ in range(2):
        network = model().train()
        prediction = network(inputs)
        total(network.loss(prediction, truth)).backward()
        logits.append(prediction.logits)
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert torch.equal(*logits)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_maps_have_names_and_shapes() -> None:
    shown = model().eval()(clip(1, 2), maps=True).maps
    assert {name: tuple(x.shape) for name, x in shown.items()} == {
        "uncertainty": (1, 2, 1, 16, 16),
        **{f"attention/ama{i}": (1, 2, 1, 2 ** (5 - i), 2 ** (5 - i)) for i in range(1, 5)},
        **{f"group/ama{i}": (1, 2, 5 if i < 4 else 4, 2 ** (5 - i), 2 ** (5 - i)) for i in range(1, 5)},
    }
    for i in range(1, 5):
        assert torch.equal(shown[f"group/ama{i}"].sum(2), torch.ones(1, 2, 2 ** (5 - i), 2 ** (5 - i)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"merging": "sound"}, "merging = 'sound'"),
        ({"correlation": "all"}, "correlation = 'all'"),
        ({"positives": "labels"}, "positives = 'labels'"),
        ({"supervise_logits": "both"}, "supervise_logits = 'both'"),
        ({"activation": "relu"}, "activation = 'relu'"),
        ({"data_term": "log"}, "data_term = 'log'"),
        ({"stages": (0, 1)}, "stages must be different numbers"),
        ({"groups": 0}, "groups must be 1 or more, got 0"),
        ({"channels": 30, "heads": 4}, "channels must be a multiple of heads = 4, got 30"),
        ({"contrast_share": 0.6}, "contrast_share must be in"),
        ({"dice_smooth": 0.0}, "dice_smooth and temperature must be above 0"),
        ({"contrast_weight": -1.0}, "contrast_weight must be 0 or more"),
        ({"evidence_weight": math.nan}, "evidence_weight of AMAUE must be float, got nan"),
        ({"kl_weight": -1.0}, "kl_weight must be 0 or more"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"heads": 3, "channels": 30}, "heads = 3 must divide the channels of resnet18"),
    ],
)
def test_invalid_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        avseg.build("ama_ue", **{"visual": "resnet18", "audio": "compact", "channels": 32, "heads": 4, **changes})
