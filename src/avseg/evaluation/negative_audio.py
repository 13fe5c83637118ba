"""Clips together with audio that does not belong to them: silence, noise, and the sound of another clip."""

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
"""Deviation of the white noise, whose full scale is 1: -20 dB."""


def partners(clips: int) -> list[int]:
    """For each clip the one whose audio it is given: a single cycle through all of them, in a fixed random order."""
    order = torch.randperm(clips, generator=torch.Generator().manual_seed(0))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return [int(index) for index in partner]


class NegativeSample(NamedTuple):
    """Clips, and the audio to play instead.

    Attributes:
        sample: The clips.
        audio: Kind of wrong audio → the same form as ``sample.clip.audio``; frames that are padding keep theirs.
        own: (B, T) bool; False marks padding by the data set. Frames that merely fill this batch are True.
    """

    sample: Sample
    audio: dict[str, Tensor]
    own: Tensor


class NegativeAudioDataset(Dataset[NegativeSample]):
    """A data set with audio to play instead, made clip by clip so that batches change nothing.

    Args:
        dataset: The clips.
        wrong: Whether to make wrong audio at all: ``silence`` and ``noise`` where audio is log-mel, and ``swap``.
    """

    def __init__(self, dataset: AVSDataset, wrong: bool) -> None:
        self.dataset = dataset
        self.partners = partners(len(dataset)) if wrong else None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> NegativeSample:
        sample = self.dataset[index]
        clip, audio = sample.clip, sample.clip.audio
        wrong: dict[str, Tensor] = {}
        if self.partners is not None and audio.ndim == 5:
            wrong = {"silence": torch.full_like(audio, math.log(OFFSET)), "noise": _noise(index, audio)}
        if self.partners is not None:
            wrong["swap"] = _heard(self.dataset[self.partners[index]].clip, audio.shape[1])
        valid = clip.valid.view(*clip.valid.shape, *[1] * (audio.ndim - 2))
        return NegativeSample(
            sample, {kind: torch.where(valid, other, audio) for kind, other in wrong.items()}, clip.valid
        )


def _noise(seed: int, audio: Tensor) -> Tensor:
    """White noise in the form of ``audio``, the same in both ears."""
    frames = audio.shape[1]
    waveform = _LOUDNESS * torch.randn(frames * SAMPLE_RATE, generator=torch.Generator().manual_seed(seed))
    return log_mel_at(waveform, torch.arange(frames) + 0.5).to(audio).expand_as(audio)


def _heard(clip: Clip, frames: int) -> Tensor:
    """The audio of a clip, cut or repeated to so many frames."""
    audio = clip.audio[:, clip.valid[0]]
    return audio[:, torch.arange(frames) % audio.shape[1]]


def collate_negatives(negatives: list[NegativeSample]) -> NegativeSample:
    """One batch from negatives of one clip each."""

    def stack(tensors: Sequence[Tensor], fill: float) -> Tensor:
        return pad_sequence([t[0] for t in tensors], batch_first=True, padding_value=fill)

    audio = {kind: stack([t.audio[kind] for t in negatives], 0.0) for kind in negatives[0].audio}
    return NegativeSample(collate([t.sample for t in negatives]), audio, stack([t.own for t in negatives], 1.0))
