"""Tests of convolutions for training: equal to plain ones, and used in training on a CPU only."""

import copy

import pytest
import torch
from torch import nn

from avseg import build
from avseg.interface import Clip
from avseg.models.pcmanet import GF, PCMANet
from avseg.nn import fast_training, resized_conv, winograd_training
from avseg.nn.fast_training import FastConv2d, conv_resized, fast_layers

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not fast_training.available(), reason="needs oneDNN")


@pytest.fixture
def small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the fast forms for few channels too."""
    monkeypatch.setattr(winograd_training, "MIN_CHANNELS", 1)
    monkeypatch.setattr(winograd_training, "MIN_WIDEST", 1)
    monkeypatch.setattr(winograd_training, "_FEWEST", 0)
    monkeypatch.setattr(resized_conv, "MIN_CHANNELS", 1)


def difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Return the norm of the differences divided by the norm of the expected values."""
    a, b = (torch.cat([tensors[name].flatten() for name in expected]) for tensors in (found, expected))
    return ((a - b).norm() / b.norm()).item()


def step(model: nn.Module, *inputs: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Return the output of a layer and the gradients of its parameters."""
    model.zero_grad()
    out = model(*inputs)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return {"out": out.detach(), **{n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"bias": False}, {"groups": 2}])
def test_convolution_equals_the_plain_one(small_maps: None, kernel: int, settings: dict[str, int]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, kernel, padding=kernel // 2, **settings)
    x = torch.randn(3, 4, 8, 10)
    plain = step(conv, x)
    with fast_layers(conv, CPU):
        fast = step(conv, x)
    assert difference(fast, plain) < 1e-5
    assert fast["out"].is_contiguous(memory_format=torch.channels_last)


def test_fast_forms_are_used(small_maps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    for module, name in ((winograd_training, "winograd_conv"), (resized_conv, "resized_conv")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, name=name: used.append(name) or real(*a))
    gf = GF(8, deeper=True, guide=True)
    maps = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 4, 4), torch.randn(2, 8, 8, 8)
    gf(*maps)
    assert not used
    with fast_layers(gf, CPU):
        gf(*maps)
    assert used == ["resized_conv", "winograd_conv", "winograd_conv"]


def test_gf_equals_the_plain_one(small_maps: None) -> None:
    torch.manual_seed(0)
    gf, maps = (
        GF(8, deeper=True, guide=True),
        (torch.randn(2, 8, 8, 8), torch.randn(2, 8, 4, 4), torch.randn(2, 8, 3, 5)),
    )
    other = copy.deepcopy(gf)
    with fast_layers(gf, CPU):
        found = step(gf, *maps)
    expected = step(other, *maps)
    # The gradient of a bias before batch norm is zero up to rounding.
    names = [name for name in expected if not name.endswith("0.bias")]
    assert difference(found, {name: expected[name] for name in names}) < 1e-4


def test_loss_of_pcmanet_equals_that_of_plain_layers(small_maps: None) -> None:
    torch.manual_seed(0)
    model = build("pcmanet", visual="resnet18", audio="none", channels=16, groups=2, heads=2, **PCMANet.RELEASE).train()
    clip = Clip(torch.randn(2, 2, 3, 64, 64), torch.randn(2, 2, 128))
    plain = model(clip).logits
    with fast_layers(model, CPU):
        fast = model(clip).logits
    assert (fast - plain).abs().max() < 1e-3 * plain.abs().max()


def test_evaluation_and_other_types_are_bit_equal_to_plain_layers(small_maps: None) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(4, 4, 3, padding=1), torch.randn(2, 4, 8, 8)
    plain = conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = conv(x)
    with fast_layers(conv, CPU):
        with torch.no_grad():
            assert torch.equal(conv(x), plain)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(conv(x), rounded)
        assert torch.equal(conv.eval()(x), plain)
        assert torch.equal(
            conv.double()(x.double()), nn.functional.conv2d(x.double(), conv.weight, conv.bias, padding=1)
        )


def test_layers_keep_their_names_and_are_restored_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    names = list(model.state_dict())

    def fail() -> None:
        with fast_layers(model, CPU):
            assert type(model[0]) is FastConv2d
            assert list(model.state_dict()) == names
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert type(model[0]) is nn.Conv2d


def test_other_devices_keep_plain_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    with fast_layers(model, torch.device("cuda")):
        assert type(model[0]) is nn.Conv2d


def test_conv_resized_of_a_plain_layer_is_two_steps() -> None:
    conv, x = nn.Conv2d(3, 4, 3, padding=1), torch.randn(1, 3, 4, 4)
    expected = conv(nn.functional.interpolate(x, (8, 8), mode="bilinear"))
    assert torch.equal(conv_resized(conv, x, (8, 8)), expected)


def test_batch_norm_is_exact_and_updates_its_statistics() -> None:
    torch.manual_seed(0)
    norm, x = nn.BatchNorm2d(4), (torch.randn(6, 4, 80, 80) + 3).contiguous(memory_format=torch.channels_last)
    nn.init.uniform_(norm.weight)
    exact = copy.deepcopy(norm).double()
    expected = step(exact, x.double())
    with fast_layers(norm, CPU):
        found = step(norm, x)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < 1e-5 * value.abs().max(), name
    for name, value in exact.state_dict().items():
        assert torch.allclose(norm.state_dict()[name].double(), value.double(), rtol=1e-5, atol=1e-6), name


def test_batch_norm_of_one_value_is_refused() -> None:
    norm = nn.BatchNorm2d(4)
    with fast_layers(norm, CPU), pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.randn(1, 4, 1, 1))
