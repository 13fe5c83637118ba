"""Tests of class-conditional prompting: formulas against plain loops; silent and empty inputs have zero loss."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from avseg.interface import IGNORE
from avseg.mel import OFFSET
from avseg.models._cpm_prompting import contrast, mix, prompts_for, ratio_loss, ratio_mask

SHAPE = (96, 64)
KNOWN = torch.tensor([True, True, True, True, False])


def frames_of(*classes: tuple[int, ...]) -> Tensor:
    """Return labels (n, 4, 6) of frames with the given classes, one per column."""
    return torch.stack([torch.tensor(kinds)[torch.arange(6) * len(kinds) // 6].expand(4, 6) for kinds in classes])


def patches(*loudness: float, ears: int = 1) -> Tensor:
    """Return log-mel of frames with random magnitudes in 0..2 times their loudness."""
    level = torch.tensor(loudness).view(-1, 1, 1, 1)
    return (2 * torch.rand(len(loudness), ears, *SHAPE) * level + OFFSET).log()


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, inputs)
    assert all(torch.isfinite(gradient).all() for gradient in found)
    return list(found)


def test_each_frame_is_prompted_with_all_its_classes() -> None:
    labels = frames_of((0, 1), (2, 3, IGNORE), (0, 1, 2), (1, 2, 3))
    prompts = prompts_for(labels, KNOWN)
    assert prompts.frames.tolist() == [0, 1, 2, 3]
    assert prompts.classes.tolist() == [[1, 1, 1], [2, 3, 2], [1, 2, 1], [1, 2, 3]]
    assert prompts.real.tolist() == [[True, False, False], [True, True, False], [True, True, False], [True] * 3]


def test_frames_with_unavailable_classes_are_not_prompted() -> None:
    """Test frames with background only, without labels, and with an unavailable class."""
    labels = frames_of((0,), (0, 1, 4), (IGNORE,), (0, IGNORE), (4,), (2,))
    prompts = prompts_for(labels, KNOWN)
    assert prompts.frames.tolist() == [5]
    assert prompts.classes.tolist() == [[2]]
    # An unavailable background does not matter.
    assert prompts_for(labels, torch.tensor([False, True, True, True, True])).frames.tolist() == [1, 4, 5]


@pytest.mark.parametrize("labels", [frames_of((0,), (4,)), frames_of((IGNORE,)), frames_of((1,))[:0]])
def test_no_frame_is_prompted(labels: Tensor) -> None:
    prompts = prompts_for(labels, KNOWN)
    assert [part.shape for part in prompts] == [(0,), (0, 0), (0, 0)]


@pytest.mark.parametrize("ears", [1, 2])
def test_mix_adds_magnitudes_of_a_distractor(ears: int) -> None:
    labels = frames_of((0, 1), (0, 1, 2), (3,), (0, 2))
    audio = patches(1.0, 2.0, 3.0, 4.0, ears=ears)
    magnitude = audio.exp() - OFFSET
    clips, strangers = torch.tensor([0, 0, 1, 1]), {0: {2, 3}, 1: {2}, 2: {0, 1}, 3: {0}}
    met: dict[int, set[int]] = {frame: set() for frame in strangers}
    for _ in range(40):
        chosen = torch.tensor([0, 1, 2, 3])[torch.randperm(4)[:3]]
        own, mixed = mix(audio, labels, clips, chosen)
        assert own.shape == mixed.shape == (3, ears, *SHAPE)
        for i, frame in enumerate(chosen.tolist()):
            torch.testing.assert_close(own[i], magnitude[frame], rtol=0, atol=1e-5)
            other = mixed[i] - OFFSET - magnitude[frame]
            met[frame] |= {j for j in range(4) if torch.allclose(other, magnitude[j], atol=1e-4)}
    assert met == strangers


def test_silent_or_empty_frames_are_no_distractors() -> None:
    """Check that frames without labels are no distractors, since their audio may be of any class."""
    labels = frames_of((1,), (2,), (0,), (IGNORE,))
    audio = patches(1.0, 0.0, 1.0, 1.0)
    magnitude = audio.exp() - OFFSET
    for _ in range(20):
        own, mixed = mix(audio, labels, torch.arange(4), torch.tensor([0]))
        other = mixed - OFFSET - own
        assert not any(torch.allclose(other[0], m, atol=1e-3) for m in magnitude)


@pytest.mark.parametrize("ears", [1, 2])
def test_mix_without_distractor_adds_noise_of_equal_loudness(ears: int) -> None:
    labels = frames_of((1,), (1, 2), (1,))
    audio = patches(1.0, 5.0, 0.0, ears=ears)
    own, mixed = mix(audio, labels, torch.arange(3), torch.arange(3))
    noise = mixed - OFFSET - own
    assert (noise > -1e-5).all()
    torch.testing.assert_close(noise.mean((1, 2, 3)), own.mean((1, 2, 3)), rtol=1e-3, atol=1e-5)
    assert not noise[2].abs().gt(1e-5).any()
    for one in noise[:2]:
        assert (one.std() / one.mean()).item() > 0.2
        low, high = one[:, :, :32].mean(), one[:, :, 32:].mean()
        assert high > low > 0  # wider bands of white noise hold more of it
    assert not torch.allclose(noise[0] * 5, noise[1], rtol=0.1)
    again = mix(audio, labels, torch.arange(3), torch.arange(3))[1]
    assert not torch.equal(again, mixed)


def test_mix_of_no_frame_is_empty() -> None:
    own, mixed = mix(patches(1.0, 1.0), frames_of((0,), (0,)), torch.arange(2), torch.zeros(0, dtype=torch.int64))
    assert own.shape == mixed.shape == (0, 1, *SHAPE)


def test_ratio_mask_is_the_share_of_own_magnitude() -> None:
    own, mixed = torch.rand(2, 2, *SHAPE), 0.5 + 2 * torch.rand(2, 2, *SHAPE)
    ratio = ratio_mask(own, mixed)
    for b, t, f in ((0, 0, 0), (1, 95, 63), (0, 17, 40)):
        share = (own[b, 0, t, f] + own[b, 1, t, f]) / (mixed[b, 0, t, f] + mixed[b, 1, t, f])
        assert ratio[b, t, f].item() == pytest.approx(min(share.item(), 1.0))
    assert ratio.shape == (2, *SHAPE)
    assert ratio.max() <= 1


@pytest.mark.parametrize("mean", [True, False])
def test_ratio_loss_equals_the_formula(mean: bool) -> None:
    """Use a silent frame 2 and repeated last prompts in frames 0 and 3."""
    masks = torch.randn(4, 3, 6, 4)
    real = torch.tensor([[True, True, False], [True] * 3, [True] * 3, [True, False, False]])
    audible = torch.tensor([True, True, False, True])
    ratio = torch.rand(4, *SHAPE)
    expected = 0.0
    for b in (0, 1, 3):
        total = torch.zeros(1, 1, 6, 4)
        for k in range(3):
            if real[b, k]:
                total += masks[b, k]
        guess = 1 / (1 + (-interpolate(total, SHAPE, mode="bilinear")[0, 0]).exp())
        squares = ((guess - ratio[b]) ** 2).sum().item()
        expected += squares / (96 * 64) / 3 if mean else math.sqrt(squares) / 3
    assert ratio_loss(masks, real, ratio, audible, mean=mean).item() == pytest.approx(expected, rel=1e-5)
    masks.requires_grad_()
    (gradient,) = gradients(ratio_loss(masks, real, ratio, audible, mean=mean), masks)
    assert torch.equal(gradient.flatten(2).any(2), real & audible[:, None])


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("logit", [0.0, 300.0, -300.0])
def test_ratio_loss_of_silence_is_zero(mean: bool, logit: float) -> None:
    """Include an exact prediction, where the square root has no finite slope."""
    masks = torch.full((2, 1, 6, 4), logit, requires_grad=True)
    silent = torch.zeros(2, *SHAPE)
    loss = ratio_loss(masks, torch.ones(2, 1).bool(), silent, torch.zeros(2).bool(), mean=mean)
    assert loss.item() == 0
    assert not gradients(loss, masks)[0].any()
    exact = ratio_loss(masks, torch.ones(2, 1).bool(), silent + (logit > 0), torch.ones(2).bool(), mean=mean)
    assert (exact.item() == 0) == (logit != 0)
    gradients(exact, masks)


def unit(x: Tensor) -> Tensor:
    return x / x.norm()


def slow_contrast(anchors: Tensor, classes: Tensor, seen: Tensor, labels: Tensor, temperature: float) -> float:
    """Compute InfoNCE in loops over anchors and the pixels of their classes."""
    pixels = seen.movedim(1, -1).flatten(0, 2).double()
    of = labels.flatten().tolist()
    per_anchor = []
    for anchor, kind in zip(anchors.double(), classes.tolist(), strict=True):
        near = [math.exp(float(unit(anchor) @ unit(p)) / temperature) for p in pixels]
        against = sum(e for e, c in zip(near, of, strict=True) if c not in (kind, IGNORE))
        terms = [-math.log(e / (e + against)) for e, c in zip(near, of, strict=True) if c == kind]
        if terms:
            per_anchor.append(sum(terms) / len(terms))
    return sum(per_anchor) / len(per_anchor)


def example() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return anchors (the last of a class without pixels), their classes, maps, and labels of the size of the maps."""
    labels = torch.randint(0, 4, (2, 3, 5))
    labels[0, 0] = IGNORE
    return torch.randn(5, 6), torch.tensor([1, 2, 2, 3, 7]), 3 * torch.randn(2, 6, 3, 5), labels


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_contrast_is_info_nce(temperature: float) -> None:
    anchors, classes, seen, labels = example()
    loss = contrast(anchors, classes, seen, labels, temperature=temperature, pixels=100)
    assert loss.item() == pytest.approx(slow_contrast(anchors, classes, seen, labels, temperature), rel=1e-4)


