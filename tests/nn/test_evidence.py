"""Tests of evidence against loops, torch distributions and a worked example."""

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import digamma, gammaln
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from avseg.interface import IGNORE
from avseg.nn.evidence import Activation, DataTerm, concentration, dirichlet_kl, down_weighted, evidential_loss, vacuity

TERMS = pytest.mark.parametrize("data", get_args(DataTerm))


def some_alpha(n: int = 2, classes: int = 3, size: tuple[int, int] = (4, 5), most: float = 20.0) -> Tensor:
    return 1 + most * torch.rand(n, classes, *size) ** 3


def some_labels(n: int = 2, classes: int = 3, size: tuple[int, int] = (4, 5)) -> Tensor:
    """Return random labels, a fifth of them ignored."""
    labels = torch.randint(classes, (n, *size))
    return labels.masked_fill(torch.rand(labels.shape) < 0.2, IGNORE)


def pixel(*alpha: float) -> Tensor:
    return torch.tensor(alpha).view(1, -1, 1, 1)


def label(of: int) -> Tensor:
    return torch.full((1, 1, 1), of)


def slow_kl(alpha: list[float]) -> float:
    """Compute the KL divergence of one pixel with scipy."""
    strength = sum(alpha)
    total = gammaln(strength) - gammaln(len(alpha))
    for a in alpha:
        total += -gammaln(a) + (a - 1) * (digamma(a) - digamma(strength))
    return float(total)


def slow_loss(alpha: Tensor, labels: Tensor, divergence: float, data: DataTerm) -> float:
    """Compute the expected result pixel by pixel."""
    terms, weigh = [], digamma if data == "cross_entropy" else math.log
    for i, y, x in torch.nonzero(labels != IGNORE).tolist():
        own, pixels = int(labels[i, y, x]), alpha[i, :, y, x].tolist()
        misleading = [1.0 if c == own else a for c, a in enumerate(pixels)]
        terms.append(float(weigh(sum(pixels)) - weigh(pixels[own])) + divergence * slow_kl(misleading))
    return sum(terms) / len(terms)


def test_loss_equals_a_worked_example() -> None:
    alpha = pixel(3.0, 1.0)
    assert vacuity(alpha).tolist() == [[[[0.5]]]]
    assert dirichlet_kl(alpha).item() == pytest.approx(0.4319, abs=5e-5)
    # ψ(4) - ψ(3) = 1/3, ψ(4) - ψ(1) = 1 + 1/2 + 1/3
    terms: dict[DataTerm, tuple[float, float]] = {
        "likelihood": (math.log(4) - math.log(3), 1.3863),
        "cross_entropy": (1 / 3, 11 / 6),
    }
    for data, values in terms.items():
        for own, kl in ((0, 0.0), (1, 0.4319)):
            assert evidential_loss(alpha, label(own), 0.0, data).item() == pytest.approx(values[own], abs=5e-5)
            assert evidential_loss(alpha, label(own), 1.0, data).item() == pytest.approx(values[own] + kl, abs=1e-4)


def softplus_of(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(("activation", "slow"), [("exp", math.exp), ("softplus", softplus_of)])
def test_concentration_is_evidence_plus_one_in_float32(activation: Activation, slow: Callable[[float], float]) -> None:
    values = [-200.0, -1.0, 0.0, 2.0, 9.5]
    logits = torch.tensor(values)
    torch.testing.assert_close(concentration(logits, activation), torch.tensor([1 + slow(x) for x in values]))
    assert concentration(logits.bfloat16(), activation).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(concentration(logits, activation), concentration(logits.clone(), activation))
        assert concentration(logits.bfloat16(), activation).dtype == torch.float32


def test_evidence_and_gradient_are_finite() -> None:
    logits = torch.tensor([9.999, 10.001, 50.0, 1000.0], requires_grad=True)
    alpha = concentration(logits)
    assert torch.isfinite(alpha).all()
    assert (alpha.diff() > 0).all()
    (gradient,) = torch.autograd.grad(alpha.sum(), logits)
    torch.testing.assert_close(gradient, torch.full((4,), math.exp(10)), rtol=2e-3, atol=0)
    torch.testing.assert_close(alpha[2], torch.tensor(1 + 41 * math.exp(10)))


def test_vacuity_is_classes_over_strength() -> None:
    alpha = some_alpha()
    found = vacuity(alpha)
    assert found.shape == (2, 1, 4, 5)
    for i, y, x in torch.nonzero(torch.ones(2, 4, 5)).tolist():
        assert found[i, 0, y, x].item() == pytest.approx(3 / sum(alpha[i, :, y, x].tolist()), rel=1e-6)
    assert (vacuity(torch.ones(1, 7, 2, 2)) == 1).all()
    assert 0 < vacuity(torch.full((1, 2, 1, 1), 1e6)).item() < 2e-6


@pytest.mark.parametrize("classes", [2, 3, 23, 71])
def test_kl_equals_torch_distributions_and_loops(classes: int) -> None:
    alpha = some_alpha(2, classes, (3, 4))
    found = dirichlet_kl(alpha)
    theirs = kl_divergence(Dirichlet(alpha.double().movedim(1, -1)), Dirichlet(torch.ones(classes).double()))
    torch.testing.assert_close(found.double(), theirs, rtol=1e-4, atol=1e-4)
    loops = [[[slow_kl(alpha[i, :, y, x].tolist()) for x in range(4)] for y in range(3)] for i in range(2)]
    torch.testing.assert_close(found.double(), torch.tensor(loops).double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 23, 71])
