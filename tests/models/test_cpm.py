"""Tests of CPM: equations against plain loops, gradients of each term, inference cost, and unusual inputs."""

import copy
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

import avseg
from avseg.checkpoints.store import load
from avseg.cli import main
from avseg.errors import ConfigError
from avseg.interface import IGNORE, TRAINING, Clip, Prediction, Target
from avseg.mel import OFFSET
from avseg.model_folder import save
from avseg.models.cpm import CPM
from avseg.nn.matching import match

SMALL: dict[str, Any] = {
    "visual": "pvt_v2_b0",
    "audio": "compact",
    "train_audio": True,
    "channels": 32,
    "heads": 4,
    "feedforward": 64,
    "queries": 6,
    "layers": 2,
    "pixel_layers": 1,
    "points": 256,
    "contrast_pixels": 32,
    "components": 2,
    "mixture_min_samples": 2,
    "mixture_fit_every": 1,
    "mixture_memory": 32,
    "warmup": 0,
    "mixture_momentum": 0.5,
}
OFF: dict[str, Any] = {"acp": False, "vcp": False, "pcl": False}
SILENCE = torch.full((1, 1, 1, 96, 64), OFFSET).log()


def build(classes: int = 4, **config: Any) -> CPM:
    torch.manual_seed(5)
    return avseg.build("cpm", classes, **{**SMALL, **config})  # type: ignore[return-value]


def clip(b: int = 2, t: int = 3, size: int = 64) -> Clip:
    make = torch.Generator().manual_seed(0)
    return Clip(torch.randn(b, t, 3, size, size, generator=make), torch.randn(b, t, 1, 96, 64, generator=make))


