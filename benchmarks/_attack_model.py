"""A model with one weight, so that a prediction of the attack takes milliseconds."""

from dataclasses import dataclass

import torch
from torch import Tensor

from avseg.interface import AVSModel, Clip, Prediction, Target


class Loudness(AVSModel):
    """Foreground where the sound is loud."""

    @dataclass(frozen=True)
    class Config:
        """No settings."""

    paper = "none"
    threshold: Tensor

    def __init__(self, config: Config, classes: int = 1) -> None:
        super().__init__(config, classes)
        self.register_buffer("threshold", torch.tensor(-4.0))

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        """Return logits that are positive in the frames with loud sound."""
        loud = clip.audio.flatten(2).mean(2) > self.threshold
        return Prediction(torch.where(loud, 4.0, -4.0)[..., None, None, None].expand(*loud.shape, 1, 16, 16))

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """Return nothing: it is not trained."""
        return {}
