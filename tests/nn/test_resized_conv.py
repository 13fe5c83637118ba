import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from avseg.nn import resized_conv as module
from avseg.nn.resized_conv import pays, resized_conv

pytestmark = pytest.mark.skipif(not module.available(), reason="needs oneDNN")


def slow(x: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Enlarge, then convolve."""
    return conv2d(interpolate(x, size, mode="bilinear"), weight, bias, padding=1)


def gradients(out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of a random sum of outputs."""
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((out * weights).sum(), inputs)


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() < 1e-4 * expected.abs().max())


@pytest.mark.parametrize(
    ("small", "large"), [((7, 7), (14, 14)), ((1, 1), (3, 4)), ((3, 5), (8, 9)), ((6, 4), (6, 4)), ((4, 6), (3, 11))]
)
def test_output_and_gradients_equal_those_of_two_steps(small: tuple[int, int], large: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, *small, requires_grad=True)
    weight, bias = torch.randn(4, 5, 3, 3, requires_grad=True), torch.randn(4, requires_grad=True)
    found, expected = resized_conv(x, weight, bias, large), slow(x, weight, bias, large)
    assert close(found, expected)
    pairs = zip(gradients(found, x, weight, bias), gradients(expected, x, weight, bias), strict=True)
    assert all(close(ours, direct) for ours, direct in pairs)


def test_frozen_inputs_and_kernels_need_no_gradient() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 3, 3), torch.randn(4, 4, 3, 3, requires_grad=True)
    (of_weight,) = gradients(resized_conv(x, weight, None, (6, 6)), weight)
    assert close(of_weight, gradients(slow(x, weight, None, (6, 6)), weight)[0])
    x.requires_grad_()
    (of_x,) = gradients(resized_conv(x, weight.detach(), None, (6, 6)), x)
    assert close(of_x, gradients(slow(x, weight.detach(), None, (6, 6)), x)[0])


def test_pays_for_enlarged_maps_of_many_channels() -> None:
    x = torch.empty(2, 128, 8, 8, device="meta")
    weight = torch.empty(128, 128, 3, 3, device="meta")
    assert pays(x, weight, (16, 16))
    assert not pays(x, weight, (8, 8))
    assert not pays(x, weight[:32], (16, 16))
