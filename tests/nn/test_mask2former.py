"""Tests of MaskTransformer against the Mask2Former of transformers, and of masked attention."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Mask2FormerConfig, Mask2FormerModel, SwinConfig

from avseg.nn.mask2former import LEVELS, MaskTransformer, PixelFeatures, QueryOutputs

CHANNELS = (8, 16, 24, 40)
TINY: dict[str, Any] = {"width": 32, "queries": 5, "layers": 4, "pixel_layers": 2, "heads": 4, "feedforward": 48}
"""More layers than levels."""


def build(channels: tuple[int, ...] = CHANNELS, **settings: Any) -> MaskTransformer:
    return MaskTransformer(channels, **{**TINY, **settings}).eval()


def features(n: int = 2, height: int = 64, width: int = 96) -> tuple[Tensor, ...]:
    """Return backbone maps at strides 4, 8, 16, 32."""
    strides = (4, 8, 16, 32)
    return tuple(torch.randn(n, c, height // s, width // s) for c, s in zip(CHANNELS, strides, strict=True))


def decode(net: MaskTransformer, pixels: PixelFeatures) -> QueryOutputs:
    """Return queries unchanged, without audio."""
    queries, positions = (q.expand(len(pixels.masks), -1, -1) for q in net.queries)
    return net.decode(pixels, queries, positions, lambda _, asking: asking)


def assert_is_theirs(drawn: QueryOutputs, masks: tuple[Tensor, ...], hidden: tuple[Tensor, ...]) -> None:
    """Stack the outputs of transformers, a tuple over layers of hidden states with queries first."""
    assert len(drawn.masks) == len(masks) == len(hidden) == TINY["layers"] + 1
    for ours, theirs in zip(drawn.masks, masks, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(drawn.queries, hidden, strict=True):
        torch.testing.assert_close(ours, theirs.transpose(0, 1), rtol=1e-5, atol=1e-5)


def test_decoder_without_audio_equals_transformers() -> None:
    net = build()
    with torch.no_grad():
        pixels = net.pixels(features())
        theirs = net.transformer_module([*pixels.levels], pixels.masks)
        drawn = decode(net, pixels)
    assert_is_theirs(drawn, theirs.masks_queries_logits, theirs.intermediate_hidden_states)
    assert torch.equal(drawn.masks[-1], torch.einsum("nqd,ndhw->nqhw", drawn.embeddings, pixels.masks))


def whole_mask2former() -> Mask2FormerModel:
    """Return the Mask2Former of transformers with the sizes of ours."""
    swin = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        num_queries=5,
        decoder_layers=5,
        encoder_layers=2,
        num_attention_heads=4,
        dim_feedforward=48,
        encoder_feedforward_dim=24,
    )
    return Mask2FormerModel(config).eval()


def without_backbone(whole: Mask2FormerModel) -> dict[str, Tensor]:
    return {k: v for k, v in whole.state_dict().items() if not k.startswith("pixel_level_module.encoder")}


def test_weights_of_a_whole_mask2former_fit_by_name() -> None:
    """Check that all weights except the backbone load, and that none of ours is missing."""
    whole = whole_mask2former()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # no weight is what ours begins with
    ours = build((8, 16, 32, 64))
    ours.load_state_dict(without_backbone(whole), strict=True)
    pictures = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        theirs = whole(pictures, output_hidden_states=True)
        pixels = ours.pixels(tuple(whole.pixel_level_module.encoder(pictures).feature_maps))
        drawn = decode(ours, pixels)
    assert_is_theirs(drawn, theirs.masks_queries_logits, theirs.transformer_decoder_intermediate_states)
    torch.testing.assert_close(pixels.masks, theirs.pixel_decoder_last_hidden_state)


def test_shapes_and_order_of_levels() -> None:
    net = build()
    pixels = net.pixels(features(n=3))
    assert pixels.masks.shape == (3, 32, 16, 24)
    assert [level.shape for level in pixels.levels] == [(3, 32, 2, 3), (3, 32, 4, 6), (3, 32, 8, 12)]
    assert len(pixels.levels) == LEVELS
    drawn = decode(net, pixels)
    assert drawn.queries.shape == (5, 3, 5, 32)
    assert drawn.masks.shape == (5, 3, 5, 16, 24)
    assert drawn.embeddings.shape == (3, 5, 32)


def test_images_are_independent() -> None:
    net = build()
    index = torch.tensor([2, 0])
    with torch.no_grad():
        pixels = net.pixels(features(n=3))
        together, some = decode(net, pixels), decode(net, pixels.of(index))
    torch.testing.assert_close(together.masks[:, index], some.masks, rtol=1e-4, atol=1e-5)


def test_before_is_called_before_each_layer() -> None:
    """Check that outputs depend on the given queries only, not on the class-agnostic ones."""
    net = build()
    pixels = net.pixels(features())
    calls: list[tuple[int, Tensor]] = []
    told = torch.randn(2, 3, 32)

    def before(layer: int, queries: Tensor) -> Tensor:
        calls.append((layer, queries))
        return queries + told * (layer == 3)

    start = torch.randn(2, 3, 32)
    drawn = net.decode(pixels, start, torch.zeros_like(start), before)
    assert [layer for layer, _ in calls] == [0, 1, 2, 3]
    assert torch.equal(calls[0][1], start)
    silent = net.decode(pixels, start, torch.zeros_like(start), lambda _, asking: asking)
    assert torch.equal(drawn.masks[:4], silent.masks[:4])
    assert not torch.allclose(drawn.masks[4], silent.masks[4], atol=1e-3)


def test_attention_mask_excludes_pixels_outside_unless_empty() -> None:
    net = build()
    masks = torch.randn(2, 5, 8, 12)
    masks[0, 1] = -1.0
    masks[1, 4] = 1.0
    outside = net._outside(masks, torch.Size((4, 6)))
    assert outside.shape == (2 * 4, 5, 4 * 6)
    assert outside.dtype == torch.bool
    for n in range(2):
        for q in range(5):
            mask = masks[n, q]
            smaller = torch.tensor(  # halfway between pixels: the mean of four
                [[mask[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean() for c in range(6)] for r in range(4)]
            )
            blocked = smaller.flatten().sigmoid() < 0.5
            expected = torch.zeros(24, dtype=torch.bool) if blocked.all() else blocked
            for head in range(4):
                assert torch.equal(outside[n * 4 + head, q], expected)
    assert not outside[:4, 1].any()
    assert not outside[4:, 4].any()


@pytest.mark.parametrize("empty", [False, True])
def test_query_attends_within_its_mask_only(empty: bool) -> None:
    """Use one layer and one query whose mask is the left half of the image, or empty."""
    net = build(layers=1, queries=1)
    queries, positions = (q.expand(1, -1, -1) for q in net.queries)
    with torch.no_grad():
        embedding = net.predict_masks(queries, torch.zeros(1, 32, 16, 24))[1][0, 0]
        inside = torch.full((16, 24), -1.0)
        if not empty:
            inside[:, :12] = 1
        seen = torch.randn(1, 32, 4, 6)
        left, right = seen.clone(), seen.clone()
        left[..., :3] += torch.randn(32, 4, 3)
        right[..., 3:] += torch.randn(32, 4, 3)
        found = []
        for level in (seen, left, right):
            pixels = PixelFeatures(embedding[None, :, None, None] * inside, (level, torch.randn(1, 32, 8, 12), level))
            found.append(net.decode(pixels, queries, positions, lambda _, asking: asking).queries[-1])
    plain, changed_left, changed_right = found
    assert not torch.allclose(changed_left, plain, atol=1e-3)
    assert torch.allclose(changed_right, plain, atol=1e-6) != empty


def test_gradients_reach_every_parameter_and_the_backbone() -> None:
    net = build().train()
    with torch.no_grad():  # at first attention is flat, and does not show its dependencies
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    maps = tuple(f.requires_grad_() for f in features())
    drawn = decode(net, net.pixels(maps))
    loss = (drawn.masks * torch.randn_like(drawn.masks)).mean() + (drawn.queries * torch.randn(5, 2, 5, 32)).mean()
    loss.backward()
    left_out = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert left_out == []
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert all(f.grad is not None and f.grad.any() for f in maps)


def test_pixel_decoder_runs_in_float32() -> None:
    net = build()
    maps = tuple(f.bfloat16() for f in features())
    with torch.no_grad():
        alone = net.pixels(tuple(f.float() for f in maps))
        with torch.autocast("cpu", torch.bfloat16):
            within = net.pixels(maps)
            drawn = decode(net, within)
    assert within.masks.dtype == torch.float32
    assert torch.equal(within.masks, alone.masks)
    assert all(torch.equal(a, b) for a, b in zip(within.levels, alone.levels, strict=True))
    assert torch.isfinite(drawn.masks).all()


def test_initial_weights_equal_transformers() -> None:
    """Compare the deviation of each tensor; in the pixel decoder without convolutions and feed-forward layers."""
    ours = build((8, 16, 32, 64)).state_dict()
    for name, there in without_backbone(whole_mask2former()).items():
        wider = name.startswith("pixel_level_module") and (there.ndim == 4 or ".fc" in name)
        if not wider and there.numel() >= 256:
            torch.testing.assert_close(ours[name].std(), there.std(), rtol=0.2, atol=1e-6, msg=name)
    attention = build().pixel_level_module["decoder"].encoder.layers[0].self_attn
    assert not attention.sampling_offsets.weight.any()
    assert attention.sampling_offsets.bias.abs().max() == 4  # the farthest of four points
    assert not attention.attention_weights.weight.any()