def test_contrast_trains_anchors_and_labelled_pixels() -> None:
    anchors, classes, seen, labels = example()
    anchors.requires_grad_()
    seen.requires_grad_()
    loss = contrast(anchors, classes, seen, labels, temperature=0.1, pixels=100)
    to_anchors, to_seen = gradients(loss, anchors, seen)
    assert to_anchors.any(1).tolist() == [True, True, True, True, False]
    assert torch.equal(to_seen.any(1), labels != IGNORE)


def test_contrast_resizes_labels_to_the_map() -> None:
    anchors, classes, seen, labels = example()
    large = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    alone, within = (contrast(anchors, classes, seen, at, temperature=0.1, pixels=100) for at in (labels, large))
    torch.testing.assert_close(alone, within)


def test_contrast_samples_at_most_pixels_per_class() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2]).view(1, 1, 8).expand(3, -1, -1)
    seen, anchors = torch.randn(3, 6, 1, 8, requires_grad=True), torch.randn(2, 6)
    looked = torch.zeros(3, 8, dtype=torch.bool)
    for _ in range(30):
        loss = contrast(anchors, torch.tensor([1, 2]), seen, labels, temperature=0.5, pixels=4)
        (gradient,) = gradients(loss, seen)
        touched = gradient.any(1)[:, 0]
        assert [int((touched & (labels[:, 0] == c)).sum()) for c in range(3)] == [4, 4, 3]
        looked |= touched
    assert looked.all()  # not always the same


@pytest.mark.parametrize("what", ["no anchor", "no pixel labelled", "no frame", "no pixel of its class", "no negative"])
def test_contrast_without_pairs_is_zero(what: str) -> None:
    anchors, classes = torch.randn(2, 6), torch.tensor([1, 1])
    seen, labels = torch.randn(2, 6, 3, 5), torch.randint(0, 2, (2, 3, 5))
    if what == "no anchor":
        anchors, classes = anchors[:0], classes[:0]
    elif what == "no pixel labelled":
        labels = torch.full_like(labels, IGNORE)
    elif what == "no frame":
        seen, labels = seen[:0], labels[:0]
    else:
        labels = torch.full_like(labels, 2 if what == "no pixel of its class" else 1)
    anchors.requires_grad_()
    seen.requires_grad_()
    loss = contrast(anchors, classes, seen, labels, temperature=0.1, pixels=100)
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in gradients(loss, anchors, seen))
