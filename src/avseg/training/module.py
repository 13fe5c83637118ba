"""Lightning module that trains a model on a data set."""

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, Metric

from avseg.config import TrainConfig
from avseg.costs import part_of
from avseg.data import AVSDataset, Sample, collate
from avseg.errors import AvsegError, ConfigError
from avseg.interface import AVSModel, Clip, Prediction, Target
from avseg.metrics import protocols
from avseg.training.sampler import START, Position, ResumableSampler, reseed

BACKBONE = "backbone"
"""The part of a model whose learning rate is scaled by ``train.backbone_lr``."""
POLY = 0.9
"""Power of the schedule "poly" (DeepLab, arXiv 1606.00915)."""


class AVSLightningModule(pl.LightningModule):
    """Training and validation steps of one model.

    Args:
        model: Model to train.
        training: Training set.
        validation: Validation set.
        config: Training settings.
        start: Position of a resumed run.

    Attributes:
        scores: Scores of the latest validation; empty after they were saved.
        fresh: Names of tensors with random weights in a model that starts from a checkpoint.
    """

    def __init__(
        self,
        model: AVSModel,
        training: AVSDataset,
        validation: AVSDataset,
        config: TrainConfig,
        start: Position = START,
    ) -> None:
        super().__init__()
        self.model, self.config, self.start = model, config, start
        self.training_set, self.validation_set = training, validation
        self.protocols = nn.ModuleDict(protocols(model.classes))
        self.validation_loss = MeanMetric()
        self.scores: dict[str, float] = {}
        self.fresh: list[str] = []
        self._since_step: list[tuple[Prediction, Target]] = []

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of training batches from the position of the run."""
        c, t = self.config, self.trainer
        sampler = ResumableSampler(
            len(self.training_set), c.seed, c.batch_size, self.start, t.global_rank, t.world_size
        )
        return self._loader(self.training_set, sampler, c.batch_size)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of validation clips, equally many in each process; the last may be repeated."""
        clips, world = len(self.validation_set), self.trainer.world_size
        mine = [i % clips for i in range(self.trainer.global_rank, -(-clips // world) * world, world)]
        return self._loader(self.validation_set, mine, 1)

    def _loader(self, data: AVSDataset, sampler: Any, batch_size: int) -> DataLoader[Sample]:
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        workers = self.config.workers
        return DataLoader(data, batch_size, sampler=sampler, num_workers=workers, collate_fn=collate, pin_memory=on_gpu)

    def configure_optimizers(self) -> Any:
        """Return the optimizer of trainable parameters, and its schedule in optimizer steps."""
        c = self.config
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[c.optimizer]
        optimizer = kind(self._groups(), lr=c.lr, weight_decay=c.weight_decay)
        clips = -(-len(self.training_set) // self.trainer.world_size)
        total = c.epochs * -(-clips // (c.batch_size * c.accumulate))
        schedule = LambdaLR(optimizer, rate_factor(c, min(total, c.max_steps or total)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups: all trainable parameters, or the others and the backbone with its own rate."""
        ratio = self.config.backbone_lr
        trainable = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if ratio == 1:
            return [{"params": [p for _, p in trainable]}]
        backbone = [p for name, p in trainable if part_of(self.model, name) == BACKBONE]
        if not backbone:
            raise ConfigError(f"{self.model.name} has no trainable backbone: leave out train.backbone_lr {ratio}")
        others = [p for name, p in trainable if part_of(self.model, name) != BACKBONE]
        return [{"params": others}, {"params": backbone, "lr": ratio * self.config.lr}]

    def on_train_start(self) -> None:
        """Print the sizes of model and data, and the parameters with random initial weights."""
        count = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.trainer.print(
            f"{self.model.name}: {count / 1e6:.2f} M trainable parameters, {len(self.training_set)} clips, "
            f"{self.trainer.num_training_batches} batches per epoch, on {self.device}"
        )
        if self.fresh:
            self.trainer.print(f"not in weights.model, initialised randomly: {', '.join(self.fresh)}")

    def on_train_batch_start(self, batch: Sample, batch_idx: int) -> None:
        """Seed all random generators from seed, position and process, so that a resumed run is equal."""
        reseed(self.config.seed, self.current_epoch, batch_idx, self.trainer.global_rank)

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            AvsegError: When the loss is not finite.
        """
        clip, target = mirror(batch.clip, batch.target) if self.config.flip else (batch.clip, batch.target)
        prediction = self._predict(clip, target)
        terms = self.model.loss(prediction, target)
        loss = self._sum(terms, batch)
        if type(self.model).after_step is not AVSModel.after_step:  # otherwise keep no prediction in memory
            self._since_step.append((prediction, target))
        self.log("loss", loss.detach(), prog_bar=True, logger=False)
        if self.global_step % self.config.log_every == 0 and batch_idx % self.config.accumulate == 0:
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            self._write("train", {"loss": loss, **terms, **prediction.scalars, "lr": rate})
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the optimizer, free the gradients, and call :meth:`AVSModel.after_step` for each batch of the step.

        The gradients would otherwise be kept until the end of the next forward pass, when most memory is in use.
        ``on_train_batch_end`` of the module would be too late, because it runs after the callback that saves the run.
        """
        super().optimizer_step(*args, **kwargs)
        self.zero_grad()
        with torch.no_grad():
            for prediction, target in self._since_step:
                self.model.after_step(prediction, target)
        self._since_step.clear()

    def _predict(self, clip: Clip, target: Target) -> Prediction:
        try:
            return cast("Prediction", self.model(clip, target))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            b, t, _, h, w = clip.frames.shape
            raise ConfigError(
                f"{b} clips of {t} frames of {h}x{w} leave one value per channel in the deepest stage, too few for "
                "batch norm: raise train.batch_size or data.size"
            ) from error

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        """Add one clip to every score."""
        if batch_idx * self.trainer.world_size + self.trainer.global_rank >= len(self.validation_set):
            return  # a repeated clip
        prediction = self.model(batch.clip).at(batch.target.masks.shape[-2:])
        self.validation_loss.update(self._sum(self.model.loss(prediction, batch.target), batch))
        for protocol in self.protocols.children():
            cast("Metric", protocol).update(prediction, batch.target, batch.clip.valid)

    def on_validation_epoch_end(self) -> None:
        """Compute the scores over all clips of all processes."""
        values: dict[str, Any] = {"loss": self.validation_loss.compute()}
        self.validation_loss.reset()
        for name, protocol in cast("dict[str, Metric]", self.protocols).items():
            values |= {f"{name}/{key}": v for key, v in protocol.compute().items() if v.ndim == 0}
            protocol.reset()
        self.scores = self._write("val", values)

    def _sum(self, terms: Mapping[str, Tensor], batch: Sample) -> Tensor:
        loss = torch.stack([*terms.values()]).sum()
        if not torch.isfinite(loss):
            raise AvsegError(
                f"the loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch + 1}) for clips "
                f"{', '.join(batch.names)}: earlier checkpoints are kept; try a lower train.lr, or train.clip_grad 1"
            )
        return loss

    def _write(self, group: str, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        plain = {f"{group}/{k}": float(v.detach()) if isinstance(v, Tensor) else v for k, v in values.items()}
        for logger in self.loggers:
            logger.log_metrics(plain, self.global_step)
        return plain


def score_names(classes: int) -> list[str]:
    """Return the names of the scores of a validation."""
    one = torch.ones(1, 1, dtype=torch.bool)
    prediction, target = Prediction(torch.zeros(1, 1, classes, 8, 8)), Target(torch.zeros(1, 1, 8, 8).long(), one)
    names = ["val/loss"]
    for name, protocol in protocols(classes).items():
        protocol.update(prediction, target, one)
        names += [f"val/{name}/{key}" for key, value in protocol.compute().items() if value.ndim == 0]
    return names


def rate_factor(config: TrainConfig, total: int) -> Callable[[int], float]:
    """Return the factor of all learning rates as a function of the optimizer step, for ``total`` steps."""

    def factor(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / (config.warmup + 1)
        if config.schedule == "constant":
            return 1.0
        done = min((step - config.warmup) / max(1, total - config.warmup), 1.0)
        return (1 - done) ** POLY if config.schedule == "poly" else 0.5 + 0.5 * math.cos(math.pi * done)

    return factor


def mirror(clip: Clip, target: Target) -> tuple[Clip, Target]:
    """Flip a random half of the clips horizontally: frames, masks, and the channels of stereo audio."""
    chosen = torch.rand(len(clip.frames)) < 0.5

    def flip(x: Tensor, axis: int) -> Tensor:
        return torch.where(chosen.to(x.device).view(-1, *[1] * (x.ndim - 1)), x.flip(axis), x)

    audio = flip(clip.audio, 2) if clip.audio.ndim == 5 else clip.audio
    return Clip(flip(clip.frames, -1), audio, clip.valid), Target(flip(target.masks, -1), target.labelled)
