"""Groups of tokens that look alike: density peaks (Rodriguez and Laio 2014) with the density of k neighbours.

DPC-KNN is due to Du et al. (Knowledge-Based Systems, 2016); this is the form of TCFormer (Zeng et al., arXiv
2204.08680). A centre is a token that is dense and far from every denser one. All other tokens go to the nearest centre.

===============================  ==============  =======================================================
symbol                           variable        what
===============================  ==============  =======================================================
D_ij = ‖x_i - x_j‖ / √D          ``distances``   (n, N, N)
ln ρ_i = -mean_{j ∈ kNN(i)} D²   ``density``     (n, N); a token is the first of its own k neighbours
i denser than j                  ``denser``      (n, N, N); ρ_i > ρ_j, or ρ_i = ρ_j and i < j
δ_i = min_{j denser than i} D    ``separation``  (n, N); ∞ for the densest
ln(ρ_i δ_i)                      ``score``       (n, N); the P highest are centres
===============================  ==============  =======================================================

Differs from TCFormer:

1. Noise breaks its ties, another one each time; here the lower index wins every tie, so that two runs agree.
2. Densities and scores are logarithms: the same order, but ρ = exp(-100) would be 0, and all tokens alike.
3. δ of the densest is ∞ instead of max D: its score is the highest either way.
4. Distances are sums of squared differences instead of products of matrices: copies of a token are at distance 0.
5. Maps with too many tokens for all pairs are searched for centres at a lower resolution.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from avseg.nn.functional import full_precision


@torch.no_grad()
def dpc_knn(tokens: Tensor, clusters: int, neighbours: int = 5) -> Tensor:
    """The cluster of each token, each row of the batch by itself.

    Args:
        tokens: (n, N, D).
        clusters: P; with fewer tokens than that each is a cluster of its own.
        neighbours: k, the token itself being one of them; at most N count.

    Returns:
        (n, N) int64 in 0..min(P, N)-1. Clusters are numbered from the highest score of a centre to the lowest. None is
        empty: a centre is in its own cluster, even if it equals another; other copies go to the lower number.
    """
    tokens = tokens.float()
    with full_precision(tokens):
        centres = _centres(tokens, clusters, neighbours)
        nearest = _nearest(tokens, tokens.take_along_dim(centres[..., None], 1))
    own = torch.arange(centres.shape[1], device=tokens.device)
    return nearest.scatter(1, centres, own.expand_as(centres))


@torch.no_grad()
def group(maps: Tensor, clusters: int, neighbours: int, largest: int) -> Tensor:
    """The cluster of each place of feature maps, each frame by itself, in memory linear in the number of places.

    A map of more than ``largest``² places is averaged down to at most ``largest`` a side. The centres are found there,
    and every place of the full map goes to the nearest.

    Args:
        maps: (n, D, h, w).
        clusters: P.
        neighbours: k.
        largest: The side of the largest square of which all pairs are compared.

    Returns:
        (n, h * w) int64 like :func:`dpc_knn`'s; but centres of an averaged map are no places: a cluster may be empty.
    """
    height, width = maps.shape[2:]
    tokens = maps.flatten(2).mT
    if height * width <= largest**2:
        return dpc_knn(tokens, clusters, neighbours)
    maps, tokens = maps.float(), tokens.float()
    with full_precision(maps):
        pooled = adaptive_avg_pool2d(maps, (min(height, largest), min(width, largest))).flatten(2).mT
        centres = _centres(pooled, clusters, neighbours)
        return _nearest(tokens, pooled.take_along_dim(centres[..., None], 1))


def _centres(tokens: Tensor, clusters: int, neighbours: int) -> Tensor:
    """Indices of the highest scores among (n, N, D) tokens, highest first: (n, min(P, N))."""
    count = tokens.shape[1]
    distances = _distances(tokens, tokens)
    nearest = distances.topk(min(neighbours, count), largest=False).values
    density = -nearest.square().mean(-1)
    rank = density.argsort(descending=True, stable=True).argsort()
    denser = rank[:, :, None] < rank[:, None]
    separation = distances.masked_fill(~denser, torch.inf).amin(1)
    score = density + separation.log()
    order: Tensor = score.argsort(descending=True, stable=True)
    return order[:, :clusters]


def _nearest(tokens: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest of (n, P, D) centres to each of (n, N, D) tokens, of equally near ones the first: (n, N)."""
    return _distances(tokens, centres).argmin(-1)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances over √D: (n, N, D), (n, M, D) → (n, N, M)."""
    distances: Tensor = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distances / math.sqrt(x.shape[-1])