def test_kl_of_uniform_is_zero(classes: int) -> None:
    alpha = torch.ones(1, classes, 2, 2, requires_grad=True)
    divergence = dirichlet_kl(alpha)
    assert (divergence == 0).all()
    divergence.sum().backward()
    assert alpha.grad is not None
    assert alpha.grad.abs().max() < 1e-6
    assert (dirichlet_kl(some_alpha(2, classes)) > 0).all()


@TERMS
@pytest.mark.parametrize("divergence", [0.0, 0.3, 1.0])
def test_loss_is_the_mean_over_scored_pixels(divergence: float, data: DataTerm) -> None:
    alpha, labels = some_alpha(), some_labels()
    assert (labels == IGNORE).any()
    expected = pytest.approx(slow_loss(alpha, labels, divergence, data), rel=1e-5)
    assert evidential_loss(alpha, labels, divergence, data).item() == expected
    assert evidential_loss(alpha, labels, torch.tensor(divergence), data).item() == expected


def test_cross_entropy_is_the_expectation() -> None:
    """Compare with eq. (4) by its definition: the mean of -ln p_y over samples of the Dirichlet distribution."""
    alpha = [4.0, 1.5, 2.5]
    drawn = Dirichlet(torch.tensor(alpha).double()).sample((200_000,))
    for own in range(3):
        expected = pytest.approx(-drawn[:, own].log().mean().item(), abs=0.02)
        assert evidential_loss(pixel(*alpha), label(own), 0.0, "cross_entropy").item() == expected


def test_likelihood_is_constant_for_equally_likely_classes() -> None:
    """Check that the optimum for two labels, once each, is U = 1 for the likelihood only."""
    labels = torch.tensor([[[0]], [[1]]])
    strengths = torch.tensor([1.0, 1.5, 3.0, 9.0])

    def costs(data: DataTerm) -> list[float]:
        return [evidential_loss(pixel(a, a).expand(2, -1, -1, -1), labels, 0.1, data).item() for a in strengths]

    assert costs("likelihood").index(min(costs("likelihood"))) == 0
    assert costs("cross_entropy").index(min(costs("cross_entropy"))) > 1


@TERMS
def test_loss_falls_with_evidence_for_the_label_only(data: DataTerm) -> None:
    evidence = [0.0, 0.1, 1.0, 5.0, 50.0, 500.0]
    for divergence in (0.0, 1.0):
        right = [evidential_loss(pixel(1, 1 + e, 3), label(1), divergence, data).item() for e in evidence]
        wrong = [evidential_loss(pixel(1 + e, 3, 1), label(1), divergence, data).item() for e in evidence]
        assert right == sorted(right, reverse=True)
        assert wrong == sorted(wrong)
        assert len(set(right)) == len(set(wrong)) == len(evidence)
    # The KL term does not depend on evidence for the label.
    both = [
        evidential_loss(pixel(a, 4), label(0), 1.0, data) - evidential_loss(pixel(a, 4), label(0), 0.0, data)
        for a in (1, 9)
    ]
    assert both[0].item() == pytest.approx(both[1].item(), rel=1e-5)


def test_ignored_pixels_have_no_loss_and_no_gradient() -> None:
    alpha, labels = some_alpha().requires_grad_(), some_labels()
    changed = torch.where((labels == IGNORE)[:, None], torch.inf, alpha.detach()).requires_grad_()
    losses = [evidential_loss(x, labels, 0.5) for x in (alpha, changed)]
    assert losses[0].item() == losses[1].item()
    for x, loss in zip((alpha, changed), losses, strict=True):
        (gradient,) = torch.autograd.grad(loss, x)
        ignored = (labels == IGNORE)[:, None].expand_as(gradient)
        assert (gradient[ignored] == 0).all()
        assert (gradient[~ignored] != 0).any()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("count", [0, 2])
