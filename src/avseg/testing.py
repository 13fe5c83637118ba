"""Checks that every model and every data set must pass, for the tests of avseg and of packages that add some.

A test of another package needs one line::

    def test_my_model() -> None:
        avseg.testing.check_model(MyModel, channels=32)

or, to see each check under its own name::

    @pytest.mark.parametrize("check", avseg.testing.CHECKS)
    def test_my_model(check: str) -> None:
        avseg.testing.check_model(MyModel, [check], channels=32)

    def test_my_data(tmp_path: Path) -> None:
        avseg.testing.check_dataset(MyData(MyData.Config(root=str(tmp_path)), "train"))

The checks run on the CPU with random weights, need no test framework and read no file but those of the data set. All
inputs come from a fixed seed; the state of torch's random generator is restored afterwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_origin, get_type_hints

import torch
from torch import Tensor

from avseg.data import AVSDataset, Sample, collate
from avseg.errors import ConfigError, did_you_mean
from avseg.export.static import LogitsOnly, static_form
from avseg.interface import IGNORE, AVSModel, Clip, Target, make_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Build = Callable[[int], AVSModel]
"""A function that returns a new model with random weights for K output channels."""

SMALL: Mapping[str, Any] = {
    "visual": "resnet18",
    "audio": "compact",
    "train_audio": True,
    "channels": 32,
    "groups": 2,
    "queries": 8,
    "layers": 2,
    "refine_layers": 1,
    "pixel_layers": 1,
    "heads": 4,
    "feedforward": 64,
    "points": 256,
    "components": 2,
    "mixture_min_samples": 2,
    "mixture_fit_every": 1,
    "warmup": 0,
}
"""Settings that make a model small, for those models whose ``Config`` has the field."""

_SIZES = ((1, 64, 64, 1), (2, 75, 51, 5), (7, 32, 64, 2))
"""T, H, W and K of :func:`output_size`."""
_STEPS = 80
_ACCURACY = 0.97


def check_model(model: type[AVSModel], checks: Iterable[str] | None = None, **settings: Any) -> None:
    """Run checks on a model.

    Args:
        model: The class.
        checks: Names out of :data:`CHECKS`; None runs all of them.
        **settings: Fields of the model's ``Config``. Fields left out take their value in :data:`SMALL`, or else their
            default.

    Raises:
        AssertionError: When the model fails a check.
        ConfigError: When a check does not exist or a setting is refused by the model.
    """
    config = make_config(model, {**small_settings(model), **settings})
    for name in CHECKS if checks is None else checks:
        if name not in CHECKS:
            raise ConfigError(f"unknown check {name!r}. {did_you_mean(name, CHECKS)}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            CHECKS[name](lambda classes: model(config, classes))


def small_settings(model: type[AVSModel]) -> dict[str, Any]:
    """Return the part of :data:`SMALL` that the ``Config`` of a model has fields for."""
    return {name: value for name, value in SMALL.items() if name in model.Config.__dataclass_fields__}


def example(
    frames: int = 3, size: tuple[int, int] = (64, 64), classes: int = 1, *, clips: int = 2
) -> tuple[Clip, Target]:
    """Return random frames, log-mel patches and labels; all frames are valid and labelled.

    Args:
        frames: T.
        size: H and W.
        classes: K; labels are 0 … K - 1, or 0 and 1 with one class.
        clips: B.
    """
    b, t = clips, frames
    clip = Clip(torch.randn(b, t, 3, *size), torch.randn(b, t, 1, 96, 64))
    masks = torch.randint(0, max(2, classes), (b, t, *size))
    return clip, Target(masks, torch.ones(b, t, dtype=torch.bool))


def output_size(build: Build) -> None:
    """Check that predictions have shape (B, T, K, H, W) for any T, H, W, K; optional maps do not change them."""
    for t, h, w, k in _SIZES:
        model, (clip, _) = build(k).eval(), example(t, (h, w), k, clips=1)
        with torch.no_grad():
            prediction, plain = model(clip, maps=True), model(clip)
        for logits in (prediction.logits, *prediction.aux):
            _require(logits.shape == (1, t, k, h, w), f"logits of {tuple(logits.shape)}, expected {(1, t, k, h, w)}")
        _require(torch.equal(prediction.logits, plain.logits), "maps=True changes the logits")
        _require(not plain.maps, f"maps {sorted(plain.maps)} are filled without maps=True")
        for name, values in prediction.maps.items():
            _require(values.shape[:2] == (1, t), f"map {name} is {tuple(values.shape)}, expected (1, {t}, G, h, w)")


def gradients(build: Build) -> None:
    """Check that every parameter that requires a gradient gets one that is finite and not zero within three steps."""
    for classes in (1, 4):
        model, (clip, target) = build(classes).train(), example(classes=classes)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        missing = {name for name, p in model.named_parameters() if p.requires_grad}
        for _ in range(3):  # a parameter behind a layer that starts at zero gets its gradient in the second step
            optimizer.zero_grad()
            prediction = model(clip, target)
            _total(model.loss(prediction, target)).backward()
            found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
            broken = sorted(name for name, grad in found.items() if not grad.isfinite().all())
            _require(not broken, f"K = {classes}: gradients that are not finite: {broken}")
            missing -= {name for name, grad in found.items() if grad.any()}
            if not missing:
                break
            optimizer.step()
            model.after_step(prediction, target)
        _require(not missing, f"K = {classes}: parameters without gradient: {sorted(missing)}")


def padding_values(build: Build) -> None:
    """Check that padding frames have no effect on valid frames, which equal those of the clip without padding."""
    model, (clip, _) = build(1).eval(), example()
    valid = torch.tensor([[True, True, False], [True, False, False]])
    other = example()[0]
    frames, audio = (
        torch.where(valid.view(2, 3, *[1] * (x.ndim - 2)), x, y)
        for x, y in ((clip.frames, 9 * other.frames), (clip.audio, other.audio))
    )
    with torch.no_grad():
        one, two = (model(c).logits[valid] for c in (Clip(clip.frames, clip.audio, valid), Clip(frames, audio, valid)))
        alone = model(Clip(clip.frames[1:, :1], clip.audio[1:, :1])).logits
    _require(torch.equal(one, two), "content of padding frames changes the logits of valid frames")
    _require(torch.allclose(one[2], alone[0, 0], atol=1e-4), "a padded clip differs from the same clip without padding")


def padding_gradients(build: Build) -> None:
    """Check that no gradient reaches padding frames, and padding, which is zero, makes no gradient infinite."""
    model, (clip, target) = build(1).train(), example()
    valid = torch.tensor([[True, True, True], [True, False, False]])
    frames = (clip.frames * valid[..., None, None, None]).requires_grad_()
    target = Target(target.masks, valid)
    _total(model.loss(model(Clip(frames, clip.audio, valid), target), target)).backward()
    broken = sorted(n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all())
    _require(not broken, f"padding makes gradients that are not finite: {broken}")
    _require(frames.grad is not None and bool(frames.grad[valid].any()), "no gradient reaches the valid frames")
    _require(frames.grad is None or not frames.grad[~valid].any(), "a gradient reaches the padding frames")


def clips_are_independent(build: Build) -> None:
    """Check that a batch of two clips gives the logits of each clip alone."""
    model, (clip, _) = build(1).eval(), example()
    with torch.no_grad():
        together = model(clip).logits
        for b in range(2):
            alone = model(Clip(clip.frames[b : b + 1], clip.audio[b : b + 1])).logits
            _require(torch.allclose(together[b], alone[0], atol=1e-4), "the other clips of a batch change the logits")


def unlabelled_frames(build: Build) -> None:
    """Check that labels of frames that are not labelled do not change the loss."""
    for classes in (1, 4):
        model, (clip, target) = build(classes).eval(), example(classes=classes)
        first = torch.zeros_like(target.labelled)
        first[:, 0] = True
        other = target.masks.clone()
        other[:, 1:] = 0
        with torch.no_grad():
            prediction = model(clip)
            one, two = (model.loss(prediction, Target(masks, first)) for masks in (target.masks, other))
        same = one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
        _require(same, f"K = {classes}: labels of frames that are not labelled change the loss")


def loss_is_pure(build: Build) -> None:
    """Check that ``loss`` changes no parameter and no buffer, and in evaluation mode returns the same terms again."""
    for classes in (1, 4):
        model, (clip, target) = build(classes).train(), example(2, classes=classes)
        prediction = model(clip, target)
        before = {name: value.clone() for name, value in _tensors(model)}
        model.loss(prediction, target)
        changed = sorted(name for name, value in _tensors(model) if not torch.equal(value, before[name]))
        _require(not changed, f"K = {classes}: loss changes {changed}; use after_step")
        prediction = model.eval()(clip, target)
        one, two = model.loss(prediction, target), model.loss(prediction, target)
        same = one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
        _require(same, f"K = {classes}: loss returns other terms in its second call")


def _tensors(model: AVSModel) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def target_is_optional(build: Build) -> None:
    """Check that in evaluation mode, logits are the same with and without the target."""
    model, (clip, target) = build(1).eval(), example()
    with torch.no_grad():
        _require(torch.equal(model(clip).logits, model(clip, target).logits), "the target changes the logits")


def bfloat16(build: Build) -> None:
    """Check that under bfloat16 autocast the loss and all gradients are finite."""
    model, (clip, target) = build(1).train(), example(1)
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(clip, target)
    _total(model.loss(prediction, target)).backward()
    broken = sorted(n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all())
    _require(not broken, f"gradients that are not finite under bfloat16: {broken}")


def export(build: Build) -> None:
    """Check that ``torch.export`` accepts the static form and keeps its logits.

    The static form has shapes that do not depend on values. A model whose ``Config`` has the field ``gather`` is
    exported with ``gather=False`` and must give the logits of ``gather=True``.
    """
    model, (clip, _) = build(1).eval(), example(2, clips=1)
    try:
        exported = torch.export.export(LogitsOnly(static_form(model)), (clip.frames, clip.audio)).module()
    except Exception as error:  # torch raises classes of many kinds here
        raise AssertionError(f"torch.export refuses the model: {error}") from error
    with torch.no_grad():
        same = torch.allclose(exported(clip.frames, clip.audio), model(clip).logits, atol=1e-4)
    _require(same, "the exported model has other logits")


def wrong_settings(build: Build) -> None:
    """Check that an unknown setting, and an unknown value of a ``Literal`` setting, raise a ConfigError."""
    model = build(1)
    owner, hints = type(model), get_type_hints(type(model).Config)
    given = {f.name: getattr(model.config, f.name) for f in dataclasses.fields(model.config)}
    for name, hint in {**hints, "no_such_setting": None}.items():
        if hint is None or get_origin(hint) is Literal:
            line = _refusal(owner, {**given, name: "no_such_value"})
            _require(line is not None, f"{name} = 'no_such_value' is accepted by {owner.__name__}")
            _require(name in str(line) and "\n" not in str(line), f"the error does not name {name} in one line: {line}")


def _refusal(model: type[AVSModel], settings: Mapping[str, Any]) -> str | None:
    """Return the line of the ConfigError that settings raise, or None."""
    try:
        model(make_config(model, settings), 1)
    except ConfigError as error:
        return str(error)
    return None


def overfits(build: Build) -> None:
    """Check that 80 steps on one clip give 97 % right pixels: a square in one frame, nothing in the other."""
    model, (clip, _) = build(1).train(), example(2, clips=1)
    masks = torch.zeros(1, 2, 64, 64, dtype=torch.int64)
    masks[:, 0, 16:48, 16:48] = 1
    target = Target(masks, torch.ones(1, 2, dtype=torch.bool))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    right = 0.0
    for _ in range(_STEPS):
        prediction = model(clip, target)
        right = (prediction.masks == masks.bool()).float().mean().item()
        if right > _ACCURACY:
            return
        optimizer.zero_grad()
        _total(model.loss(prediction, target)).backward()
        optimizer.step()
        model.after_step(prediction, target)
    raise AssertionError(f"after {_STEPS} steps on one clip {right:.3f} of its pixels are right")


CHECKS: Mapping[str, Callable[[Build], None]] = {
    check.__name__: check
    for check in (
        output_size,
        gradients,
        padding_values,
        padding_gradients,
        clips_are_independent,
        unlabelled_frames,
        loss_is_pure,
        target_is_optional,
        bfloat16,
        export,
        wrong_settings,
        overfits,
    )
}
"""Name → check."""


def _total(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([*terms.values()]).sum()


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def check_dataset(data: AVSDataset) -> None:
    """Check the first and the last sample of a data set.

    Args:
        data: A data set that is not empty.

    Raises:
        AssertionError: When the class names repeat, a sample differs between two reads, has another B than 1, no
            labelled frame, a value that is not finite or the name of another sample, or when a label is neither in
            ``category_names`` nor 255.
    """
    _require(len(data) > 0, "the data set is empty")
    _require(len(data.class_names) >= 2, f"class_names must begin with the background, got {data.class_names}")
    _require(len(set(data.class_names)) == len(data.class_names), f"class_names repeat: {data.class_names}")
    samples = [data[index] for index in sorted({0, len(data) - 1})]
    for index, sample in zip(sorted({0, len(data) - 1}), samples, strict=True):
        _check_sample(data, index, sample)
    names = [name for sample in samples for name in sample.names]
    _require(len(set(names)) == len(names), f"two samples have the same name: {names}")
    _require(len(collate(samples[:1] * 2).clip.frames) == 2, "collate does not make a batch of two samples")


def _check_sample(data: AVSDataset, index: int, sample: Sample) -> None:
    clip, target, labels = sample.clip, sample.target, sample.target.masks
    _require(len(clip.frames) == len(labels) == len(sample.names) == 1, f"sample {index} has another B than 1")
    _require(labels.shape[1] == clip.frames.shape[1], f"sample {index}: {labels.shape[1]} masks for {clip!r}")
    _require(bool(target.labelled.any()), f"sample {index} has no labelled frame")
    _require(bool(clip.frames.isfinite().all() and clip.audio.isfinite().all()), f"sample {index} is not finite")
    known = labels[labels != IGNORE]
    limit = len(data.category_names)
    _require(bool(((known >= 0) & (known < limit)).all()), f"sample {index} has labels outside of 0 … {limit - 1}")
    again = data[index]
    one, two = ((s.clip.frames, s.clip.audio, s.target.masks) for s in (sample, again))
    same = all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    _require(same, f"sample {index} differs between two reads")
    _require(sample.names == again.names, f"sample {index} changes its name: {sample.names}, then {again.names}")
