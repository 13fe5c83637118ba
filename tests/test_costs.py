"""Tests of costs with a model of few layers, for which all numbers are computed by hand."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from avseg import AVSModel, Clip, Prediction, Target
from avseg.costs import all_macs, forced_keep_ratio, memory, paper_macs, parameters, part_of, peaks, seconds, spent
from avseg.interface import TRAINING

T, H, W, D = 3, 8, 6, 16


class Unsure(nn.Module):
    """Mask that keeps every token unless it is forced."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[:, :1], dtype=torch.bool)


class Attend(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return scaled_dot_product_attention(x, x, x)


class Small(AVSModel):
    """Model with a convolution, a linear layer on kept tokens, attention over audio, and an output layer in a list.

    And a teacher, which answers do without.
    """

    @dataclass(frozen=True)
    class Config:
        channels: int = 4

    paper = "none"
    parts: ClassVar = {"backbone": ("conv", "norm"), "audio": ("hear",), "decoder": ("heads",), TRAINING: ("teacher",)}

    def __init__(self, config: Config = Config(), classes: int = 1) -> None:
        super().__init__(config, classes)
        self.conv = nn.Conv2d(3, config.channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(config.channels)
        self.mask = Unsure()
        self.hear = Attend()
        self.hear_not = nn.Linear(config.channels, 10, bias=False)
        self.heads = nn.ModuleList([nn.Conv2d(config.channels, classes, 1, bias=False)])
        self.teacher = nn.Linear(6, 7)

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        x = self.norm(self.conv(clip.frames.flatten(0, 1)))
        keep = self.mask(x)
        self.hear_not(x.movedim(1, -1)[keep[:, 0]])
        self.hear(clip.audio)
        return Prediction(
            self.heads[0](x).unflatten(0, clip.valid.shape), scalars={"keep_ratio/1": keep.float().mean()}
        )

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        return {}


@pytest.fixture
def model() -> Small:
    return Small().eval().requires_grad_(False)


@pytest.fixture
def clip() -> Clip:
    return Clip(torch.randn(1, T, 3, H, W), torch.randn(1, T, D))


PIXELS = T * H * W


def test_parts_are_whole_names(model: Small) -> None:
    assert part_of(model, "hear") == part_of(model, "hear.x") == "audio"
    assert part_of(model, "hear_not") == part_of(model, "") == "other"


def test_parameters_by_part(model: Small) -> None:
    assert parameters(model) == {"backbone": 4 * 27 + 4 + 8, "audio": 0, "decoder": 4, "other": 40, TRAINING: 49}


def test_paper_macs_by_hand(model: Small, clip: Clip) -> None:
    with paper_macs(model) as meter:
        found = spent(model, clip, meter)
    backbone = PIXELS * 4 * (27 + 1) + 2 * PIXELS * 4  # a bias counts one, a batch norm two per element
    assert found == {"backbone": backbone, "audio": 0, "decoder": PIXELS * 4, "other": PIXELS * 4 * 10}


def test_part_can_be_called_in_pieces_and_recursively(model: Small, clip: Clip) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.outer = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False))

        def __call__(self, x: Tensor) -> Tensor:  # as a method that is not forward: no hook of ours runs
            return self.outer[1](self.outer(x))

    model.conv = Both().requires_grad_(False)  # type: ignore[assignment]
    with all_macs() as meter:
        found = spent(model, clip, meter)
    assert found["backbone"] == PIXELS * (3 * 4 + 2 * 4 * 4)


