"""Evidential deep learning (Sensoy et al., arXiv 1806.01768): class evidence as a Dirichlet distribution.

Evidence e ≥ 0 for each class of a pixel parametrises a Dirichlet distribution over class probabilities. Without
evidence the distribution is uniform, and the uncertainty of the pixel is 1.

==============  ===============  ==================================================
symbol          variable         shape, meaning
==============  ===============  ==================================================
α = e + 1       ``alpha``        (n, C, h, w), each ≥ 1
S = Σ_c α_c     ``strength``     (n, h, w)
U = C / S       ``uncertainty``  (n, 1, h, w), the vacuity, in (0, 1]
y               ``labels``       (n, h, w), one-hot in the formulas
α̃ = y + (1-y)α  ``misleading``   α without the evidence for the label
==============  ===============  ==================================================

Differs from the paper:

1. Evidence is the exponential of logits or their softplus; in the paper it is their ReLU, which has no gradient at 0.
2. The data term is the second or the first of the three in the paper; the paper uses the third, the sum of squares.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, relu, softplus

from avseg.interface import IGNORE

Activation = Literal["exp", "softplus"]
DataTerm = Literal["cross_entropy", "likelihood"]

_STRAIGHT = 10.0
"""Logit above which the exponential is continued linearly, so that evidence and its gradient stay finite."""


def concentration(logits: Tensor, activation: Activation = "exp") -> Tensor:
    """Return α = e + 1 of evidence logits of any shape, in float32; ``exp`` is linear above a logit of 10."""
    logits = logits.float()
    if activation == "softplus":
        return softplus(logits) + 1
    return logits.clamp(max=_STRAIGHT).exp() + math.exp(_STRAIGHT) * relu(logits - _STRAIGHT) + 1


def vacuity(alpha: Tensor) -> Tensor:
    """Return the uncertainty U = C / S: 1 without evidence, approaching 0 with evidence for any classes.

    Args:
        alpha: (n, C, ...), each ≥ 1.

    Returns:
        (n, 1, ...) in (0, 1].
    """
    return alpha.shape[1] / alpha.sum(1, keepdim=True)


def dirichlet_kl(alpha: Tensor) -> Tensor:
    """Return KL(Dir(α) ‖ Dir(1)), the divergence from the uniform Dirichlet distribution.

    Args:
        alpha: (n, C, ...) in float32 or float64.

    Returns:
        (n, ...), in nats.
    """
    strength = alpha.sum(1)
    normaliser = strength.lgamma() - math.lgamma(alpha.shape[1]) - alpha.lgamma().sum(1)
    return normaliser + ((alpha - 1) * (alpha.digamma() - strength.digamma()[:, None])).sum(1)


def evidential_loss(
    alpha: Tensor, labels: Tensor, divergence: float | Tensor, data: DataTerm = "cross_entropy"
) -> Tensor:
    """Compute the mean over pixels of the data term + divergence · KL(Dir(α̃) ‖ Dir(1)).

    The data term increases evidence for the label; the KL term removes evidence for other classes. ``cross_entropy``
    is the expected cross-entropy ψ(S) - ψ(α_y), eq. (4). ``likelihood`` is the type II likelihood ln S - ln α_y,
    eq. (3). For a pixel whose classes are equally likely, it does not depend on the amount of evidence, so that the KL
    term removes all of it.

    Args:
        alpha: (n, C, h, w) in float32 or float64, each ≥ 1.
        labels: (n, h, w) in 0..C-1, 255 ignored.
        divergence: Weight of the KL term; the paper raises it from 0 to 1 over the first 10 epochs.
        data: Data term.

    Returns:
        0-d; 0 with gradient 0 when no pixel is labelled.
    """
    scored = labels != IGNORE
    alpha = alpha.movedim(1, -1)[scored]
    own = labels[scored][:, None]
    weigh = torch.digamma if data == "cross_entropy" else torch.log
    costs = weigh(alpha.sum(1)) - weigh(alpha.gather(1, own)[:, 0])
    misleading = alpha.scatter(1, own, 1.0)
    return (costs + divergence * dirichlet_kl(misleading)).sum() / max(len(alpha), 1)


def down_weighted(logits: Tensor, uncertainty: Tensor) -> Tensor:
    """Scale foreground probabilities to p_c (1 - U) and assign the remainder to the background.

    Args:
        logits: (n, 1, H, W) before sigmoid, or (n, K, H, W) before softmax with channel 0 the background.
        uncertainty: U (n, 1, H, W) in 0..1; clamped to [eps, 1 - eps] of float32.

    Returns:
        Logits shaped like ``logits``, in float32, whose sigmoid or softmax gives these probabilities.
    """
    logits = logits.float()
    binary = logits.shape[1] == 1
    log_p = torch.cat([logsigmoid(-logits), logsigmoid(logits)], 1) if binary else log_softmax(logits, 1)
    # An uncertainty of exactly 1 would have an infinite logit and gradient.
    eps = torch.finfo(torch.float32).eps
    uncertainty = uncertainty.float().clamp(eps, 1 - eps)
    scaled = log_p + (-uncertainty).log1p()
    background = torch.logaddexp(scaled[:, :1], uncertainty.log())
    return scaled[:, 1:] - background if binary else torch.cat([background, scaled[:, 1:]], 1)
