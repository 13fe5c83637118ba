"""Tests of DPC-KNN: against plain loops in float64, with and without equal tokens, and on known blobs."""

import math
from decimal import Decimal
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from torch.overrides import TorchFunctionMode

from avseg.nn.dpc_knn import dpc_knn, group


def far(a: list[float], b: list[float]) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a))


def nearest(token: list[float], centres: list[list[float]]) -> int:
    """Return the index of the nearest centre, the first of ties."""
    distances = [far(token, centre) for centre in centres]
    return distances.index(min(distances))


def slow_centres(tokens: list[list[float]], clusters: int, neighbours: int) -> list[int]:
    """Return the indices of the centres of one row, highest score first."""
    count = len(tokens)
    distances = [[far(a, b) for b in tokens] for a in tokens]
    density = []
    for row in distances:
        near = sorted(row)[: min(neighbours, count)]
        density.append(Decimal(-sum(d * d for d in near) / len(near)).exp())  # whose exponents have no end
    scores = []
    for i in range(count):
        denser = [j for j in range(count) if density[j] > density[i] or (density[j] == density[i] and j < i)]
        separation = min(distances[i][j] for j in denser) if denser else max(map(max, distances))
        scores.append(density[i] * Decimal(separation))
    return sorted(range(count), key=lambda i: (-scores[i], i))[:clusters]


def slow_clusters(tokens: Tensor, clusters: int, neighbours: int) -> list[int]:
    """Return the clusters of one row (N, D)."""
    rows = tokens.double().tolist()
    centres = slow_centres(rows, clusters, neighbours)
    own = {centre: number for number, centre in enumerate(centres)}
    return [own.get(i, nearest(row, [rows[c] for c in centres])) for i, row in enumerate(rows)]


