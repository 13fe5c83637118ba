"""Class-conditional prompting: the functions of CPM that only training needs (arXiv 2407.05358).

Audio-conditional prompting (ACP) predicts the share of a frame's audio in a mixture with a distractor. Prompt
contrastive learning (PCL) pulls the audio embedding of a prompt towards the pixel embeddings of its class.
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
from avseg.nn.matching import Matches, present


class Prompts(NamedTuple):
    """Class-conditional prompts for one batch.

    Attributes:
        frames: (b,) indices of the prompted frames.
        classes: (b, K), class of each prompt; frames with fewer than K classes repeat theirs.
        real: (b, K) bool; False for repeated prompts, which take part in no loss.
    """

    frames: Tensor
    classes: Tensor
    real: Tensor


class Prompted(NamedTuple):
    """Outputs of prompts, for the losses of CPM.

    Attributes:
        prompts: The prompts.
        labels: (b, H, W) of the prompted frames.
        outputs: Decoder outputs of the prompts in the images; None without VCP.
        masks: m^a (b, K, t, f), predicted audio masks.
        ratio: a_i / a_p (b, 96, 64).
        audible: (b,) bool; False for frames without sound.
        anchors: A_k (b, K, dp), not normalised.
        pixels: Pixel embeddings of all labelled frames (n, dp, h, w).
        pixel_labels: (n, H, W).
    """

    prompts: Prompts
    labels: Tensor
    outputs: QueryOutputs | None
    masks: Tensor
    ratio: Tensor
    audible: Tensor
    anchors: Tensor
    pixels: Tensor
    pixel_labels: Tensor


def prompts_for(labels: Tensor, available: Tensor) -> Prompts:
    """Return one prompt for each class in each frame, without the background.

    Args:
        labels: (n, H, W), 255 ignored.
        available: (classes,) bool, classes that can be prompted. A frame with any other class is not prompted.
    """
    classes, real = present(labels)
    real = real & (classes > 0)
    count = real.sum(1)
    frames = ((count > 0) & (available[classes] | ~real).all(1)).nonzero().flatten()
    count = count[frames]
    most = int(count.max()) if len(frames) else 0
    order = torch.arange(most, device=labels.device).expand(len(frames), -1)
    # Classes are sorted, so the categories are the last `count` real classes of a row, after the background if any.
    first = real[frames].long().argmax(1) if len(frames) else count
    return Prompts(frames, classes[frames].gather(1, first[:, None] + order % count[:, None]), order < count[:, None])


def mixture_samples(embeddings: Tensor, matches: Matches, no_object: int) -> tuple[Tensor, Tensor]:
    """Return the vectors that the mixtures are fitted to: those of matched queries, and of as many unmatched ones.

    Args:
        embeddings: (n, N, d) of all queries.
        matches: Matches of queries and classes.
        no_object: Class of the unmatched queries.

    Returns:
        The vectors (m, d) and their classes (m,).
    """
    free = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
    free[matches.frames, matches.queries] = False
    unmatched = embeddings[free]
    count = min(len(unmatched), len(matches.classes))
    spread = torch.linspace(0, max(len(unmatched) - 1, 0), count, device=free.device).round().long()
    vectors = torch.cat([embeddings[matches.frames, matches.queries], unmatched[spread]])
    return vectors, torch.cat([matches.classes, torch.full((count,), no_object, device=free.device)])


def mix(audio: Tensor, labels: Tensor, clips: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Mix the audio of frames with distractors: a_p = a_i + a_j, in magnitudes.

    The distractor a_j is the audio of a random frame of another clip that has sound and shows none of the same
    classes, or white noise if there is no such frame.

    Args:
        audio: Log-mel (n, channels, 96, 64).
        labels: (n, H, W).
        clips: (n,), index of the clip of each frame.
        frames: (b,), indices of the frames to mix.

    Returns:
        a_i and a_p (b, channels, 96, 64); a_p includes the offset of log-mel, so that its logarithm is a log-mel.
    """
    magnitude = (audio.float().exp() - OFFSET).clamp(min=0)
    own = magnitude[frames]
    allowed = _distractors(labels, clips, magnitude.flatten(1).sum(1) > 0)[frames]
    partner = torch.where(allowed, torch.rand_like(allowed, dtype=torch.float), -1.0).argmax(1)
    other = magnitude[partner]
    alone = ~allowed.any(1)
    if alone.any():
        other[alone] = _white(own[alone])
    return own, own + other + OFFSET


