"""DPC-KNN clustering of tokens: density peaks (Rodriguez and Laio 2014) with the density of k neighbours.

DPC-KNN is due to Du et al. (Knowledge-Based Systems, 2016); this is the form of TCFormer (Zeng et al., arXiv
2204.08680). A centre is a token of high density that is far from every denser token. All other tokens are assigned to
the nearest centre.

===============================  ==============  =======================================================
symbol                           variable        shape, meaning
===============================  ==============  =======================================================
D_ij = ‖x_i - x_j‖ / √D          ``distances``   (n, N, N)
ln ρ_i = -mean_{j ∈ kNN(i)} D²   ``density``     (n, N); a token is the first of its own k neighbours
i denser than j                  ``denser``      (n, N, N); ρ_i > ρ_j, or ρ_i = ρ_j and i < j
δ_i = min_{j denser than i} D    ``separation``  (n, N); ∞ for the densest
ln(ρ_i δ_i)                      ``score``       (n, N); the P highest are centres
===============================  ==============  =======================================================

Differs from TCFormer:

1. TCFormer breaks ties with random noise; here the lower index wins, so that two runs agree.
2. Densities and scores are logarithms. Their order is the same, but ρ = exp(-100) would underflow and tie all tokens.
3. δ of the densest token is ∞ instead of max D; its score is the highest in both cases.
4. Distances are sums of squared differences instead of matrix products, so that equal tokens have distance 0.
5. Centres of maps with too many tokens for all pairs are searched at a lower resolution.
"""

import math

import torch
from torch import Tensor
from torch.compiler import is_exporting
from torch.nn.functional import adaptive_avg_pool2d

from avseg.nn.functional import full_precision


@torch.no_grad()
def dpc_knn(tokens: Tensor, clusters: int, neighbours: int = 5) -> Tensor:
    """Return the cluster of each token; rows of the batch are independent.

    Args:
        tokens: (n, N, D).
        clusters: P; with N < P tokens, each token is a cluster.
        neighbours: k, including the token itself; at most N are used.

    Returns:
        (n, N) int64 in 0..min(P, N)-1. Clusters are numbered by decreasing score of their centres. No cluster is
        empty: a centre belongs to its own cluster even if it equals another; other equal tokens get the lower number.
    """
    tokens = tokens.float()
    with full_precision(tokens):
        centres = _centres(tokens, clusters, neighbours)
        nearest = _nearest(tokens, tokens.take_along_dim(centres[..., None], 1))
    own = torch.arange(centres.shape[1], device=tokens.device)
    return nearest.scatter(1, centres, own.expand_as(centres))


@torch.no_grad()
def group(maps: Tensor, clusters: int, neighbours: int, largest: int) -> Tensor:
    """Return the cluster of each position of feature maps, in memory linear in the number of positions.

    Frames are independent. A map of more than ``largest``² positions is average-pooled to at most ``largest`` per
    side. The centres are found there, and every position of the full map is assigned to the nearest centre.

    Args:
        maps: (n, D, h, w).
        clusters: P.
        neighbours: k.
        largest: Side of the largest square map of which all pairs are compared.

    Returns:
        (n, h * w) int64 as from :func:`dpc_knn`. The centres of a pooled map are not tokens of the full map, so a
        cluster may be empty.
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
    """Return the indices of the highest scores among tokens (n, N, D), highest first, (n, min(P, N))."""
    count = tokens.shape[1]
    distances = _distances(tokens, tokens)
    nearest = distances.topk(min(neighbours, count), largest=False).values
    density = -nearest.square().mean(-1)
    index = torch.arange(count, device=tokens.device)
    one, other = density[:, :, None], density[:, None]
    denser = (one > other) | ((one == other) & (index[:, None] < index))
    separation = distances.masked_fill(~denser, torch.inf).amin(1)
    score = density + separation.log()
    if is_exporting():  # ONNX has no stable sort, but its topk takes the lower index of ties
        return score.topk(min(clusters, count)).indices
    order: Tensor = score.argsort(descending=True, stable=True)
    return order[:, :clusters]


def _nearest(tokens: Tensor, centres: Tensor) -> Tensor:
    """Return the index of the nearest centre (n, P, D) of each token (n, N, D), the first of ties: (n, N)."""
    return _distances(tokens, centres).argmin(-1)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Return Euclidean distances over √D, (n, N, M), of (n, N, D) and (n, M, D)."""
    if is_exporting():  # ONNX has no pairwise distance; this form needs D times the memory
        squares = (x[:, :, None] - y[:, None]).square()
        return squares.mean(-1).sqrt()
    distances: Tensor = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distances / math.sqrt(x.shape[-1])
