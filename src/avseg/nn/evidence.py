"""How much is known about a pixel: evidence for its classes, as a Dirichlet distribution over their probabilities.

Evidential deep learning (Sensoy et al., arXiv 1806.01768). Evidence e ≥ 0 for each class makes a Dirichlet
distribution; without any it is flat, and the pixel entirely uncertain.

==============  ===============  ==================================================
symbol          variable         shape, what
==============  ===============  ==================================================
α = e + 1       ``alpha``        (n, C, h, w), each ≥ 1
S = Σ_c α_c     ``strength``     (n, h, w)
U = C / S       ``uncertainty``  (n, 1, h, w), the vacuity, in (0, 1]
y               ``labels``       (n, h, w), one-hot in the formulas
α̃ = y + (1-y)α  ``misleading``   α without the evidence for the label
==============  ===============  ==================================================

Differs from the paper:

1. Evidence is the exponential of logits, which grows by factors, or their softplus; there, it is their ReLU, which has
   no gradient once it is 0.
2. The data term is the second of the paper's three, or the first; there, it is the third, that of squares.
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
"""From this logit on, the exponential goes straight on: evidence stays finite, and so does its gradient."""


def concentration(logits: Tensor, activation: Activation = "exp") -> Tensor:
    """α = e + 1 of evidence logits of any shape, in float32; ``exp`` is a straight line beyond e^10."""
    logits = logits.float()
    if activation == "softplus":
        return softplus(logits) + 1
    return logits.clamp(max=_STRAIGHT).exp() + math.exp(_STRAIGHT) * relu(logits - _STRAIGHT) + 1


def vacuity(alpha: Tensor) -> Tensor:
    """Uncertainty U = C / S: 1 without evidence, towards 0 with more and more, whatever for.

    Args:
        alpha: (n, C, ...), each ≥ 1.

    Returns:
        (n, 1, ...) in (0, 1].
    """
    return alpha.shape[1] / alpha.sum(1, keepdim=True)


def dirichlet_kl(alpha: Tensor) -> Tensor:
    """KL(Dir(α) ‖ Dir(1)): how far a distribution is from knowing nothing.

    Args:
        alpha: (n, C, ...) in float32 or better.

    Returns:
        (n, ...), in nats.
    """
    strength = alpha.sum(1)
    normaliser = strength.lgamma() - math.lgamma(alpha.shape[1]) - alpha.lgamma().sum(1)
    return normaliser + ((alpha - 1) * (alpha.digamma() - strength.digamma()[:, None])).sum(1)


def evidential_loss(
    alpha: Tensor, labels: Tensor, divergence: float | Tensor, data: DataTerm = "cross_entropy"
) -> Tensor:
    """Mean over pixels of the data term + divergence · KL(Dir(α̃) ‖ Dir(1)).

    The first collects evidence for the label, the second removes what there is for anything else. The cross-entropy of
    the label, expected of the distribution, is ψ(S) - ψ(α_y), eq. (4). The likelihood of the label, type II, gives
    ln S - ln α_y, eq. (3), which does not ask for evidence as such: of a pixel whose classes are all as likely it is
    the same with any, and the second term takes it all away.

    Args:
        alpha: (n, C, h, w) in float32 or better, each ≥ 1.
        labels: (n, h, w) in 0..C-1, 255 ignored.
        divergence: Weight of the second; the paper raises it from 0 to 1 over the first 10 epochs.
        data: Which data term.

    Returns:
        0-d; 0 (with gradient 0) when nothing is labelled.
    """
    scored = labels != IGNORE
    alpha = alpha.movedim(1, -1)[scored]
    own = labels[scored][:, None]
    weigh = torch.digamma if data == "cross_entropy" else torch.log
    costs = weigh(alpha.sum(1)) - weigh(alpha.gather(1, own)[:, 0])
    misleading = alpha.scatter(1, own, 1.0)
    return (costs + divergence * dirichlet_kl(misleading)).sum() / max(len(alpha), 1)


def down_weighted(logits: Tensor, uncertainty: Tensor) -> Tensor:
    """The answer, less confident where it is uncertain: p_c (1 - U) for foreground, the remainder for the background.

    Args:
        logits: (n, 1, H, W) before sigmoid, or (n, K, H, W) before softmax with channel 0 the background.
        uncertainty: U (n, 1, H, W) in 0..1; counts as no nearer to either end than float32 tells numbers from 1.

    Returns:
        Logits shaped like ``logits``, in float32, whose sigmoid or softmax are these probabilities.
    """
    logits = logits.float()
    alone = logits.shape[1] == 1
    known = torch.cat([logsigmoid(-logits), logsigmoid(logits)], 1) if alone else log_softmax(logits, 1)
    # No evidence at all rounds to an uncertainty of 1: its logit and gradient would be infinite.
    eps = torch.finfo(torch.float32).eps
    uncertainty = uncertainty.float().clamp(eps, 1 - eps)
    kept = known + (-uncertainty).log1p()
    background = torch.logaddexp(kept[:, :1], uncertainty.log())
    return kept[:, 1:] - background if alone else torch.cat([background, kept[:, 1:]], 1)
