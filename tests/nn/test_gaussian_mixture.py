"""Tests of mixtures: known distributions, formulas against plain loops, and two processes against one."""

import math
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from avseg.nn.gaussian_mixture import ClassMixtures, sinkhorn

USUAL: dict[str, Any] = {
    "memory": 64,
    "min_samples": 4,
    "fit_every": 1,
    "momentum": 0.9,
    "var_floor": 0.01,
    "sinkhorn_rounds": 3,
}


def build(classes: int = 2, components: int = 2, dim: int = 4, **settings: Any) -> ClassMixtures:
    return ClassMixtures(classes, components, dim, **{**USUAL, **settings})


def known(classes: int, components: int, dim: int) -> ClassMixtures:
    """Return mixtures with given parameters, as if fitted, with distant components."""
    mixtures = build(classes, components, dim)
    step = 9 / math.sqrt(dim) * torch.arange(components)[:, None]
    mixtures.mean.copy_(4 * torch.randn(classes, 1, dim) + step * torch.randn(classes, 1, dim).sign())
    mixtures.variance.copy_(0.25 + 2 * torch.rand(classes, components, dim))
    mixtures.fitted.fill_(True)
    return mixtures


def drawn(truth: ClassMixtures, c: int, count: int) -> Tensor:
    """Sample vectors (count, d) of one class with torch distributions."""
    normal = Independent(Normal(truth.mean[c], truth.variance[c].sqrt()), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(truth.mean[c]))), normal).sample((count,))


def state(mixtures: ClassMixtures) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in mixtures.named_buffers()}


def assert_same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize(("dim", "components"), [(2, 2), (2, 3), (32, 2), (32, 3)])
def test_known_mixtures_are_recovered(dim: int, components: int) -> None:
    """Fit 4000 vectors per class: means within 0.2 (deviations are 0.5 to 1.5), variances within 20 percent."""
    truth = known(3, components, dim)
    found = build(3, components, dim, memory=4000, var_floor=1e-4, sinkhorn_rounds=3)
    x = torch.cat([drawn(truth, c, 4000) for c in range(3)])
    classes = torch.arange(3).repeat_interleave(4000)
    shuffled = torch.randperm(len(x))
    found.observe(x[shuffled], classes[shuffled])
    assert found.fitted.all()
    for c in range(3):
        orders = [list(p) for p in permutations(range(components))]
        errors = torch.stack([(found.mean[c, order] - truth.mean[c]).abs().max() for order in orders])
        assert errors.min() < 0.2
        variance = found.variance[c, orders[int(errors.argmin())]]
        assert (variance / truth.variance[c]).log().abs().max() < math.log(1.2)
    # Quantities derived from them.
    assert (found.log_posterior(x).exp() - truth.log_posterior(x).exp()).abs().mean() < 0.01


