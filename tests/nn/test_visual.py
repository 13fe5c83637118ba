import subprocess
import sys
from typing import get_args

import pytest
import torch

from avseg.errors import ConfigError
from avseg.nn.visual import VisualBackbone, VisualName, VisualTraining, original_source

QUICK = {"resnet18", "resnet50", "pvt_v2_b0", "pvt_v2_b5", "swin_tiny", "efficientnet_lite0"}
"""Each kind of backbone, and both kinds of blocks of ResNet and of PVT-v2."""


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in get_args(VisualName)]
)
def test_every_backbone_has_four_maps(name: str) -> None:
    with torch.device("meta"):
        backbone = VisualBackbone(name)
        maps = backbone(torch.empty(2, 3, 64, 96))
    assert [tuple(m.shape[-2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert tuple(m.shape[1] for m in maps) == backbone.channels


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet18", 11.18),
        ("resnet50", 23.51),
        ("pvt_v2_b0", 3.41),
        ("pvt_v2_b5", 81.44),
        ("swin_tiny", 27.52),
        ("efficientnet_lite0", 2.96),
    ],
)
def test_parameters_equal_the_papers_without_classifier(name: str, millions: float) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in VisualBackbone(name).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.03)


@pytest.mark.parametrize("name", ["resnet18", "pvt_v2_b0", "swin_tiny", "efficientnet_lite0"])
def test_every_parameter_receives_gradient(name: str) -> None:
    backbone = VisualBackbone(name).train()
    sum(m.square().mean() for m in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert not [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("name", ["resnet18", "pvt_v2_b0", "swin_tiny", "efficientnet_lite0"])
def test_identity_between_stages_changes_nothing(name: str) -> None:
    backbone = VisualBackbone(name).eval()
    frames = torch.randn(2, 3, 96, 64)
    walked = backbone(frames, lambda _, x: x)
    assert all(torch.equal(a, b) for a, b in zip(walked, backbone(frames), strict=True))


@pytest.mark.parametrize("name", ["resnet18", "pvt_v2_b0", "swin_tiny", "efficientnet_lite0"])
def test_between_changes_the_input_of_the_next_stage(name: str) -> None:
    backbone = VisualBackbone(name).eval()
    frames = torch.randn(1, 3, 64, 64)
    seen: dict[int, tuple[int, ...]] = {}

    def between(i: int, x: torch.Tensor) -> torch.Tensor:
        seen[i] = tuple(x.shape[1:])
        return x.roll(1, 1) if i == 2 else x

    plain, changed = backbone(frames), backbone(frames, between)
    assert seen == {i: tuple(m.shape[1:]) for i, m in enumerate(plain, 1)}
    assert [torch.equal(a, b) for a, b in zip(plain, changed, strict=True)] == [True, False, False, False]


@pytest.mark.parametrize("training", ["frozen", "fixed_norm", "deep"])
def test_fixed_batch_norms_do_not_update_in_a_new_backbone(training: VisualTraining) -> None:
    backbone = VisualBackbone("efficientnet_lite0", training)
    before = {key: value.clone() for key, value in backbone.named_buffers()}
    backbone(torch.randn(2, 3, 32, 32))
    assert sum(key.endswith("running_mean") for key in before) > 40
    assert all(torch.equal(value, before[key]) for key, value in backbone.named_buffers())


def test_unknown_backbone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'resnet50'\?"):
        VisualBackbone("resnet5")


def test_original_keys() -> None:
    assert original_source("resnet50", "net.encoder.stages.2.layers.5.layer.0.convolution.weight").key == (
        "layer3.5.conv1.weight"
    )
    assert original_source("resnet50", "net.encoder.stages.0.layers.0.shortcut.normalization.bias").key == (
        "layer1.0.downsample.1.bias"
    )
    assert original_source("pvt_v2_b5", "net.encoder.layers.3.blocks.2.attention.value.weight") == (
        "block4.2.attn.kv.weight",
        1,
    )
    assert original_source("pvt_v2_b5", "net.encoder.layers.0.patch_embedding.layer_norm.weight").key == (
        "patch_embed1.norm.weight"
    )


def test_image_smaller_than_the_window_of_pvt_is_refused() -> None:
    with torch.device("meta"):
        backbone = VisualBackbone("pvt_v2_b0")
        assert backbone(torch.empty(1, 3, 29, 29))[3].shape[-2:] == (1, 1)
        with pytest.raises(ConfigError, match="29 x 29 pixels or more, got 28 x 64"):
            backbone(torch.empty(1, 3, 28, 64))


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny", "efficientnet_lite0"])
def test_image_smaller_than_the_stride_gives_maps_of_one_pixel(name: str) -> None:
    with torch.device("meta"):
        maps = VisualBackbone(name).eval()(torch.empty(1, 3, 3, 5))
    assert [tuple(x.shape[-2:]) for x in maps] == [(1, 2), (1, 1), (1, 1), (1, 1)]


@pytest.mark.slow
def test_efficientnet_does_not_import_transformers() -> None:
    code = "import sys, avseg; avseg.load('small'); assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