def test_loss_without_labels_is_zero(count: int) -> None:
    alpha = some_alpha(count).requires_grad_()
    loss = evidential_loss(alpha, torch.full((count, 4, 5), IGNORE), 1.0)
    assert loss.item() == 0
    loss.backward()
    assert alpha.grad is not None
    assert (alpha.grad == 0).all()


@TERMS
def test_loss_has_the_gradient_of_its_values(data: DataTerm) -> None:
    alpha, labels = some_alpha(most=6.0).double().requires_grad_(), some_labels()
    assert torch.autograd.gradcheck(lambda a: evidential_loss(a, labels, 0.7, data), alpha)


@TERMS
def test_evidence_is_trained_from_logits(data: DataTerm) -> None:
    """Check that a pixel with alternating labels stays uncertain and one with a constant label becomes certain."""
    logits = torch.zeros(1, 3, 1, 2, requires_grad=True)
    labels = torch.tensor([[[0, 2]], [[1, 2]]])
    for _ in range(200):
        loss = evidential_loss(concentration(logits).expand(2, -1, -1, -1), labels, 1.0, data)
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 5 * gradient).detach().requires_grad_()
    doubtful, certain = vacuity(concentration(logits))[0, 0, 0].tolist()
    assert certain < 0.2 < 0.6 < doubtful


@pytest.mark.parametrize(
    ("data", "divergence", "doubts"),
    [
        ("cross_entropy", 0.1, {5: 0.26, 8: 0.20, 9: 0.14}),
        ("cross_entropy", 1.0, {5: 0.75, 8: 0.53, 9: 0.32}),
        ("likelihood", 0.1, {5: 1.00, 8: 0.43, 9: 0.22}),
        ("likelihood", 1.0, {5: 1.00, 8: 0.62, 9: 0.36}),
    ],
)
def test_optimal_evidence_of_a_noisy_pixel(data: DataTerm, divergence: float, doubts: dict[int, float]) -> None:
    """Compare U at the minimum of the loss with known values."""
    for right, doubt in doubts.items():
        labels = (torch.arange(10) >= right).long()[:, None, None]

        def cost(logits: NDArray[np.float64], labels: Tensor = labels) -> float:
            alpha = 1 + torch.from_numpy(np.exp(logits)).view(1, 2, 1, 1).expand(10, -1, -1, -1)
            return evidential_loss(alpha, labels, divergence, data).item()

        tried = [minimize(cost, start, method="Nelder-Mead") for start in ((0, 0), (2, 0), (-2, -2))]
        best = min(tried, key=lambda found: found.fun)
        assert vacuity(1 + torch.tensor(np.exp(best.x)).view(1, 2, 1, 1)).item() == pytest.approx(doubt, abs=0.015)


@TERMS
def test_extreme_evidence_has_a_finite_loss_and_gradient(data: DataTerm) -> None:
    logits = torch.tensor([-100.0, -30.0, 0.0, 30.0, 1000.0])
    logits = torch.stack([logits, logits.flip(0)])[None, :, None].requires_grad_()
    for own in (0, 1):
        loss = evidential_loss(concentration(logits), torch.full((1, 1, 5), own), 1.0, data)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def probabilities(logits: Tensor) -> Tensor:
    """Return probabilities (n, max(K, 2), H, W), background first, of logits (n, K, H, W)."""
    if logits.shape[1] > 1:
        return logits.double().softmax(1)
    return torch.cat([(-logits.double()).sigmoid(), logits.double().sigmoid()], 1)


def slow_weighted(logits: Tensor, uncertainty: Tensor) -> Tensor:
    """Compute the expected result pixel by pixel."""
    known = probabilities(logits)
    out = torch.empty_like(known)
    for i, y, x in torch.nonzero(torch.ones_like(uncertainty[:, 0])).tolist():
        p, u = known[i, :, y, x].tolist(), float(uncertainty[i, 0, y, x])
        out[i, :, y, x] = torch.tensor([p[0] + u * (1 - p[0]), *(q * (1 - u) for q in p[1:])], dtype=torch.float64)
    return out


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_down_weighting_moves_uncertain_share_to_background(channels: int) -> None:
    logits, uncertainty = 4 * torch.randn(2, channels, 4, 5), torch.rand(2, 1, 4, 5)
    found = down_weighted(logits, uncertainty)
    assert found.shape == logits.shape
    torch.testing.assert_close(probabilities(found), slow_weighted(logits, uncertainty), rtol=1e-4, atol=1e-6)
    if channels > 1:  # logarithms of a distribution, not merely proportional to one
        torch.testing.assert_close(found.exp().sum(1), torch.ones(2, 4, 5))