def test_likelihood_and_posterior_are_the_closed_form() -> None:
    truth = known(3, 2, 5)
    x = 4 * torch.randn(7, 2, 5)
    slow = torch.stack(
        [
            MixtureSameFamily(
                Categorical(torch.ones(2)), Independent(Normal(truth.mean[c], truth.variance[c].sqrt()), 1)
            ).log_prob(x)
            for c in range(3)
        ],
        -1,
    )
    by_hand = torch.stack(
        [
            torch.stack(
                [Normal(truth.mean[c, m], truth.variance[c, m].sqrt()).log_prob(x).sum(-1) for m in range(2)], -1
            ).logsumexp(-1)
            - math.log(2)
            for c in range(3)
        ],
        -1,
    )
    torch.testing.assert_close(truth.log_likelihood(x), slow, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(truth.log_likelihood(x), by_hand, rtol=1e-4, atol=1e-3)
    posterior = by_hand.double().exp() / by_hand.double().exp().sum(-1, keepdim=True)
    torch.testing.assert_close(truth.log_posterior(x).double().exp(), posterior, rtol=1e-3, atol=1e-6)


def test_unfitted_class_has_no_probability_and_no_samples() -> None:
    mixtures = build(3)
    x = torch.randn(40, 4)
    assert torch.allclose(mixtures.log_posterior(x).exp(), torch.tensor(1 / 3))  # no mixture is fitted yet
    mixtures.observe(x, torch.arange(40) % 2)
    assert mixtures.fitted.tolist() == [True, True, False]
    likelihood = mixtures.log_likelihood(x)
    assert torch.isfinite(likelihood[:, :2]).all()
    assert (likelihood[:, 2] == -math.inf).all()
    posterior = mixtures.log_posterior(x).exp()
    assert (posterior[:, 2] == 0).all()
    assert torch.allclose(posterior.sum(-1), torch.ones(40))
    assert (mixtures.mean[2] == 0).all()
    assert (mixtures.variance[2] == 1).all()
    with pytest.raises(ValueError, match=r"must be fitted before they are sampled, got \[0, 2\]"):
        mixtures.sample(torch.tensor([0, 2]))


def test_samples_have_the_statistics_of_their_class() -> None:
    truth = known(2, 3, 4)
    classes = torch.arange(2).repeat(20_000)
    samples = truth.sample(classes)
    assert samples.shape == (40_000, 4)
    for c in range(2):
        mean = truth.mean[c].mean(0)
        variance = truth.variance[c].mean(0) + (truth.mean[c] - mean).square().mean(0)
        own = samples[classes == c]
        assert ((own.mean(0) - mean) / (variance / len(own)).sqrt()).abs().max() < 4.5  # standard errors
        assert (own.var(0) / variance).log().abs().max() < 0.06
        # All components are sampled equally often.
        nearest = torch.cdist(own, truth.mean[c]).argmin(1).bincount(minlength=3) / len(own)
        assert (nearest - 1 / 3).abs().max() < 0.02


def test_memory_keeps_the_latest_in_order() -> None:
    mixtures = build(2, 1, 1, memory=8, min_samples=99)
    kept: list[deque[float]] = [deque(maxlen=8), deque(maxlen=8)]
    number = 0
    for sizes in ((3, 0), (1, 2), (7, 5), (20, 9), (0, 1), (8, 8), (2, 17)):
        vectors, classes = [], []
        for c in torch.randperm(sum(sizes)).lt(sizes[0]).logical_not().long().tolist():
            number += 1
            kept[c].append(number)
            vectors.append([float(number)])
            classes.append(c)
        mixtures.observe(torch.tensor(vectors).view(-1, 1), torch.tensor(classes, dtype=torch.int64))
        for c in range(2):
            filled, cursor = int(mixtures.filled[c]), int(mixtures.cursor[c])
            ring = mixtures.memory[c, :, 0]
            held = torch.cat([ring[cursor:], ring[:cursor]]) if filled == 8 else ring[:filled]
            assert held.tolist() == list(kept[c])
            assert cursor < 8


def test_class_is_fitted_with_min_samples_every_fit_every_calls() -> None:
    mixtures = build(2, 1, 3, min_samples=5, fit_every=3)

    def fitted(count: int, c: int) -> list[bool]:
        mixtures.observe(torch.randn(count, 3), torch.full((count,), c))
        return mixtures.fitted.tolist()

    assert fitted(4, 0) == [False, False]
    assert fitted(9, 1) == [False, False]
    assert fitted(0, 0) == [False, True]  # the third call; class 0 has 4 of 5
    before = state(mixtures)
    assert fitted(1, 0) == [False, True]
    assert fitted(30, 1) == [False, True]
    assert torch.equal(mixtures.mean, before["mean"])  # nothing between the third call and the sixth
    assert fitted(0, 0) == [True, True]
    assert not torch.equal(mixtures.mean[1], before["mean"][1])
    assert int(mixtures.calls) == 6


def slow_round(x: Tensor, mean: Tensor, variance: Tensor, rounds: int, floor: float) -> tuple[Tensor, Tensor]:
    """Compute one round of EM in loops, in float64."""
    count, components = len(x), len(mean)
    plan = torch.zeros(count, components, dtype=torch.float64)
    for n in range(count):
        for m in range(components):
            plan[n, m] = Normal(mean[m], variance[m].sqrt()).log_prob(x[n]).sum().exp()
    for _ in range(rounds):
        plan = plan / plan.sum(0) * count / components
        plan = plan / plan.sum(1, keepdim=True)
    means, variances = torch.zeros_like(mean), torch.zeros_like(variance)
    for m in range(components):
        share = plan[:, m] / plan[:, m].sum()
        for n in range(count):
            means[m] += share[n] * x[n]
        for n in range(count):
            variances[m] += share[n] * (x[n] - means[m]) ** 2
    return means, variances + floor


def test_update_is_one_round_of_em_with_momentum() -> None:
    mixtures = build(1, 2, 3, momentum=0.9, var_floor=0.05)
    mixtures.observe(torch.randn(20, 3) + 2 * torch.arange(20)[:, None].remainder(2), torch.zeros(20).long())
    for _ in range(3):
        before = {name: value.double() for name, value in state(mixtures).items()}
        new = torch.randn(6, 3) + 1
        mixtures.observe(new, torch.zeros(6).long())
        x = mixtures.memory[0, : int(mixtures.filled[0])].double()
        mean, variance = slow_round(x, before["mean"][0], before["variance"][0], 3, 0.05)
        torch.testing.assert_close(mixtures.mean[0].double(), 0.9 * before["mean"][0] + 0.1 * mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(mixtures.variance[0].double(), variance, rtol=1e-4, atol=1e-5)


def test_first_fit_ignores_momentum() -> None:
    """Check that the first fit has no momentum from the initial mean."""
    x = 5 + torch.randn(50, 3)
    mixtures = build(1, 1, 3, momentum=0.999)
    mixtures.observe(x, torch.zeros(50).long())
    torch.testing.assert_close(mixtures.mean[0, 0], x.mean(0))
    torch.testing.assert_close(mixtures.variance[0, 0], x.var(0, correction=0) + 0.01)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_identical_vectors_have_the_variance_of_the_floor(scale: float) -> None:
    vector = scale * torch.randn(4)
    mixtures = build(1, 3, 4, var_floor=0.02)
    for _ in range(3):
        mixtures.observe(vector.expand(30, 4), torch.zeros(30).long())
    torch.testing.assert_close(mixtures.mean[0], vector.expand(3, 4))
    torch.testing.assert_close(mixtures.variance[0], torch.full((3, 4), 0.02), rtol=0, atol=1e-6)
    assert torch.isfinite(mixtures.log_likelihood(vector)).all()
    assert torch.isfinite(mixtures.sample(torch.zeros(5).long())).all()


def test_sinkhorn_is_its_textbook_form() -> None:
    log_likelihood = 3 * torch.randn(30, 4, dtype=torch.float64)
    for rounds in (1, 3, 7):
        plan = log_likelihood.exp()
        for _ in range(rounds):
            for m in range(4):
                plan[:, m] *= 30 / 4 / plan[:, m].sum()
            for n in range(30):
                plan[n] /= plan[n].sum()
        torch.testing.assert_close(sinkhorn(log_likelihood, rounds), plan, rtol=1e-10, atol=0)


def test_sinkhorn_rows_sum_to_one_and_columns_to_equal_shares() -> None:
    log_likelihood = 3 * torch.randn(30, 4) + torch.tensor([0.0, 9.0, -9.0, 2.0])
    errors = []
    for rounds in (1, 3, 30, 300):
        plan = sinkhorn(log_likelihood, rounds)
        torch.testing.assert_close(plan.sum(1), torch.ones(30))
        errors.append(float((plan.sum(0) - 30 / 4).abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 < errors[0]
    far = sinkhorn(torch.tensor([[0.0, -1e5], [-1e5, -2e5], [-3e5, 0.0], [-9e5, -9e5]]), 3)
    torch.testing.assert_close(far.sum(1), torch.ones(4))
    assert torch.isfinite(far).all()


def test_observe_without_vectors_changes_nothing() -> None:
    mixtures = build()
    mixtures.observe(torch.zeros(0, 4), torch.zeros(0).long())
    assert not mixtures.fitted.any()
    assert not mixtures.filled.any()
    assert int(mixtures.calls) == 1
    assert mixtures.log_likelihood(torch.zeros(0, 4)).shape == (0, 2)
    mixtures.observe(torch.randn(20, 4), torch.zeros(20).long())
    before = state(mixtures)
    mixtures.observe(torch.zeros(0, 4), torch.zeros(0).long())
    assert torch.equal(mixtures.memory, before["memory"])
    assert mixtures.sample(torch.zeros(0).long()).shape == (0, 4)


def test_autocast_does_not_change_mixtures() -> None:
    x, classes = torch.randn(40, 4), torch.randint(2, (40,))
    alone, within = build(), build()
    for _ in range(3):
        alone.observe(x, classes)
        with torch.autocast("cpu", torch.bfloat16):
            within.observe(x, classes)
            posterior = within.log_posterior(x)
    assert_same_state(state(alone), state(within))
    assert posterior.dtype == torch.float32
    assert torch.equal(posterior, alone.log_posterior(x))


def test_gradients_reach_vectors_after_an_update() -> None:
    mixtures = build()
    x = torch.randn(40, 4, requires_grad=True)
    classes = torch.arange(40) % 2
    mixtures.observe(x, classes)
    loss = torch.nn.functional.cross_entropy(mixtures.log_posterior(x), classes)
    mixtures.observe(x + 1, classes)  # writes into the means the loss was made of
    loss.backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum(1).gt(0).all()
    assert not list(mixtures.parameters())
    assert not any(buffer.requires_grad for buffer in mixtures.buffers())


def test_mixtures_restore_from_a_state_dict() -> None:
    steps = [(torch.randn(9, 4), torch.randint(2, (9,))) for _ in range(9)]
    settings = {"fit_every": 2, "memory": 16}
    one = build(**settings)
    for step in steps[:5]:
        one.observe(*step)
    other = build(**settings)
    other.load_state_dict(one.state_dict())
    for step in steps[5:]:
        one.observe(*step)
        other.observe(*step)
    assert one.fitted.all()
    assert_same_state(state(one), state(other))


SECOND_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from test_gaussian_mixture import observe_with_another
observe_with_another(1, Path(sys.argv[2]))
"""

SIZES = ((5, 3), (0, 9), (12, 1), (0, 0), (2, 2), (30, 6))
"""Number of vectors of each of two processes in each step; the memory of a class has 16 rows."""


def steps() -> list[list[tuple[Tensor, Tensor]]]:
    """Return the vectors of each process in each step."""
    make = torch.Generator().manual_seed(1)
    return [
        [(torch.randn(n, 4, generator=make), torch.randint(3, (n,), generator=make)) for n in sizes] for sizes in SIZES
    ]


def observe_all(parts: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    mixtures = build(3, 2, 4, memory=16, fit_every=2)
    for x, classes in parts:
        mixtures.observe(x, classes)
    return state(mixtures)


def observe_with_another(rank: int, folder: Path) -> dict[str, Tensor]:
    """Join the other process, observe the vectors of this process, and save the resulting state."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", meeting, timedelta(minutes=5), rank=rank, world_size=2)
    try:
        found = observe_all([step[rank] for step in steps()])
        torch.save(found, folder / f"{rank}.pt")
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
    return found


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", SECOND_PROCESS, __file__, str(tmp_path)])
    try:
        together = observe_with_another(0, tmp_path)
        assert other.wait(timeout=300) == 0
    finally:
        other.kill()
    alone = observe_all([(torch.cat([x for x, _ in step]), torch.cat([c for _, c in step])) for step in steps()])
    assert alone["fitted"].all()
    assert_same_state(together, alone)
    assert_same_state(torch.load(tmp_path / "1.pt"), alone)
