"""Prompts of known class, and what they are asked: the parts of CPM that training alone needs (arXiv 2407.05358).

Audio-conditional prompting (ACP) mixes and separates: which share of a mixture of two sounds belongs to the frame?
Prompt contrastive learning (PCL) pulls what a prompt heard towards the pixels of its class.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import interpolate, normalize

from avseg.interface import IGNORE
from avseg.losses import info_nce
from avseg.mel import OFFSET, PATCH_SAMPLES, SAMPLE_RATE, log_mel_at
from avseg.nn.mask2former import QueryOutputs
from avseg.nn.matching import present


class Prompts(NamedTuple):
    """Who is asked for what.

    Attributes:
        frames: (b,) the frames that are prompted, out of those given.
        classes: (b, K) of each prompt; frames with fewer classes repeat their own.
        real: (b, K) bool; False for repetitions, which count nowhere.
    """

    frames: Tensor
    classes: Tensor
    real: Tensor


class Prompted(NamedTuple):
    """What prompts answered, for the losses of CPM.

    Attributes:
        prompts: Who asked for what.
        labels: (b, H, W) of the prompted frames.
        drawn: What they drew into the pictures; None without VCP.
        masks: m^a (b, K, t, f), what they found in the mixtures.
        ratio: a_i / a_p (b, 96, 64).
        heard: (b,) bool; False where nothing sounds.
        anchors: A_k (b, K, dp), of any length.
        seen: All labelled frames (n, dp, h, w).
        seen_labels: (n, H, W).
    """

    prompts: Prompts
    labels: Tensor
    drawn: QueryOutputs | None
    masks: Tensor
    ratio: Tensor
    heard: Tensor
    anchors: Tensor
    seen: Tensor
    seen_labels: Tensor


def prompts_for(labels: Tensor, known: Tensor) -> Prompts:
    """One prompt for each class in each frame, the background apart.

    Args:
        labels: (n, H, W), 255 ignored.
        known: (classes,) bool: what can be asked for. A frame with anything else is not prompted.
    """
    classes, real = present(labels)
    real = real & (classes > 0)
    count = real.sum(1)
    frames = ((count > 0) & (known[classes] | ~real).all(1)).nonzero().flatten()
    count = count[frames]
    most = int(count.max()) if len(frames) else 0
    order = torch.arange(most, device=labels.device).expand(len(frames), -1)
    # Things come after the background, which need not be there: the last `count` of each row's real classes.
    first = real[frames].long().argmax(1) if len(frames) else count
    return Prompts(frames, classes[frames].gather(1, first[:, None] + order % count[:, None]), order < count[:, None])


def mix(audio: Tensor, labels: Tensor, clips: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitudes of the sounds of some frames, and of their mixtures with sounds that do not belong there.

    a_p = a_i + a_j, where a_j is what things sound like that are seen in another clip and are of none of the same
    classes, or white noise where there is no such frame. Magnitudes add up; logarithms would not.

    Args:
        audio: Log-mel (n, ears, 96, 64).
        labels: (n, H, W).
        clips: (n,) the clip of each frame.
        frames: (b,) those to mix.

    Returns:
        a_i and a_p (b, ears, 96, 64); a_p is offset as in log-mel, so that its logarithm is one.
    """
    magnitude = (audio.float().exp() - OFFSET).clamp(min=0)
    own = magnitude[frames]
    allowed = _strangers(labels, clips, magnitude.flatten(1).sum(1) > 0)[frames]
    partner = torch.where(allowed, torch.rand_like(allowed, dtype=torch.float), -1.0).argmax(1)
    other = magnitude[partner]
    alone = ~allowed.any(1)
    if alone.any():
        other[alone] = _white(own[alone])
    return own, own + other + OFFSET


def _strangers(labels: Tensor, clips: Tensor, sounds: Tensor) -> Tensor:
    """Which frames of other clips sound, and show things but none of the same: (n, n) bool."""
    classes, real = present(labels)
    here = torch.zeros(len(labels), IGNORE, dtype=torch.float, device=labels.device)
    here.scatter_add_(1, classes, (real & (classes > 0)).to(here))
    return (here @ here.T == 0) & (clips[:, None] != clips) & (sounds & (here.sum(1) > 0))


def _white(like: Tensor) -> Tensor:
    """White noise, on average as loud as each frame of (b, ears, 96, 64)."""
    waveform = torch.randn(PATCH_SAMPLES * len(like))
    times = (torch.arange(len(like)) + 0.5) * PATCH_SAMPLES / SAMPLE_RATE
    noise = (log_mel_at(waveform, times).exp() - OFFSET).clamp(min=0).to(like)
    loudness = like.mean((1, 2, 3), keepdim=True) / noise.mean((1, 2, 3), keepdim=True)
    return (noise * loudness).expand_as(like)


def ratio_mask(own: Tensor, mixed: Tensor) -> Tensor:
    """a_i / a_p in 0..1: (b, ears, 96, 64) magnitudes, both ears together → (b, 96, 64)."""
    return (own.sum(1) / mixed.sum(1)).clamp(0, 1)


def ratio_loss(masks: Tensor, real: Tensor, ratio: Tensor, heard: Tensor, *, mean: bool) -> Tensor:
    """L_ACP = ‖σ(Σ_k m_k^a) - a_i / a_p‖, a mean over the frames that sound.

    Args:
        masks: m^a (b, K, t, f).
        real: (b, K) bool: which prompts count.
        ratio: (b, 96, 64).
        heard: (b,) bool: which frames sound.
        mean: Of squares over time and frequency; otherwise the 2-norm.

    Returns:
        0-d; 0 (with gradient 0) when nothing sounds.
    """
    total = (masks.float() * real[..., None, None]).sum(1, keepdim=True)
    guess = interpolate(total, tuple(ratio.shape[1:]), mode="bilinear")[:, 0].sigmoid()
    difference = guess - ratio
    per_frame = difference.square().mean((1, 2)) if mean else vector_norm(difference, dim=(1, 2))
    return (per_frame * heard).sum() / heard.sum().clamp(min=1)


def contrast(
    anchors: Tensor, classes: Tensor, seen: Tensor, labels: Tensor, *, temperature: float, pixels: int
) -> Tensor:
    """L_PCL: InfoNCE of what prompts heard against pixels.

    Positives are pixels of the anchor's class, negatives pixels of others and of the background.

    Args:
        anchors: A_k (m, dp), of any length.
        classes: (m,), of the anchors.
        seen: (n, dp, h, w), of any length.
        labels: (n, H, W), 255 ignored.
        temperature: Divides cosines.
        pixels: At most so many of each class, at random.

    Returns:
        0-d; 0 (with gradient 0) when there is no anchor with a pixel of its class.
    """
    vectors, of = _some_pixels(seen.float(), labels, pixels)
    cosine = normalize(anchors.float(), dim=1) @ normalize(vectors, dim=1).T / temperature
    same = classes[:, None] == of
    return info_nce(cosine, same, ~same)


def _some_pixels(seen: Tensor, labels: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """At most ``pixels`` vectors of each class, (P, dp), and their classes (P,)."""
    size = seen.shape[-2:]
    of = interpolate(labels[:, None].float(), size, mode="nearest")[:, 0].long().flatten()
    vectors = seen.movedim(1, -1).flatten(0, 2)
    found = [(of == c).nonzero().flatten() for c in of.unique().tolist() if c != IGNORE]
    chosen = [i[torch.randperm(len(i), device=i.device)[:pixels]] for i in found]
    index = torch.cat(chosen) if chosen else of.new_zeros(0)
    return vectors[index], of[index]
