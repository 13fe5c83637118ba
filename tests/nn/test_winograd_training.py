import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from avseg.nn import winograd_training
from avseg.nn.winograd_training import pays, winograd_conv

pytestmark = pytest.mark.skipif(not winograd_training.available(), reason="needs oneDNN")


def gradients(out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of a random sum of outputs."""
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((out * weights).sum(), inputs)


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() < 1e-4 * expected.abs().max())


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 7, 7), (1, 4, 9), (3, 13, 6), (1, 66, 67), (5, 13, 14)])
def test_output_and_gradients_equal_those_of_the_convolution(size: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(size[0], 5, *size[1:], requires_grad=True)
    weight, bias = torch.randn(3, 5, 3, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    found, expected = winograd_conv(x, weight, bias), conv2d(x, weight, bias, padding=1)
    assert close(found, expected)
    pairs = zip(gradients(found, x, weight, bias), gradients(expected, x, weight, bias), strict=True)
    assert all(close(ours, direct) for ours, direct in pairs)


def test_frozen_inputs_and_kernels_need_no_gradient() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 4, 3, 3, requires_grad=True)
    (of_weight,) = gradients(winograd_conv(x, weight, None), weight)
    assert close(of_weight, gradients(conv2d(x, weight, padding=1), weight)[0])
    x.requires_grad_()
    (of_x,) = gradients(winograd_conv(x, weight.detach(), None), x)
    assert close(of_x, gradients(conv2d(x, weight.detach(), padding=1), x)[0])


@pytest.mark.parametrize(
    ("frames", "channels", "outputs", "side", "expected"),
    [(10, 256, 256, 56, True), (10, 256, 128, 28, True), (10, 256, 64, 56, False), (1, 256, 256, 7, False)],
)
def test_pays_for_many_channels_and_tiles(frames: int, channels: int, outputs: int, side: int, expected: bool) -> None:
    x = torch.empty(frames, channels, side, side, device="meta")
    assert pays(x, torch.empty(outputs, channels, 3, 3, device="meta")) is expected
