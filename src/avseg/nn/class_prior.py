"""Localise the sounding classes of an audio classifier with an image classifier, without training on masks.

AudioSet classes name sounds, ImageNet classes name objects; :file:`object_classes.yaml` pairs them, such as "Violin,
fiddle" with "violin". For an object class c, with the AudioSet scores s of a frame's sound and the class-activation
logits l of the image classifier at each position:

    a_c = sigmoid(α · max_{k in audio(c)} logit(s_k) + β)
    v_c = Σ_{k in image(c)} exp(l_k / τ) / (Σ_k exp(l_k / τ) + exp(θ))

The prior has four maps: max_c a_c v_c, min(1, Σ_c a_c v_c), max_c v_c and max_c a_c. α, β, τ and θ are learned, but
shared by all classes, so that they transfer to classes for which there are no masks. Objects without an ImageNet class,
such as people, use learned logits instead of l.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import interpolate

from avseg.nn.efficientnet import HEAD_CHANNELS, ImageNetHead
from avseg.nn.mobile_audio import audioset_classes

_MAPS = 4
"""Maps of a :class:`ClassPrior`, see :meth:`ClassPrior.forward`."""


class ObjectClass(NamedTuple):
    """A class of objects that make sound.

    Attributes:
        name: Its name.
        audio: Indices of AudioSet classes.
        image: Indices of ImageNet classes; empty when there is none.
    """

    name: str
    audio: tuple[int, ...]
    image: tuple[int, ...]


@cache
def object_classes() -> tuple[ObjectClass, ...]:
    """Return the classes of ``object_classes.yaml`` in the order of the file."""
    text = files("avseg.nn").joinpath("object_classes.yaml").read_text(encoding="utf-8")
    index = {name: k for k, name in enumerate(audioset_classes())}
    return tuple(
        ObjectClass(name, tuple(index[a] for a in entry["audioset"]), tuple(_numbers(entry["imagenet"])))
        for name, entry in yaml.safe_load(text).items()
    )


def _numbers(ranges: Sequence[int | str]) -> list[int]:
    """Return the numbers of ranges such as ``[7, "80-96"]``."""
    bounds = [(r, r) if isinstance(r, int) else tuple(int(edge) for edge in r.split("-")) for r in ranges]
    return [number for bound in bounds for number in range(bound[0], bound[-1] + 1)]


class ClassPrior(nn.Module):
    """Maps that localise the sounding classes; see the module docstring. The image classifier is frozen."""

    members_audio: Tensor
    members_image: Tensor

    def __init__(self) -> None:
        super().__init__()
        classes = object_classes()
        used = sorted({number for c in classes for number in c.image})
        row = {number: k for k, number in enumerate(used)}
        self.head = ImageNetHead(used).requires_grad_(False)
        unseen = [c for c, entry in enumerate(classes) if not entry.image]
        self.learned = nn.Conv2d(HEAD_CHANNELS, len(unseen), 1)
        audio = torch.zeros(len(classes), len(audioset_classes()), dtype=torch.bool)
        image = torch.zeros(len(classes), len(used) + len(unseen))
        for c, entry in enumerate(classes):
            audio[c, list(entry.audio)] = True
            image[c, [row[number] for number in entry.image]] = 1.0
        for k, c in enumerate(unseen):
            image[c, len(used) + k] = 1.0
        self.register_buffer("members_audio", audio, persistent=False)
        self.register_buffer("members_image", image, persistent=False)
        self.audio_scale, self.audio_shift = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(2.0))
        self.image_scale, self.image_other = nn.Parameter(torch.tensor(0.6)), nn.Parameter(torch.tensor(4.0))

    def train(self, mode: bool = True) -> "ClassPrior":
        """Set training mode; the batch norm of the image classifier stays in evaluation mode."""
        super().train(mode)
        self.head.eval()
        return self

    def audio_classes(self, scores: Tensor) -> Tensor:
        """Return a (N, S) of the S classes, in 0..1, for AudioSet logits (N, 521)."""
        best = scores.unsqueeze(1).masked_fill(~self.members_audio, -torch.inf).amax(2)
        return torch.sigmoid(self.audio_scale * best + self.audio_shift)

    def image_classes(self, deepest: Tensor) -> Tensor:
        """Return v (N, S, h, w) of the S classes, in 0..1, for the backbone's map at stride 32 (N, 320, h, w)."""
        features = self.head.features(deepest)
        logits = torch.cat([self.head.class_maps(features), self.learned(features)], 1).float() * self.image_scale
        top = torch.maximum(logits.amax(1, keepdim=True), self.image_other)
        weights = (logits - top).exp()
        total = weights.sum(1, keepdim=True) + (self.image_other - top).exp()
        return torch.einsum("nkhw,ck->nchw", weights / total, self.members_image.float()).to(self.learned.weight.dtype)

    def forward(self, deepest: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the four maps of the prior (N, 4, h, w), and a_c v_c of each of the S classes (N, S, h, w).

        The maps are the maximum over c of a_c v_c, its sum over c, at most 1, and the maxima of v_c and of a_c.

        Args:
            deepest: (N, 320, h, w), the backbone's map at stride 32.
            scores: (N, 521), AudioSet logits of each frame's sound.
        """
        audio, image = self.audio_classes(scores), self.image_classes(deepest)
        both = audio[:, :, None, None] * image
        most_probable = audio.amax(1)[:, None, None].expand_as(both[:, 0])
        return torch.stack([both.amax(1), both.sum(1).clamp(max=1.0), image.amax(1), most_probable], 1), both


class PriorFusion(nn.Module):
    """Add the maps of a :class:`ClassPrior` to the maps of every stage of a decoder.

    Args:
        channels: C of the decoder's maps.
        stages: Names of the stages.
    """

    def __init__(self, channels: int, stages: Sequence[int]) -> None:
        super().__init__()
        self.prior = ClassPrior()
        self.mix = nn.ModuleDict({str(i): nn.Conv2d(_MAPS, channels, 1) for i in stages})

    def forward(
        self, maps: Mapping[int, Tensor], deepest: Tensor, scores: Tensor
    ) -> tuple[dict[int, Tensor], Tensor, Tensor]:
        """Return the maps (N, C, h_i, w_i) with the prior added, the prior (N, 4, h, w), and each class's (N, S, h, w).

        Args:
            maps: Stage → (N, C, h_i, w_i).
            deepest: (N, 320, h, w), the backbone's map at stride 32.
            scores: (N, 521), AudioSet logits of each frame's sound.
        """
        prior, classes = self.prior(deepest, scores)

        def at(size: torch.Size) -> Tensor:
            return interpolate(prior, tuple(size[-2:]), mode="bilinear")

        return {i: x + self.mix[str(i)](at(x.shape)) for i, x in maps.items()}, prior, classes
