"""A model whose uncertainty is known."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import pytest
import torch
from torch import Tensor

from avseg.interface import AVSModel, Clip, Prediction, Target


class Doubter(AVSModel):
    """Marks the left half of every frame; its uncertainty about the k-th frame it sees is ``doubt(k)``."""

    @dataclass(frozen=True)
    class Config:
        pass

    paper = ""

    def __init__(self) -> None:
        super().__init__(self.Config(), classes=1)
        self.card = {"data": {"size": 16, "frames": 3}}
        self.seen = count()
        self.asked: list[bool] = []

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        self.asked.append(maps)
        logits = torch.where(torch.arange(16) < 8, 8.0, -8.0).expand(*clip.frames.shape[:2], 1, 16, 16)
        doubts = torch.stack([self.doubt(next(self.seen)) for _ in range(clip.frames.shape[1])])
        return Prediction(logits, maps={"uncertainty": doubts[None, :, None]} if maps else {})

    def doubt(self, k: int) -> Tensor:
        """(6, 8), rising from left to right: 0.1 on, first to 0.8, from frame to frame a quarter less."""
        return 0.1 + 0.7 * 0.75**k * torch.arange(8.0).expand(6, 8) / 7

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        return {}


@pytest.fixture
def doubter() -> Doubter:
    """A model that predicts its uncertainty."""
    return Doubter().eval()


@pytest.fixture
def doubtful(make_video: Callable, make_beep: Callable):
    """2 s at 10 fps, 96 × 128, grey, nearly lossless, with sound."""
    times = [k / 10 for k in range(20)]
    return make_video(
        "doubtful.mkv", times=times, size=(96, 128), sound=make_beep(2, 0, 2), codec="ffv1", pix_fmt="bgr0"
    )