def test_one_channel_is_two_classes() -> None:
    logits, uncertainty = 4 * torch.randn(2, 1, 4, 5), torch.rand(2, 1, 4, 5)
    two = down_weighted(torch.cat([torch.zeros_like(logits), logits], 1), uncertainty)
    torch.testing.assert_close(down_weighted(logits, uncertainty)[:, 0], two[:, 1] - two[:, 0])


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_down_weighting_at_zero_and_full_uncertainty(channels: int) -> None:
    logits = 4 * torch.randn(2, channels, 4, 5)
    for certain in (0.0, 1e-30, 1e-9):
        same = down_weighted(logits, torch.full((2, 1, 4, 5), certain))
        torch.testing.assert_close(probabilities(same), probabilities(logits), rtol=0, atol=1e-6)
    nothing = probabilities(down_weighted(logits, torch.ones(2, 1, 4, 5)))
    assert (nothing[:, 0] > 1 - 1e-6).all()
    assert (nothing[:, 1:] < 1e-6).all()


def test_high_uncertainty_changes_the_label() -> None:
    """Check that a foreground of .8 is kept while .8 (1 - U) > .2 + .8 U, that is up to U = .375."""
    doubt = torch.tensor([0.37, 0.38]).view(1, 1, 1, 2)
    one = torch.full((1, 1, 1, 2), math.log(0.8 / 0.2))
    assert (down_weighted(one, doubt)[0, 0, 0] > 0).tolist() == [True, False]
    several = torch.tensor([0.2, 0.8, 1e-6]).log().view(1, 3, 1, 1).expand(-1, -1, -1, 2)
    assert down_weighted(several, doubt).argmax(1)[0, 0].tolist() == [1, 0]


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_extremes_are_finite_and_so_are_their_gradients(channels: int) -> None:
    ends = torch.tensor([-50.0, -20.0, 0.0, 20.0, 50.0, 1000.0])
    doubts = torch.tensor([0.0, 1e-38, 1e-12, 1e-4, 0.5, 1 - 1e-7, 1.0])
    logits = torch.stack([ends.roll(c) for c in range(channels)])[None, :, :, None].expand(-1, -1, -1, 7)
    logits = logits.clone().requires_grad_()
    uncertainty = doubts.expand(1, 1, 6, 7).clone().requires_grad_()
    found = down_weighted(logits, uncertainty)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(
        probabilities(found.detach()), slow_weighted(logits.detach(), uncertainty.detach()), rtol=0, atol=1e-6
    )
    gradients = torch.autograd.grad(found.square().sum(), (logits, uncertainty))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("channels", [1, 3])
def test_down_weighting_has_the_gradient_of_the_formula(channels: int) -> None:
    logits = (2 * torch.randn(2, channels, 3, 3)).requires_grad_()
    uncertainty = (0.05 + 0.9 * torch.rand(2, 1, 3, 3)).requires_grad_()
    pull = torch.randn(2, channels, 3, 3)
    found = torch.autograd.grad((pull * down_weighted(logits, uncertainty)).sum(), (logits, uncertainty))
    known, u = probabilities(logits), uncertainty.double()
    background = known[:, :1] + u * (1 - known[:, :1])
    log = torch.cat([background, known[:, 1:] * (1 - u)], 1).log()
    slow = (pull * (log[:, 1:] - log[:, :1] if channels == 1 else log)).sum()
    for ours, theirs in zip(found, torch.autograd.grad(slow, (logits, uncertainty)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_half_precision_is_computed_in_float32(channels: int) -> None:
    logits, evidence = 4 * torch.randn(2, channels, 4, 5).bfloat16(), torch.randn(2, 3, 4, 5).bfloat16()
    labels = some_labels()

    def results(logits: Tensor, evidence: Tensor) -> tuple[Tensor, ...]:
        alpha = concentration(evidence)
        return down_weighted(logits, vacuity(alpha)), dirichlet_kl(alpha), evidential_loss(alpha, labels, 0.5)

    expected = results(logits.float(), evidence.float())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = results(logits, evidence)
    for found, wanted in zip(mixed, expected, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)
    doubt = torch.ones(2, 1, 4, 5)
    assert torch.equal(down_weighted(logits, doubt.bfloat16()), down_weighted(logits, doubt))
