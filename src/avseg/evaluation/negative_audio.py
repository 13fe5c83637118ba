"""Clips with negative audio: silence, noise, and the audio of another clip."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from avseg.data import AVSDataset, Sample, collate
from avseg.interface import Clip
from avseg.mel import OFFSET, SAMPLE_RATE, log_mel_at

_LOUDNESS = 0.1
"""Standard deviation of the white noise at full scale 1: -20 dB."""


def partners(clips: int) -> list[int]:
    """Return for each clip the index of the clip with its negative audio, a fixed random cycle through all clips."""
    order = torch.randperm(clips, generator=torch.Generator().manual_seed(0))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return [int(index) for index in partner]


class NegativeSample(NamedTuple):
    """Clips with their negative audio.

    Attributes:
        sample: The clips.
        audio: Kind of negative audio → audio in the form of ``sample.clip.audio``; padding frames are unchanged.
        own: (B, T) bool; False marks padding frames of the data set. Frames that pad this batch are True.
    """

    sample: Sample
    audio: dict[str, Tensor]
    own: Tensor


class NegativeAudioDataset(Dataset[NegativeSample]):
    """A data set with negative audio, computed per clip so that it does not depend on batches.

    Args:
        dataset: The clips.
        negatives: Add negative audio: ``silence`` and ``noise`` for log-mel audio, and ``swap``.
    """

    def __init__(self, dataset: AVSDataset, negatives: bool) -> None:
        self.dataset = dataset
        self.partners = partners(len(dataset)) if negatives else None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> NegativeSample:
        sample = self.dataset[index]
        clip, audio = sample.clip, sample.clip.audio
        negative: dict[str, Tensor] = {}
        if self.partners is not None and audio.ndim == 5:
            negative = {"silence": torch.full_like(audio, math.log(OFFSET)), "noise": _noise(index, audio)}
        if self.partners is not None:
            negative["swap"] = _audio_of(self.dataset[self.partners[index]].clip, audio.shape[1])
        valid = clip.valid.view(*clip.valid.shape, *[1] * (audio.ndim - 2))
        return NegativeSample(
            sample, {kind: torch.where(valid, other, audio) for kind, other in negative.items()}, clip.valid
        )


def _noise(seed: int, audio: Tensor) -> Tensor:
    """Return white noise in the form of ``audio``, equal in both channels of stereo."""
    frames = audio.shape[1]
    waveform = _LOUDNESS * torch.randn(frames * SAMPLE_RATE, generator=torch.Generator().manual_seed(seed))
    return log_mel_at(waveform, torch.arange(frames) + 0.5).to(audio).expand_as(audio)


def _audio_of(clip: Clip, frames: int) -> Tensor:
    """Return the audio of a clip, truncated or repeated to a number of frames."""
    audio = clip.audio[:, clip.valid[0]]
    return audio[:, torch.arange(frames) % audio.shape[1]]


def collate_negatives(negatives: list[NegativeSample]) -> NegativeSample:
    """Combine samples of one clip each to a batch."""

    def stack(tensors: Sequence[Tensor], fill: float) -> Tensor:
        return pad_sequence([t[0] for t in tensors], batch_first=True, padding_value=fill)

    audio = {kind: stack([t.audio[kind] for t in negatives], 0.0) for kind in negatives[0].audio}
    return NegativeSample(collate([t.sample for t in negatives]), audio, stack([t.own for t in negatives], 1.0))
