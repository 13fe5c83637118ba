import pytest
import torch
from torch import nn

from avseg.nn.pixel_rows import conv_rows, grow, rows_of


def _block() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(5, 4, 3, padding=1), nn.Identity(), nn.ReLU(), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_equals_the_dense_convolution_at_the_selected_pixels(share: float) -> None:
    block, x = _block(), torch.randn(2, 5, 9, 11)
    wanted = torch.rand(2, 9, 11) < share
    given = grow(wanted)
    with torch.no_grad():
        assert torch.allclose(conv_rows(block, rows_of(x, given), given, wanted), rows_of(block(x), wanted), atol=1e-6)


def test_grow_adds_the_eight_neighbours() -> None:
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 0, 4] = True
    assert grow(mask).nonzero().tolist() == [[0, 0, 3], [0, 0, 4], [0, 1, 3], [0, 1, 4]]
