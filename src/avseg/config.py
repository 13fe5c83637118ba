"""The settings of a run: a YAML file, dotted flags over it, both checked against the classes they configure.

``model`` and ``data`` name a model and a data set; their other keys are the fields of that class's ``Config``, so
that neither this file nor a command line knows any setting of any model.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace  # type: ignore[attr-defined]

from avseg.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class TrainConfig:
    """How to train; defaults are the paper's wherever it speaks.

    Attributes:
        epochs: Passes over the training data.
        max_steps: Stop after so many optimizer steps, whatever the epochs; null for no limit.
        batch_size: Clips per process and step.
        accumulate: Batches whose gradients are added up before one optimizer step.
        lr: Learning rate, at its highest.
        optimizer: Adam, or Adam with decoupled weight decay.
        weight_decay: Of the optimizer.
        schedule: What the learning rate does after the warm-up: stay, or fall to zero along a cosine.
        warmup: Optimizer steps in which the learning rate rises linearly from zero.
        clip_grad: Largest norm of the gradient; null for no limit.
        flip: Mirror half of the clips, left to right.
        precision: Number format of the arithmetic; weights are always kept in 32 bits.
        accelerator: Where to compute.
        devices: How many of them, one process each; "auto" takes all there are.
        strategy: Lightning's way to divide the work between devices.
        workers: Processes that prepare clips, for each device.
        seed: Decides weights, order, mirroring and everything else that is random.
        val_every: Epochs between two validations.
        save_every: Optimizer steps between two resume points; there is always one at the end of an epoch.
        log_every: Optimizer steps between two points of a curve.
        monitor: The validation score that decides which weights are best; null for AVSBench's J, or with several
            classes its mIoU.
        mode: Whether the best score is the highest or the lowest.
        out: Folder of the run; null for runs/<name of the config file, or model and data>.
        resume: null to start; "auto" to go on where ``out`` was left, or start if it is new; or the resume.ckpt to
            go on from.
    """

    epochs: int = 15
    max_steps: int | None = None
    batch_size: int = 4
    accumulate: int = 1
    lr: float = 1e-4
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    clip_grad: float | None = None
    flip: bool = False
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: int | Literal["auto"] = 1
    strategy: str = "auto"
    workers: int = 2
    seed: int = 0
    val_every: int = 1
    save_every: int = 500
    log_every: int = 10
    monitor: str | None = None
    mode: Literal["max", "min"] = "max"
    out: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        at_least_one = ["epochs", "batch_size", "accumulate", "val_every", "save_every", "log_every"]
        for name in at_least_one + ["max_steps"] * (self.max_steps is not None):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("warmup", "workers", "seed", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name} must be 0 or more, got {getattr(self, name)}")
        if self.lr <= 0 or (self.clip_grad is not None and self.clip_grad <= 0):
            raise ConfigError(f"train.lr and train.clip_grad must be above 0, got {self.lr} and {self.clip_grad}")


@dataclass(frozen=True)
class Weights:
    """Pretrained backbones to start from.

    Attributes:
        visual: Hub id or local path for the visual backbone; null starts from random weights.
        audio: Hub id or local path for the audio backbone; null starts from random weights.
    """

    visual: str | None = None
    audio: str | None = None


@dataclass(frozen=True)
class Run:
    """Everything that decides a training run.

    Attributes:
        model: ``name`` and fields of that model's ``Config``.
        data: ``name`` and fields of that data set's ``Config``.
        weights: Pretrained backbones.
        train: The training itself.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    weights: Weights = field(default_factory=Weights)
    train: TrainConfig = field(default_factory=TrainConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as the YAML file holds them."""
        return dataclasses.asdict(self)


def read_run(argv: Sequence[str], prog: str = "avseg train") -> Run:
    """A run from the command line: ``--config FILE`` and dotted flags such as ``--model.channels 64``.

    Raises:
        ConfigError: When a file cannot be read, a key is unknown, or a value has the wrong type.
    """
    config, model, data = _choices(argv)
    settings = parse(run_parser(model, data, prog), argv)
    train = TrainConfig(**settings.train.as_dict())
    if train.out is None:
        name = Path(config).stem if config else f"{model}_{data}"
        train = dataclasses.replace(train, out=f"runs/{name}")
    return Run(settings.model.as_dict(), settings.data.as_dict(), Weights(**settings.weights.as_dict()), train)


def run_parser(model: str, data: str, prog: str) -> ArgumentParser:
    """A parser with the fields of this model's and this data set's ``Config``."""
    from avseg.data import dataset_class, list_datasets
    from avseg.models import list_models, model_class

    parser = ArgumentParser(prog=prog, description="Train a model on a data set.", exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file; flags override what it says.")
    parser.add_argument("--model.name", default=model, help=f"One of: {', '.join(list_models())}.")
    parser.add_class_arguments(model_class(model).Config, "model")
    parser.add_argument("--data.name", default=data, help=f"One of: {', '.join(list_datasets())}.")
    parser.add_class_arguments(cast("Any", dataset_class(data)).Config, "data")
    parser.add_class_arguments(Weights, "weights")
    parser.add_class_arguments(TrainConfig, "train")
    return parser


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """``parser.parse_args``, with every mistake as one line.

    Raises:
        ConfigError: When a key is unknown (names the closest) or a value has the wrong type.
    """
    known = set(parser.get_defaults().keys())
    for where, key in _keys(argv):
        if key not in known | {"help", "config", "print_config"}:
            raise ConfigError(f"unknown setting {key!r} in {where}. {did_you_mean(key, known)}")
    try:
        return parser.parse_args(list(argv))
    except ArgumentError as error:
        raise ConfigError(" ".join(str(error).replace("Parser key ", "").split())) from None


def _choices(argv: Sequence[str]) -> tuple[str | None, str, str]:
    """The config file, the model and the data set, which decide what the other flags may be."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--config", "--model.name", "--data.name"):
        first.add_argument(flag)
    chosen = vars(first.parse_known_args(list(argv))[0])
    file = read_yaml(chosen["config"]) if chosen["config"] else {}

    def name(part: str, default: str) -> str:
        section = file.get(part) or {}
        return str(chosen[f"{part}.name"] or (isinstance(section, Mapping) and section.get("name")) or default)

    return chosen["config"], name("model", "pcmanet"), name("data", "synthetic")


def _keys(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Where each setting of a command line and its config file stands, and its dotted name."""
    for i, word in enumerate(argv):
        key, _, value = word.partition("=")
        if key == "--config":
            path = value or "".join(argv[i + 1 : i + 2])
            yield from ((path, dotted) for dotted in _dotted(read_yaml(path)))
        elif word.startswith("--"):
            yield "the command line", key[2:]


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and not prefix:
            yield from _dotted(value, f"{key}.")
        else:
            yield f"{prefix}{key}"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping a YAML file holds.

    Raises:
        ConfigError: When there is no such file, or it is not a YAML mapping.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read config {str(path)!r}: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"config {str(path)!r} must hold 'model:', 'data:', 'train:' sections, got {tree!r}")
    return tree
