"""The class prior: its table of classes, its equations computed position by position, and its trained parameters."""

import math

import pytest
import torch
from torch import nn

from avseg.nn.class_prior import ClassPrior, PriorFusion, object_classes
from avseg.nn.efficientnet import IMAGENET_CLASSES
from avseg.nn.mobile_audio import AUDIOSET_CLASSES, audioset_classes


@pytest.fixture
def prior() -> ClassPrior:
    """A prior in evaluation mode whose learned scalars differ from their start values."""
    found = ClassPrior().eval()
    with torch.no_grad():
        for name, value in (("audio_scale", 0.8), ("audio_shift", 1.5), ("image_scale", 0.7), ("image_other", 2.5)):
            getattr(found, name).fill_(value)
    return found


def test_object_classes_have_audio_of_audioset_and_numbers_of_imagenet() -> None:
    classes = object_classes()
    names = audioset_classes()
    assert len({c.name for c in classes}) == len(classes) > 20
    for c in classes:
        assert c.audio, c.name
        assert all(0 <= k < AUDIOSET_CLASSES == len(names) for k in c.audio), c.name
        assert all(0 <= k < IMAGENET_CLASSES == 1000 for k in c.image), c.name
        assert len(set(c.audio)) == len(c.audio), c.name
        assert len(set(c.image)) == len(c.image), c.name


def test_object_classes_have_known_members() -> None:
    found = {c.name: c for c in object_classes()}
    assert found["person"].image == ()
    assert found["dog"].image == tuple(range(151, 276))
    assert found["cat"].image == (281, 282, 283, 284, 285, 287)
    assert "Meow" in {audioset_classes()[k] for k in found["cat"].audio}


@torch.no_grad()
def test_maps_equal_the_equations_at_every_position(prior: ClassPrior) -> None:
    classes, deepest, scores = object_classes(), torch.randn(2, 320, 2, 3), 3 * torch.randn(2, AUDIOSET_CLASSES)
    found, objects = prior(deepest, scores)
    a, b, t, other = 0.8, 1.5, 0.7, 2.5
    features = prior.head.features(deepest)
    number_of = {number: k for k, number in enumerate(prior.head.classes)}
    unseen = [c.name for c in classes if not c.image]
    for n, y, x in ((0, 0, 0), (0, 1, 2), (1, 1, 0)):
        position = features[n, :, y, x]
        image = prior.head.classifier.weight @ position + prior.head.classifier.bias
        learned = prior.learned.weight[:, :, 0, 0] @ position + prior.learned.bias
        exps = [math.exp(t * float(v)) for v in [*image, *learned]]
        total = sum(exps) + math.exp(other)
        sounding, seen = [], []
        for c in classes:
            rows = [number_of[k] for k in c.image] or [len(image) + unseen.index(c.name)]
            seen.append(sum(exps[row] for row in rows) / total)
            best = max(float(scores[n, k]) for k in c.audio)
            sounding.append(1 / (1 + math.exp(-(a * best + b))))
        both = [s * v for s, v in zip(sounding, seen, strict=True)]
        expected = torch.tensor([max(both), min(sum(both), 1.0), max(seen), max(sounding)])
        torch.testing.assert_close(found[n, :, y, x], expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(objects[n, :, y, x], torch.tensor(both), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_large_logits_stay_finite(prior: ClassPrior) -> None:
    found, _ = prior(1e4 * torch.randn(1, 320, 2, 2), 1e4 * torch.randn(1, AUDIOSET_CLASSES))
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert (found <= 1 + 1e-6).all()


def test_image_classifier_is_frozen_and_the_rest_is_trained(prior: ClassPrior) -> None:
    prior.train()
    norms = [m for m in prior.head.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [m.running_mean.clone() for m in norms]
    prior(torch.randn(2, 320, 2, 2), torch.randn(2, AUDIOSET_CLASSES))[0].sum().backward()
    assert norms
    assert not any(m.training for m in norms)
    assert all(torch.equal(m.running_mean, mean) for m, mean in zip(norms, before, strict=True))
    assert not [n for n, p in prior.head.named_parameters() if p.requires_grad or p.grad is not None]
    trained = {n: p.grad for n, p in prior.named_parameters() if not n.startswith("head.")}
    assert trained.keys() == {
        *("audio_scale", "audio_shift", "image_scale", "image_other", "learned.weight", "learned.bias")
    }
    assert all(grad is not None and grad.any() for grad in trained.values())


def test_fusion_adds_a_linear_map_of_the_resized_prior_to_every_stage() -> None:
    fusion = PriorFusion(8, (1, 3)).eval()
    maps = {1: torch.randn(2, 8, 8, 12), 3: torch.randn(2, 8, 2, 3)}
    with torch.no_grad():
        out, prior, _ = fusion(maps, torch.randn(2, 320, 2, 3), torch.randn(2, AUDIOSET_CLASSES))
        assert prior.shape == (2, 4, 2, 3)
        assert {i: x.shape for i, x in out.items()} == {i: x.shape for i, x in maps.items()}
        expected = torch.einsum("nmhw,cm->nchw", prior, fusion.mix["3"].weight[:, :, 0, 0])
        torch.testing.assert_close(
            out[3] - maps[3], expected + fusion.mix["3"].bias[:, None, None], rtol=1e-4, atol=1e-5
        )
        large = nn.functional.interpolate(prior, (8, 12), mode="bilinear")
        torch.testing.assert_close(out[1], maps[1] + fusion.mix["1"](large), rtol=1e-4, atol=1e-5)