def with_copies(n: int, count: int, dim: int) -> Tensor:
    """Return random tokens in random order, a third of them copies of others."""
    distinct = torch.randn(n, count - count // 3, dim)
    copies = distinct[:, torch.randint(distinct.shape[1], (count // 3,))]
    return torch.cat([distinct, copies], 1)[:, torch.randperm(count)]


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize(
    ("count", "dim", "clusters", "neighbours"),
    [(30, 4, 5, 5), (41, 1, 3, 2), (23, 16, 8, 1), (12, 3, 12, 4), (9, 2, 4, 50), (17, 5, 1, 5), (40, 32, 16, 7)],
)
def test_clusters_equal_plain_loops(count: int, dim: int, clusters: int, neighbours: int, copies: bool) -> None:
    for scale in (0.1, 1.0, 3.0):
        tokens = scale * (with_copies(3, count, dim) if copies else torch.randn(3, count, dim))
        found = dpc_knn(tokens, clusters, neighbours)
        assert found.dtype == torch.int64
        assert found.tolist() == [slow_clusters(row, clusters, neighbours) for row in tokens]


def test_blobs_are_recovered() -> None:
    """Use eight blobs of different sizes, deviation 1 and distance 50, numbered by the scores of their centres."""
    blob = torch.arange(8).repeat_interleave(torch.tensor([6, 7, 9, 11, 14, 16, 20, 30]))
    blob = blob[torch.randperm(len(blob))]
    tokens = 36 * torch.eye(8, 32)[blob] + torch.randn(len(blob), 32)
    found = dpc_knn(tokens[None], 8)[0]
    pairs = set(zip(blob.tolist(), found.tolist(), strict=True))
    assert len(pairs) == 8
    assert {c for _, c in pairs} == set(range(8))


def test_the_highest_score_is_cluster_0() -> None:
    """By hand, k = 2: log densities of 20, 7, 1, 5, 0 are -84.5, -2, -.5, -2, -.5; separations are 13, 6, 20, 2, 1.

    1 is as dense as 0 but comes first, so it is the densest, and 7 is denser than 5. Scores: 0, .81, 12.1, .27, .61.
    """
    tokens = torch.tensor([20.0, 7.0, 1.0, 5.0, 0.0])[None, :, None]
    assert dpc_knn(tokens, 1, 2).tolist() == [[0, 0, 0, 0, 0]]
    assert dpc_knn(tokens, 2, 2).tolist() == [[1, 1, 0, 1, 0]]
    assert dpc_knn(tokens, 3, 2).tolist() == [[1, 1, 0, 1, 2]]
    assert dpc_knn(tokens, 4, 2).tolist() == [[1, 1, 0, 3, 2]]
    assert dpc_knn(tokens, 5, 2).tolist() == [[4, 1, 0, 3, 2]]


def test_ties_go_to_the_first_token() -> None:
    """Use three copies of three tokens, so that only the order of copies decides."""
    tokens = torch.tensor([4.0, 0.0, 9.0, 0.0, 9.0, 4.0, 0.0, 4.0, 9.0])[None, :, None]
    # k = 3: all as dense as can be. The first token is the densest of all, separated by 9; the others by 4 and 5.
    assert dpc_knn(tokens, 3, 3).tolist() == [[0, 2, 1, 2, 1, 0, 2, 0, 1]]
    # Copies have no separation, no score, and follow by index: a centre keeps to itself, others join the lower number.
    assert dpc_knn(tokens, 5, 3).tolist() == [[0, 2, 1, 3, 4, 0, 2, 0, 1]]


def test_equal_tokens_join_the_first_cluster() -> None:
    tokens = torch.randn(2, 1, 6).expand(2, 7, 6)
    assert dpc_knn(tokens, 3).tolist() == [[0, 1, 2, 0, 0, 0, 0]] * 2
    assert dpc_knn(1e4 + tokens, 1).tolist() == [[0] * 7] * 2


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fewer_tokens_than_clusters_are_singletons(count: int) -> None:
    for tokens in (torch.randn(3, count, 4), torch.zeros(3, count, 4)):
        for clusters in (count, count + 1, 50):
            found = dpc_knn(tokens, clusters)
            assert found.sort(1).values.tolist() == [list(range(count))] * 3


def test_empty_batch() -> None:
    assert dpc_knn(torch.zeros(0, 6, 4), 3).shape == (0, 6)
    assert group(torch.zeros(0, 4, 9, 9), 3, 5, 4).shape == (0, 81)


def test_tiny_densities_are_ranked() -> None:
    """Use tokens so far apart that their densities underflow in float64."""
    tokens = 300 * torch.randn(3, 20, 6)
    near = torch.cdist(tokens, tokens).div(6**0.5).topk(5, largest=False).values.double()
    assert (near.square().mean(-1).neg().exp() == 0).all()
    assert dpc_knn(tokens, 4, 5).tolist() == [slow_clusters(row, 4, 5) for row in tokens]


def test_frames_are_independent_and_deterministic() -> None:
    tokens = with_copies(5, 40, 8)
    maps = tokens.mT.unflatten(2, (5, 8))
    together = dpc_knn(tokens, 6)
    assert torch.equal(dpc_knn(tokens, 6), together)
    assert torch.equal(torch.cat([dpc_knn(row[None], 6) for row in tokens]), together)
    assert torch.equal(dpc_knn(torch.cat([1e3 * tokens[:3], tokens]), 6)[3:], together)
    for largest in (4, 7):
        together = group(maps, 6, 5, largest)
        assert torch.equal(group(maps, 6, 5, largest), together)
        assert torch.equal(torch.cat([group(frame[None], 6, 5, largest) for frame in maps]), together)


@pytest.mark.parametrize("size", [(4, 4), (2, 8), (1, 16), (3, 5)])
def test_small_map_is_clustered_as_tokens(size: tuple[int, int]) -> None:
    maps = torch.randn(3, 6, *size)
    assert torch.equal(group(maps, 4, 3, 4), dpc_knn(maps.flatten(2).mT, 4, 3))


@pytest.mark.parametrize(
    ("size", "pooled"), [((8, 8), (4, 4)), ((7, 10), (4, 4)), ((3, 12), (3, 4)), ((9, 2), (4, 2)), ((5, 4), (4, 4))]
)
def test_large_map_uses_centres_of_the_pooled_map(size: tuple[int, int], pooled: tuple[int, int]) -> None:
    maps = torch.randn(2, 6, *size)
    found = group(maps, 5, 3, 4)
    assert found.shape == (2, size[0] * size[1])
    for frame, clusters in zip(maps, found, strict=True):
        averages = adaptive_avg_pool2d(frame, pooled).flatten(1).T.tolist()
        centres = [averages[i] for i in slow_centres(averages, 5, 3)]
        assert clusters.tolist() == [nearest(token, centres) for token in frame.flatten(1).T.tolist()]


class Largest(TorchFunctionMode):
    """Record the size of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple) else (out,):
            self.numbers = max(self.numbers, made.numel() if isinstance(made, Tensor) else 0)
        return out


def largest_tensor(side: int, largest: int) -> int:
    with Largest() as seen:
        group(torch.randn(2, 3, side, side), 4, 5, largest)
    return seen.numbers


def test_memory_is_linear_in_positions_of_a_large_map() -> None:
    assert largest_tensor(32, 4) == 4 * largest_tensor(16, 4) == 2 * 4 * 32 * 32  # from places to centres
    assert largest_tensor(12, 12) == 16 * largest_tensor(6, 6) == 2 * 12**4  # all pairs


def test_clustering_has_no_gradient() -> None:
    maps = torch.randn(2, 4, 8, 8, requires_grad=True)
    tokens = torch.randn(2, 20, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: pytest.fail("kept for a gradient"), lambda x: x):
        found = [group(maps, 3, 5, 4), group(maps, 3, 5, 8), dpc_knn(tokens, 3)]
    assert not any(clusters.requires_grad for clusters in found)
    assert torch.is_grad_enabled()


def test_half_precision_is_clustered_in_float32() -> None:
    maps = (100 + torch.randn(2, 8, 6, 6)).bfloat16()
    expected = {largest: group(maps.float(), 4, 5, largest) for largest in (3, 6)}
    for largest, clusters in expected.items():
        assert torch.equal(group(maps, 4, 5, largest), clusters)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(group(maps, 4, 5, largest), clusters)
            assert torch.equal(group(maps.float(), 4, 5, largest), clusters)