def target(like: Clip) -> Target:
    """Return masks with a square of class b % 3 + 1 in all frames of clip b, and one of class 3 in the last frame."""
    b, t, _, h, w = like.frames.shape
    masks = torch.zeros(b, t, h, w, dtype=torch.int64)
    for i in range(b):
        masks[i, :, 8 : 8 + h // 2, 8 : 8 + w // 2] = i % 3 + 1
    masks[:, -1, -16:, -16:] = 3
    return Target(masks, torch.ones(b, t, dtype=torch.bool))


def step(model: CPM, inputs: Clip, truth: Target) -> tuple[Prediction, dict[str, Tensor]]:
    """Run one training step without an optimizer."""
    prediction = model.train()(inputs, truth)
    terms = model.loss(prediction, truth)
    with torch.no_grad():
        model.after_step(prediction, truth)
    return prediction, terms


@cache
def fitted(classes: int, config: tuple[tuple[str, Any], ...]) -> tuple[CPM, Tensor]:
    """Return a model whose mixtures are fitted to the classes of :func:`target`, and the random state after it."""
    model = build(classes, **dict(config))
    for _ in range(3):
        step(model, clip(), target(clip()))
    return model, torch.get_rng_state()


def taught(classes: int = 4, **config: Any) -> CPM:
    """Return a copy of the model of :func:`fitted`, and set the random state."""
    model, state = fitted(classes, tuple(sorted(config.items())))
    torch.set_rng_state(state)
    return copy.deepcopy(model)


def reached(model: CPM, term: Tensor) -> set[str]:
    """Return the submodules that receive a gradient from a term."""
    model.zero_grad()
    term.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    return {n.partition(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("classifier", ["softmax", "bayes"])
@pytest.mark.parametrize(("classes", "categories"), [(4, None), (1, 3), (1, None)])
def test_semantic_inference_sums_query_masks(classifier: str, classes: int, categories: int | None) -> None:
    model = taught(classes, classifier=classifier, categories=categories) if classes > 1 or categories else build(1)
    model.eval()
    inputs = clip(1, 2)
    with torch.no_grad():
        prediction = model(inputs)
    state = prediction.state
    if model.config.classifier == "softmax":
        names = state.classes[-1].softmax(-1)
    else:
        assert model.mixtures is not None
        q = state.outputs.embeddings
        q = (q - q.mean(-1, keepdim=True)) / (q.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        likelihood = model.mixtures.log_likelihood(q).exp().double()
        names = (likelihood / likelihood.sum(-1, keepdim=True)).float()
    for frame in range(2):
        scores = torch.zeros(model.labels, 16, 16)
        for n in range(model.config.queries):
            for c in range(model.labels):
                scores[c] += names[frame, n, c] * state.outputs.masks[-1, frame, n].sigmoid()
        scores = interpolate(scores[None], (64, 64), mode="bilinear")[0].clamp(min=1e-6)
        share = scores / scores.sum(0)
        expected = share if classes > 1 else share[1:].sum(0, keepdim=True)
        assert torch.allclose(prediction.probabilities[0, frame], expected, atol=1e-4)


def test_frames_are_predicted_independently() -> None:
    model, inputs = build().eval(), clip(1, 3)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        straight = model(inputs).logits
        mixed = model(Clip(inputs.frames[:, order], inputs.audio[:, order])).logits
    assert torch.allclose(straight[:, order], mixed, atol=1e-5)


def test_audio_map_affects_prediction_beyond_the_embedding() -> None:
    """Compare two audio maps with equal embeddings: those of CompactAudio do not depend on the order in time."""
    model, inputs = build(classifier="softmax").eval(), clip(1, 1)
    features = model.audio.features(inputs.audio)
    turned = features._replace(maps=features.maps.flip(3))
    assert torch.allclose(model.audio.net.embed(turned.maps[0]), features.embeddings[0], atol=1e-5)  # type: ignore[union-attr]
    with torch.no_grad():
        one = model(inputs).logits
        model.audio.features = lambda _: turned  # type: ignore[method-assign]
        assert (model(inputs).logits - one).abs().max() > 1e-5


def test_silence_changes_the_prediction() -> None:
    model, inputs = build(classifier="softmax").eval(), clip(1, 2)
    with torch.no_grad():
        one, other = model(inputs).logits, model(Clip(inputs.frames, SILENCE.expand_as(inputs.audio))).logits
    assert (one - other).abs().max() > 1e-3


def test_loss_is_the_sum_of_weighted_terms() -> None:
    model = taught(prompt_weight=2.0)
    inputs, truth = clip(), target(clip())
    torch.manual_seed(1)
    _, terms = step(model, inputs, truth)
    assert set(terms) == {"classes", "masks", "dice", "generative", "acp", "vcp", "pcl"}
    assert all(terms[name] > 0 for name in terms)
    again = taught(prompt_weight=1.0)
    again.load_state_dict(taught(prompt_weight=2.0).state_dict())
    torch.manual_seed(1)
    _, half = step(again, inputs, truth)
    for name in ("acp", "vcp", "pcl"):
        assert torch.allclose(terms[name], 2 * half[name], rtol=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["acp", "vcp", "pcl"])
def test_each_loss_term_can_be_disabled(name: str) -> None:
    model = taught(**{name: False})
    _, terms = step(model, clip(), target(clip()))
    assert name not in terms
    assert {"acp", "vcp", "pcl"} - {name} < set(terms)


def test_without_prompts_no_prompt_parameters_exist() -> None:
    model = taught(**OFF, classifier="softmax")
    _, terms = step(model, clip(), target(clip()))
    assert set(terms) == {"classes", "masks", "dice"}
    assert model.mixtures is None
    assert not [n for n, _ in model.named_parameters() if n.startswith(model.parts[TRAINING])]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("acp", {"audio", "sound", "audio_attention", "prompt"}),
        ("vcp", {"visual", "audio", "sound", "audio_attention", "transformer", "head", "prompt"}),
        (
            "pcl",
            {"visual", "audio", "sound", "audio_attention", "transformer", "prompt", "project_sound", "project_pixels"},
        ),
        ("classes", {"visual", "audio", "sound", "audio_query_bias", "audio_attention", "transformer", "head"}),
        ("generative", {"visual", "audio", "sound", "audio_query_bias", "audio_attention", "transformer"}),
    ],
)
def test_each_term_trains_its_modules_only(name: str, expected: set[str]) -> None:
    model = taught()
    _, terms = step(model, clip(), target(clip()))
    assert reached(model, terms[name]) == expected


def test_vcp_prompts_every_class_without_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute L_VCP as the set loss with each prompt assigned to its class, summed over layers."""
    from avseg.nn.matching import Matches, set_loss

    model, inputs, truth = taught(), clip(), target(clip())
    prediction = model.train()(inputs, truth)
    p = prediction.state.prompted
    wanted = [sorted({*f.unique().tolist()} - {0}) for f in truth.masks.flatten(0, 1)]
    prompted = [c[r].tolist() for c, r in zip(p.prompts.classes, p.prompts.real, strict=True)]
    assert prompted == [wanted[i] for i in p.prompts.frames]
    frame, query = p.prompts.real.nonzero(as_tuple=True)
    known = Matches(frame, query, p.prompts.classes[frame, query])
    torch.manual_seed(2)
    found = model._visual(p)
    torch.manual_seed(2)
    weights = avseg.nn.matching.SetLoss(2.0, 5.0, 5.0, 0.0, model.config.points)
    slow = torch.zeros(())
    for layer in range(model.config.layers + 1):
        parts = set_loss(
            model.head(p.outputs.queries[layer]), p.outputs.masks[layer], p.labels, known, weights, random=True
        )
        slow = slow + parts["classes"] + parts["masks"] + parts["dice"]
    assert torch.allclose(found, slow, rtol=1e-5)


@pytest.mark.parametrize("name", ["acp", "pcl"])
def test_silent_frames_have_no_acp_loss(name: str) -> None:
    model, inputs = taught(), clip()
    silent = Clip(inputs.frames, SILENCE.expand_as(inputs.audio))
    _, terms = step(model, silent, target(inputs))
    assert terms[name] == 0
    assert terms["vcp"] > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert reached(model, terms[name]) == set()


@pytest.mark.parametrize("kind", ["background", "ignored", "unlabelled"])
def test_empty_clips_have_zero_prompt_losses_and_finite_gradients(kind: str) -> None:
    model, inputs = taught(), clip()
    masks = torch.full_like(target(inputs).masks, IGNORE if kind == "ignored" else 0)
    truth = Target(masks, torch.full((2, 3), kind != "unlabelled"))
    prediction, terms = step(model, inputs, truth)
    assert all(terms[name] == 0 for name in ("acp", "vcp", "pcl"))
    assert prediction.scalars["prompted"] == 0
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_prompts_start_after_warmup_for_fitted_classes() -> None:
    model, inputs, truth = build(warmup=2), clip(), target(clip())
    counts = [step(model, inputs, truth)[0].scalars["prompted"].item() for _ in range(4)]
    assert counts == [0, 0, 6, 6]
    assert model.mixtures is not None
    model.mixtures.fitted[3] = False  # the class of all last frames
    assert model(inputs, truth).scalars["prompted"] == 4
    assert model.eval()(inputs, truth).scalars == {}


def test_after_step_stores_embeddings_of_matched_queries() -> None:
    model, inputs, truth = build(**OFF), clip(), target(clip())
    prediction = model.train()(inputs, truth)
    torch.manual_seed(9)
    model.loss(prediction, truth)
    model.after_step(prediction, truth)
    torch.manual_seed(9)
    state, labels = prediction.state, truth.masks.flatten(0, 1)
    for layer in range(model.config.layers + 1):
        classes, masks = state.classes[layer], state.outputs.masks[layer]
        pairs = match(classes, masks, labels, model.config.set_loss, random=True)
        from avseg.nn.matching import set_loss

        set_loss(classes, masks, labels, pairs, model.config.set_loss, random=True)  # draws as many random points
    q = state.outputs.embeddings[pairs.frames, pairs.queries]
    q = torch.nn.functional.layer_norm(q, q.shape[-1:])
    assert model.mixtures is not None
    for c in range(4):
        of_class = q[pairs.classes == c]
        assert model.mixtures.filled[c] == len(of_class) > 0
        assert torch.allclose(model.mixtures.memory[c, : len(of_class)], of_class, atol=1e-6)
    assert model.mixtures.filled[4] == len(q)  # as many of class "no object"


def test_evaluation_changes_no_mixture_and_no_loss() -> None:
    model, inputs, truth = taught().eval(), clip(), target(clip())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    one, two = (model.loss(model(inputs, truth), truth) for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert set(one) == {"classes", "masks", "dice", "generative"}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("warmup", [0, 100])
def test_every_parameter_has_a_gradient_in_every_step(warmup: int) -> None:
    """Distributed training needs a gradient for every parameter in every step."""
    model = taught(warmup=warmup)
    for truth in (target(clip()), Target(torch.zeros_like(target(clip()).masks), target(clip()).labelled)):
        model.zero_grad()
        sum(step(model, clip(), truth)[1].values()).backward()  # type: ignore[union-attr]
        assert not [n for n, p in model.named_parameters() if p.grad is None]


def test_prompting_costs_nothing_at_inference() -> None:
    prompted, plain = build(), build(**OFF)

    def operations(model: CPM) -> int:
        with FlopCounterMode(display=False) as meter, torch.no_grad():
            model.eval()(clip(1, 2))
        return meter.get_total_flops()

    def used(model: CPM) -> dict[str, torch.Size]:
        """Return the parameters used at inference."""
        with torch.enable_grad():
            logits = model.eval()(clip(1, 2)).logits
            model.zero_grad()
            logits.sum().backward()
        return {n: p.shape for n, p in model.named_parameters() if p.grad is not None}

    assert operations(prompted) == operations(plain) > 0
    assert used(prompted) == used(plain)
    idle = {n for n, _ in prompted.named_parameters()} - {n for n, _ in plain.named_parameters()}
    assert idle
    assert all(n.startswith(CPM.parts[TRAINING]) for n in idle)


def banded(truth: Target) -> Tensor:
    """Return log-mel (B, T, 1, 96, 64) in which every class has twenty bands."""
    magnitude = torch.zeros(*truth.masks.shape[:2], 1, 96, 64)
    for c in (1, 2, 3):
        there = (truth.masks == c).flatten(2).any(2)
        magnitude[..., 20 * c - 20 : 20 * c] = there[..., None, None, None].float()
    return (magnitude + OFFSET).log()


@pytest.mark.slow
@pytest.mark.parametrize("source", ["mixture", "embedding"])
def test_prompt_losses_fall_in_training(source: str) -> None:
    model, truth = build(prompt_source=source, prompt_weight=1.0, visual="resnet18"), target(clip())
    inputs = Clip(clip().frames, banded(truth))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    found: list[dict[str, float]] = []
    for _ in range(60):
        _, terms = step(model, inputs, truth)
        optimizer.zero_grad()
        sum(terms.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
        found.append({k: v.item() for k, v in terms.items()})
    for name, share in (("acp", 0.85), ("vcp", 0.7), ("pcl", 0.95)):
        early, late = (sum(f[name] for f in some) for some in (found[3:13], found[-10:]))
        assert late < share * early, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    ["one frame", "more classes than queries", "class absent", "bfloat16", "one clip", "embeddings", "stereo"],
)
def test_unusual_inputs_keep_loss_and_gradients_finite(case: str) -> None:
    classes, config, inputs = 4, {}, clip()
    truth = target(inputs)
    if case == "one frame":
        inputs, truth = clip(2, 1), target(clip(2, 1))
    elif case == "more classes than queries":
        classes, config = 9, {"queries": 2}
        masks = truth.masks.clone()
        for c in range(1, 9):
            masks[..., 7 * c : 7 * c + 7, :] = c
        truth = Target(masks, truth.labelled)
    elif case == "class absent":
        truth = Target(torch.where(truth.masks == 2, 0, truth.masks), truth.labelled)
    elif case == "one clip":
        inputs, truth = clip(1), target(clip(1))
    elif case == "embeddings":
        config = {"audio": "none", "acp": False, "pcl": False}
        inputs = Clip(inputs.frames, torch.randn(2, 3, 128))
    elif case == "stereo":
        config, inputs = {"stereo": True}, Clip(inputs.frames, torch.randn(2, 3, 2, 96, 64))
    model = build(classes, **config)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=case == "bfloat16"):
            prediction, terms = step(model, inputs, truth)
        model.zero_grad()
        sum(terms.values()).backward()  # type: ignore[union-attr]
        assert prediction.logits.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert prediction.scalars["prompted"] > 0 or case == "more classes than queries"  # the rarest are not fitted yet


def test_maps_are_query_mask_probabilities() -> None:
    model, inputs = build().eval(), clip(1, 2)
    prediction = model(inputs, maps=True)
    assert prediction.maps["queries"].shape == (1, 2, 6, 16, 16)
    assert torch.allclose(prediction.maps["queries"][0], prediction.state.outputs.masks[-1].sigmoid())
    assert model(inputs).maps == {}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"channels": 48}, "channels must be a multiple of 32 and of heads, got 48 and 4 heads"),
        ({"audio": "none"}, "acp and pcl need an audio encoder"),
        ({"classifier": "bayess"}, "classifier = 'bayess' does not exist. Did you mean 'bayes'?"),
        ({"mixture_min_samples": 1}, "components <= mixture_min_samples <= mixture_memory must hold, got 2, 1 and 32"),
        ({"temperature": 0.0}, "temperature and mixture_var_floor must be above 0"),
        ({"queries": 0}, "queries must be 1 or more, got 0"),
        ({"categories": 7}, "categories must be the classes without the background, 3, got 7"),
    ],
)
def test_invalid_settings_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(**config)
    assert message in str(error.value)


def test_labels_beyond_the_categories_are_refused() -> None:
    model, truth = build(1, categories=2), target(clip())
    with pytest.raises(ConfigError, match=r"got label 3, this model was built for 2 categories"):
        model.loss(model(clip()), truth)


def test_embeddings_are_refused_by_a_model_with_audio_encoder() -> None:
    with pytest.raises(ConfigError, match="this model uses the feature maps of its audio encoder: give log-mel"):
        build()(Clip(clip().frames, torch.randn(2, 3, 128)))


def test_too_small_frame_is_refused() -> None:
    with pytest.raises(ConfigError, match="one frame of this size"):
        build().eval()(clip(1, 1, 32))


def test_mixtures_are_saved_and_loaded(tmp_path: Path) -> None:
    model = taught()
    save(model, tmp_path / "m")
    again: CPM = load(tmp_path / "m")  # type: ignore[assignment]
    assert model.mixtures is not None
    assert model.mixtures.fitted.any()
    for one, other in zip(model.buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other)
    results = []
    for m in (model, again):
        torch.manual_seed(3)
        results.append(step(m, clip(), target(clip()))[1])
    assert all(torch.equal(results[0][k], results[1][k]) for k in results[0])


TRAIN = [
    *("train", "--model.name", "cpm", "--model.visual", "resnet18", "--model.audio", "compact"),
    *("--model.train_audio", "true", "--model.channels", "32", "--model.heads", "4", "--model.feedforward", "64"),
    *("--model.queries", "6", "--model.layers", "1", "--model.pixel_layers", "1", "--model.points", "64"),
    *(
        "--model.warmup",
        "2",
        "--model.mixture_min_samples",
        "3",
        "--model.mixture_fit_every",
        "1",
        "--model.mixture_memory",
        "16",
    ),
    *("--data.variant", "ms3", "--data.categories", "true", "--data.size", "64", "--data.frames", "2"),
    *("--data.train", "6", "--data.val", "2", "--train.epochs", "2", "--train.batch_size", "2"),
    *("--train.accelerator", "cpu", "--train.workers", "0", "--train.log_every", "1"),
]


@pytest.mark.slow
def test_resumed_run_has_equal_mixtures(tmp_path: Path) -> None:
    assert main([*TRAIN, "--train.out", str(tmp_path / "whole")]) == 0
    halves = [*TRAIN, "--train.out", str(tmp_path / "halves"), "--train.resume", "auto"]
    assert main([*halves, "--train.max_steps", "4"]) == 0
    assert main(halves) == 0
    files = [(tmp_path / name / "last" / "model.safetensors").read_bytes() for name in ("whole", "halves")]
    assert files[0] == files[1]
    model: CPM = load(tmp_path / "whole" / "last")  # type: ignore[assignment]
    assert model.labels > 2  # from the data
    assert model.steps == 6
    assert model.mixtures is not None
    assert model.mixtures.filled.sum() > 0


@pytest.mark.slow
def test_two_processes_have_equal_mixtures(tmp_path: Path) -> None:
    """Check that saved weights include gradients and mixtures of both processes."""
    argv = [*TRAIN, "--train.devices", "2", "--train.epochs", "1", "--train.out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "avseg", *argv], check=True, timeout=300, env=environment)
    model: CPM = load(tmp_path / "last")  # type: ignore[assignment]
    assert model.steps == 2  # six clips, two at a time in each process, the last step filled up
    assert model.mixtures is not None
    assert model.mixtures.calls == 2
    # Each frame has a background: three clips of two frames in each process.
    assert model.mixtures.filled[0] == 12