def _distractors(labels: Tensor, clips: Tensor, sounds: Tensor) -> Tensor:
    """Return (n, n) bool: column j is a frame of another clip with sound and objects, none of a class in row i."""
    classes, real = present(labels)
    here = torch.zeros(len(labels), IGNORE, dtype=torch.float, device=labels.device)
    here.scatter_add_(1, classes, (real & (classes > 0)).to(here))
    return (here @ here.T == 0) & (clips[:, None] != clips) & (sounds & (here.sum(1) > 0))


def _white(like: Tensor) -> Tensor:
    """Return white noise with the mean magnitude of each frame of (b, channels, 96, 64)."""
    waveform = torch.randn(PATCH_SAMPLES * len(like))
    times = (torch.arange(len(like)) + 0.5) * PATCH_SAMPLES / SAMPLE_RATE
    noise = (log_mel_at(waveform, times).exp() - OFFSET).clamp(min=0).to(like)
    loudness = like.mean((1, 2, 3), keepdim=True) / noise.mean((1, 2, 3), keepdim=True)
    return (noise * loudness).expand_as(like)


def ratio_mask(own: Tensor, mixed: Tensor) -> Tensor:
    """Return a_i / a_p in 0..1, (b, 96, 64), of magnitudes (b, channels, 96, 64) summed over channels."""
    return (own.sum(1) / mixed.sum(1)).clamp(0, 1)


def ratio_loss(masks: Tensor, real: Tensor, ratio: Tensor, audible: Tensor, *, mean: bool) -> Tensor:
    """Compute L_ACP = ‖σ(Σ_k m_k^a) - a_i / a_p‖, averaged over the frames with sound.

    Args:
        masks: m^a (b, K, t, f).
        real: (b, K) bool, prompts to include.
        ratio: (b, 96, 64).
        audible: (b,) bool, frames with sound.
        mean: Use the mean of squares over time and frequency instead of the 2-norm.

    Returns:
        0-d; 0 with gradient 0 when no frame has sound.
    """
    total = (masks.float() * real[..., None, None]).sum(1, keepdim=True)
    predicted = interpolate(total, tuple(ratio.shape[1:]), mode="bilinear")[:, 0].sigmoid()
    difference = predicted - ratio
    per_frame = difference.square().mean((1, 2)) if mean else vector_norm(difference, dim=(1, 2))
    return (per_frame * audible).sum() / audible.sum().clamp(min=1)


def contrast(
    anchors: Tensor, classes: Tensor, embeddings: Tensor, labels: Tensor, *, temperature: float, pixels: int
) -> Tensor:
    """Compute L_PCL: InfoNCE of the audio embeddings of prompts and pixel embeddings.

    Positives are pixels of the anchor's class; negatives are pixels of other classes and of the background.

    Args:
        anchors: A_k (m, dp), not normalised.
        classes: (m,), classes of the anchors.
        embeddings: Pixel embeddings (n, dp, h, w), not normalised.
        labels: (n, H, W), 255 ignored.
        temperature: Divisor of the cosines.
        pixels: Maximum number of random pixels per class.

    Returns:
        0-d; 0 with gradient 0 when no anchor has a pixel of its class.
    """
    vectors, vector_classes = _sample_pixels(embeddings.float(), labels, pixels)
    cosine = normalize(anchors.float(), dim=1) @ normalize(vectors, dim=1).T / temperature
    same = classes[:, None] == vector_classes
    return info_nce(cosine, same, ~same)


def _sample_pixels(embeddings: Tensor, labels: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Return at most ``pixels`` random vectors of each class, (P, dp), and their classes (P,)."""
    size = embeddings.shape[-2:]
    classes = interpolate(labels[:, None].float(), size, mode="nearest")[:, 0].long().flatten()
    vectors = embeddings.movedim(1, -1).flatten(0, 2)
    found = [(classes == c).nonzero().flatten() for c in classes.unique().tolist() if c != IGNORE]
    chosen = [i[torch.randperm(len(i), device=i.device)[:pixels]] for i in found]
    index = torch.cat(chosen) if chosen else classes.new_zeros(0)
    return vectors[index], classes[index]
