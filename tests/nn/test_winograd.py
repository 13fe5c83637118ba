import pytest
import torch
from torch import nn

from avseg.nn.winograd import MIN_CHANNELS, MIN_CHANNELS_AVX512, Winograd, suits

WIDE, NARROW = MIN_CHANNELS_AVX512, MIN_CHANNELS - 1


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 7, 7), (1, 4, 9), (3, 13, 6), (1, 66, 67), (5, 13, 14)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_convolution_at_any_size(size: tuple[int, int, int], bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 3, 3, padding=1, bias=bias)
    x = torch.randn(size[0], 5, *size[1:])
    with torch.no_grad():
        assert torch.allclose(Winograd(conv)(x), conv(x), atol=1e-5)


def test_is_exact_in_float64() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, padding=1).double()
    x = torch.randn(2, 4, 10, 11, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(Winograd(conv)(x), conv(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("conv", "expected"),
    [
        (nn.Conv2d(WIDE, WIDE, 3, padding=1), True),
        (nn.Conv2d(NARROW, WIDE, 3, padding=1), False),
        (nn.Conv2d(WIDE, WIDE, 3), False),
        (nn.Conv2d(WIDE, WIDE, 3, padding=1, stride=2), False),
        (nn.Conv2d(WIDE, WIDE, 3, padding=2, dilation=2), False),
        (nn.Conv2d(WIDE, WIDE, 1), False),
        (nn.Conv2d(WIDE, WIDE, 3, padding=1, groups=2), False),
        (nn.Conv2d(WIDE, WIDE, 3, padding=1, padding_mode="reflect"), False),
        (nn.Linear(WIDE, WIDE), False),
    ],
)
def test_suits_plain_wide_convolutions_only(conv: nn.Module, expected: bool) -> None:
    assert suits(conv) is expected
