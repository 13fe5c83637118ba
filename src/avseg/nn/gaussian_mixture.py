"""Per-class Gaussian mixtures, fitted during training: the class-conditional distributions (CCDM) of CPM.

p(x | c) = Σ_m N(x; μ_cm, Σ_cm) / M, with diagonal Σ and components of equal weight, as in GMMSeg (Liang et al., arXiv
2210.02025), whose procedure CPM follows. A memory keeps the latest vectors of each class, and EM runs over it at
regular intervals. The E-step uses Sinkhorn: responsibilities sum to 1 for each vector and to an equal share for each
component.

Mixtures have no parameters and no gradient: all state is in buffers, so that checkpoints contain it.

Differs from GMMSeg:

1. There is one memory per class, with a count of its vectors; in GMMSeg there is one per component, initialised with
   noise.
2. Sinkhorn runs on log-likelihoods at temperature 1, over the whole memory, which makes it Sinkhorn EM (Mena et al.,
   arXiv 2006.16548); in GMMSeg it runs on the vectors of one step, divided by their largest score.
3. A class is initialised by its first fit; in GMMSeg a random initialisation decays with the momentum.
4. A new mean is not normalised; in GMMSeg it is projected onto the unit sphere.
5. The likelihood sums over components; in GMMSeg it is the maximum.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributed import is_available, is_initialized
from torch.nn.functional import cross_entropy

from avseg.nn.functional import full_precision

_FIRST_ROUNDS = 10
"""Rounds of EM in the first fit of a class; later fits run one round from the current mixture."""


class ClassMixtures(nn.Module):
    """One mixture per class.

    Args:
        classes: C.
        components: M.
        dim: d.
        memory: Vectors kept for each class.
        min_samples: Vectors in memory before a class is fitted.
        fit_every: Calls of :meth:`observe` between two fits.
        momentum: Weight of the old mean at each fit.
        var_floor: Constant added to every variance.
        sinkhorn_rounds: Rounds of Sinkhorn in an E-step.

    Attributes:
        mean: μ (C, M, d); 0 until the class is fitted.
        variance: The diagonal of Σ (C, M, d); 1 until the class is fitted.
        fitted: (C,) bool.
    """

    mean: Tensor
    variance: Tensor
    fitted: Tensor
    memory: Tensor
    filled: Tensor
    cursor: Tensor
    calls: Tensor

    def __init__(
        self,
        classes: int,
        components: int,
        dim: int,
        *,
        memory: int,
        min_samples: int,
        fit_every: int,
        momentum: float,
        var_floor: float,
        sinkhorn_rounds: int,
    ) -> None:
        super().__init__()
        self.min_samples, self.fit_every, self.momentum, self.var_floor, self.sinkhorn_rounds = (
            min_samples,
            fit_every,
            momentum,
            var_floor,
            sinkhorn_rounds,
        )
        self.register_buffer("mean", torch.zeros(classes, components, dim))
        self.register_buffer("variance", torch.ones(classes, components, dim))
        self.register_buffer("fitted", torch.zeros(classes, dtype=torch.bool))
        self.register_buffer("memory", torch.zeros(classes, memory, dim))
        self.register_buffer("filled", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("cursor", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Return log p(x | c), (..., C), of vectors (..., d); -inf for unfitted classes once any class is fitted."""
        x = x.float()
        per_component = _log_normal(x, self.mean.flatten(0, 1), self.variance.flatten(0, 1))
        classes, components = self.mean.shape[:2]
        likelihood: Tensor = per_component.unflatten(-1, (classes, components)).logsumexp(-1) - math.log(components)
        return likelihood.masked_fill(~self.fitted & self.fitted.any(), -torch.inf)

    def log_posterior(self, x: Tensor) -> Tensor:
        """Return log p(c | x), (..., C), by Bayes' rule with a uniform prior, of vectors (..., d)."""
        return self.log_likelihood(x).log_softmax(-1)

    def cross_entropy(self, x: Tensor, classes: Tensor) -> Tensor:
        """Return the mean cross-entropy of the posterior over vectors (n, d) of fitted classes; 0 if there is none."""
        fitted = self.fitted[classes]
        if not fitted.any():
            return x.sum() * 0
        return cross_entropy(self.log_likelihood(x[fitted]), classes[fitted])

    def sample(self, classes: Tensor) -> Tensor:
        """Sample one vector per class, (n, d) for (n,) int64.

        Raises:
            ValueError: When a class was never fitted.
        """
        if not self.fitted[classes].all():
            raise ValueError(f"classes must be fitted before they are sampled, got {classes.tolist()}")
        component = torch.randint(self.mean.shape[1], classes.shape, device=classes.device)
        deviation = self.variance[classes, component].sqrt()
        return self.mean[classes, component] + deviation * torch.randn_like(deviation)

    @torch.no_grad()
    def observe(self, x: Tensor, classes: Tensor) -> None:
        """Add vectors to the memory, and fit the mixtures in every ``fit_every``-th call.

        In distributed training every process gets the vectors of all processes, in the order of their ranks, so that
        the mixtures stay equal.

        Args:
            x: (n, d); n may be 0.
            classes: (n,) int64.
        """
        x, classes = _of_all_processes(x.detach().float().contiguous(), classes.contiguous())
        for c in classes.unique().tolist():
            self._remember(c, x[classes == c])
        self.calls += 1
        if self.calls % self.fit_every == 0:
            with full_precision(x):
                for c in (self.filled >= self.min_samples).nonzero().flatten().tolist():
                    self._fit(c)

    def _remember(self, c: int, x: Tensor) -> None:
        """Write into the ring buffer of class ``c``, replacing the oldest vectors."""
        size = self.memory.shape[1]
        x = x[-size:]
        places = (self.cursor[c] + torch.arange(len(x), device=x.device)) % size
        self.memory[c, places] = x
        self.cursor[c] = (self.cursor[c] + len(x)) % size
        self.filled[c] = (self.filled[c] + len(x)).clamp(max=size)

    def _fit(self, c: int) -> None:
        """Run one round of EM over the memory of class ``c``, or several in its first fit."""
        x = self.memory[c, : int(self.filled[c])]
        if self.fitted[c]:
            mean, variance = self._round(x, self.mean[c], self.variance[c])
            mean = self.momentum * self.mean[c] + (1 - self.momentum) * mean
        else:
            mean = _initial_means(x, self.mean.shape[1])
            variance = (x.var(0, correction=0) + self.var_floor).expand_as(mean)
            for _ in range(_FIRST_ROUNDS):
                mean, variance = self._round(x, mean, variance)
        self.mean[c], self.variance[c], self.fitted[c] = mean, variance, True

    def _round(self, x: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance (M, d) after one E-step and M-step over x (n, d)."""
        share = sinkhorn(_log_normal(x, mean, variance), self.sinkhorn_rounds)
        share = share / share.sum(0)
        mean = share.T @ x
        spread = torch.einsum("nm,nmd->md", share, (x[:, None] - mean).square())
        return mean, spread + self.var_floor


def sinkhorn(log_likelihood: Tensor, rounds: int) -> Tensor:
    """Return responsibilities of components of equal weight.

    Args:
        log_likelihood: log N(x_n; m), (n, M).
        rounds: Number of times that columns are scaled to n / M and then rows to 1.

    Returns:
        (n, M); rows sum to 1 exactly, columns approximately to n / M, closer with more rounds.
    """
    plan = log_likelihood
    for _ in range(rounds):
        plan = plan - plan.logsumexp(0, keepdim=True)
        plan = plan - plan.logsumexp(1, keepdim=True)
    return plan.exp()


def _log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return log N(x; mean, variance), (..., M), of x (..., d) under M diagonal Gaussians, as matrix products."""
    precision = 1 / variance
    with full_precision(x):
        squares = x.square() @ precision.T - 2 * x @ (mean * precision).T + (mean.square() * precision).sum(-1)
    return -0.5 * (squares + variance.log().sum(-1) + x.shape[-1] * math.log(2 * math.pi))


def _initial_means(x: Tensor, count: int) -> Tensor:
    """Return initial means (count, d): the vector nearest to the mean, then repeatedly the farthest from those."""
    chosen = x[(x - x.mean(0)).norm(dim=1).argmin()][None]
    while len(chosen) < count:
        chosen = torch.cat([chosen, x[torch.cdist(x, chosen).amin(1).argmax()][None]])
    return chosen


def _of_all_processes(x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Gather the vectors of all processes in the order of their ranks."""
    if not (is_available() and is_initialized()):
        return x, classes
    from torchmetrics.utilities.distributed import gather_all_tensors  # takes seconds to import

    return torch.cat(gather_all_tensors(x)), torch.cat(gather_all_tensors(classes))