def test_nested_part_is_counted_separately(model: Small, clip: Clip) -> None:
    inner = nn.Conv2d(3, 3, 1, bias=False).requires_grad_(False)
    model.hear = inner  # type: ignore[assignment]

    class Within(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1, bias=False)
            self.last = nn.Conv2d(3, 4, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(inner(self.first(x)))
            return out

    model.conv = Within().requires_grad_(False)  # type: ignore[assignment]
    model.norm = nn.Identity()  # type: ignore[assignment]
    model.forward = lambda clip: model.conv(clip.frames.flatten(0, 1))  # type: ignore[method-assign]
    with all_macs() as meter:
        found = spent(model, clip, meter)
    assert found == {"backbone": PIXELS * (9 + 12), "audio": PIXELS * 9, "decoder": 0, "other": 0}


def test_all_macs_count_attention_and_no_bias(model: Small, clip: Clip) -> None:
    with all_macs() as meter:
        found = spent(model, clip, meter)
    attention = 2 * T * T * D
    assert found == {"backbone": PIXELS * 4 * 27, "audio": attention, "decoder": PIXELS * 4, "other": PIXELS * 40}


@pytest.mark.parametrize(
    ("layer", "given", "expected"),
    [
        (nn.Conv2d(8, 6, 3, groups=2), (1, 8, 5, 5), 6 * 9 * (4 * 9 + 1)),
        (nn.ConvTranspose2d(8, 6, 2, stride=2, bias=False), (1, 8, 3, 3), 6 * 36 * 8 * 4),
        (nn.AdaptiveAvgPool2d((2, 2)), (1, 3, 8, 4), 3 * 4 * (8 + 1)),
        (nn.LayerNorm(8), (2, 8), 0),
    ],
    ids=["grouped", "transposed", "pool", "layer norm"],
)
def test_paper_rule_of_a_layer(layer: nn.Module, given: tuple[int, ...], expected: int) -> None:
    with paper_macs(layer) as meter:
        layer(torch.zeros(given))
        assert meter() == expected


@pytest.mark.parametrize("ratio", [1.0, 0.75, 0.3, 0.0])
def test_forced_keep_ratio_is_even(model: Small, clip: Clip, ratio: float) -> None:
    per_frame = round(H * W * ratio)
    with forced_keep_ratio(model, ratio), paper_macs(model) as meter:
        scalar = model(clip).scalars["keep_ratio/1"]
        before = meter()
        found = spent(model, clip, meter)
    assert scalar.item() == pytest.approx(per_frame / (H * W))
    assert found["other"] == T * per_frame * 40
    assert sum(found.values()) == before
    assert model(clip).scalars["keep_ratio/1"] == 1  # nothing is left behind


def test_peak_memory_is_that_of_live_tensors(model: Small, clip: Clip) -> None:
    base = sum(t.nbytes for t in [*model.parameters(), *model.buffers(), clip.frames, clip.audio, clip.valid])
    with memory(model, clip) as gauge:
        found = peaks(model, clip, gauge)
    maps = PIXELS * 4 * 4
    # The outputs of convolution and batch norm are alive at the same time, and the model's input all the time.
    assert base + 2 * maps <= found["backbone"] < base + 2 * maps + 1000
    # While the head runs, x and the mask (one byte per pixel) are alive.
    assert found["decoder"] >= base + maps + PIXELS
    assert max(found.values()) == found["other"]  # x moved to tokens, and ten numbers for each


def test_memory_gauge_subtracts_freed_tensors(model: Small, clip: Clip) -> None:
    with memory(model, clip) as gauge:
        base = gauge.peak()
        x = torch.zeros(1000)
        y = x.view(10, 100)
        assert gauge.peak() == base + 4000
        del x
        gauge.reset()
        assert gauge.peak() == base + 4000  # a view keeps its storage
        del y
        gauge.reset()
        assert gauge.peak() == base


def test_time_by_part_adds_up(model: Small, clip: Clip) -> None:
    clock = seconds(torch.device("cpu"))
    start = clock()
    found = spent(model, clip, clock)
    assert all(value >= 0 for value in found.values())
    assert 0 < sum(found.values()) <= clock() - start


def test_hooks_are_removed_when_the_model_fails(model: Small) -> None:
    wrong = Clip(torch.randn(1, 1, 3, H, W), torch.randn(1, 1, D), torch.ones(1, 1, dtype=torch.bool))
    model.hear = nn.Linear(D + 1, 1)
    with pytest.raises(RuntimeError), forced_keep_ratio(model, 0.5), paper_macs(model) as meter:
        spent(model, wrong, meter)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
