"""What Lightning calls while it trains: the steps, and the keeping of what must survive."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, Metric

from avseg import metrics, store
from avseg._curves import Curves
from avseg._sampler import START, Position, ShuffledFrom, reseed
from avseg.config import TrainConfig
from avseg.data._base import AVSDataset, Sample, collate
from avseg.errors import AvsegError, ConfigError, did_you_mean
from avseg.interface import AVSModel, Clip, Target

RESUME = "resume.ckpt"


class Lesson(pl.LightningModule):
    """One model learning from one data set.

    Args:
        model: Learns.
        data: To learn from, and to be validated on.
        config: How.
        curves: Where the numbers go; None in processes that do not write.
        start: What a resumed run has done already.
    """

    def __init__(
        self,
        model: AVSModel,
        data: tuple[AVSDataset, AVSDataset],
        config: TrainConfig,
        curves: Curves | None,
        start: Position = START,
    ) -> None:
        super().__init__()
        self.model, self.settings, self.curves, self.start = model, config, curves, start
        self.training_data, self.validation_data = data
        self.protocols = nn.ModuleDict(metrics.protocols(model.classes))
        self.validation_loss = MeanMetric()
        self.scores: dict[str, float] = {}

    def train_dataloader(self) -> DataLoader[Sample]:
        """Batches from where the run stands."""
        c, t = self.settings, self.trainer
        sampler = ShuffledFrom(len(self.training_data), c.seed, c.batch_size, self.start, t.global_rank, t.world_size)
        return self._loader(self.training_data, sampler, c.batch_size)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Clip by clip; each process gets as many, the last ones perhaps twice."""
        clips, world = len(self.validation_data), self.trainer.world_size
        mine = [i % clips for i in range(self.trainer.global_rank, -(-clips // world) * world, world)]
        return self._loader(self.validation_data, mine, 1)

    def _loader(self, data: AVSDataset, sampler: Any, batch_size: int) -> DataLoader[Sample]:
        workers = self.settings.workers
        pin = self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(data, batch_size, sampler=sampler, num_workers=workers, collate_fn=collate, pin_memory=pin)

    def configure_optimizers(self) -> Any:
        """The optimizer over what learns, and its schedule in steps."""
        c = self.settings
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[c.optimizer]
        optimizer = kind((p for p in self.parameters() if p.requires_grad), lr=c.lr, weight_decay=c.weight_decay)
        clips = -(-len(self.training_data) // self.trainer.world_size)
        total = c.epochs * -(-clips // (c.batch_size * c.accumulate))
        schedule = LambdaLR(optimizer, learning_rate(c, min(total, c.max_steps or total)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: Sample, batch_idx: int) -> None:
        """Make all that is random a function of seed, position and process: a resumed run draws the same."""
        reseed(self.settings.seed, self.current_epoch, batch_idx, self.trainer.global_rank)

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """The sum of the model's loss terms.

        Raises:
            AvsegError: When it is not finite, with the clips that did it.
        """
        clip, target = mirror(batch.clip, batch.target) if self.settings.flip else (batch.clip, batch.target)
        prediction = self.model(clip, target)
        terms = self.model.loss(prediction, target)
        loss = torch.stack([*terms.values()]).sum()
        if not torch.isfinite(loss):
            raise AvsegError(
                f"the loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch}), clips: "
                f"{', '.join(batch.names)}. Weights before it are kept; try a lower train.lr or train.clip_grad 1"
            )
        self.log("loss", loss.detach(), prog_bar=True, logger=False)
        if self.global_step % self.settings.log_every == 0 and batch_idx % self.settings.accumulate == 0:
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            self._write("train", {"loss": loss, **terms, **prediction.scalars, "lr": rate})
        return loss

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        """Add one clip to every score."""
        if batch_idx * self.trainer.world_size + self.trainer.global_rank >= len(self.validation_data):
            return  # stands in for a clip that another process has
        prediction = self.model(batch.clip)
        self.validation_loss.update(torch.stack([*self.model.loss(prediction, batch.target).values()]).sum())
        for protocol in self.protocols.children():
            cast("Metric", protocol).update(prediction, batch.target, batch.clip.valid)

    def on_validation_epoch_end(self) -> None:
        """Compute the scores over all clips and all processes."""
        values: dict[str, Any] = {"loss": self.validation_loss.compute()}
        self.validation_loss.reset()
        for name, protocol in cast("dict[str, Metric]", self.protocols).items():
            result = protocol.compute()
            pairs = result.items() if isinstance(result, Mapping) else [("", result)]
            values |= {f"{name}/{key}".rstrip("/"): v for key, v in pairs if torch.as_tensor(v).ndim == 0}
            protocol.reset()
        self.scores = self._write("val", values)

    def _write(self, group: str, values: Mapping[str, Any]) -> dict[str, float]:
        plain = {f"{group}/{name}": _plain(value) for name, value in values.items()}
        if self.curves is not None:
            self.curves.write(self.global_step, plain)
        return plain


def _plain(value: Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else value


def learning_rate(config: TrainConfig, total: int) -> Callable[[int], float]:
    """The factor on ``config.lr`` at each optimizer step of ``total``."""

    def factor(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / (config.warmup + 1)
        if config.schedule == "constant":
            return 1.0
        done = (step - config.warmup) / max(1, total - config.warmup)
        return 0.5 + 0.5 * math.cos(math.pi * min(done, 1.0))

    return factor


def mirror(clip: Clip, target: Target) -> tuple[Clip, Target]:
    """Half of the clips, at random, left to right: pictures, masks, and the two channels of stereo sound."""
    chosen = torch.rand(len(clip.frames)) < 0.5

    def flip(x: Tensor, axis: int) -> Tensor:
        pick = chosen.to(x.device).view(-1, *[1] * (x.ndim - 1))
        return torch.where(pick, x.flip(axis), x)

    audio = flip(clip.audio, 2) if clip.audio.ndim == 5 else clip.audio
    return Clip(flip(clip.frames, -1), audio, clip.valid), Target(flip(target.masks, -1), target.labelled)


class Keeper(Checkpoint):
    """Keeps ``best/`` and ``last/`` as folders to load, and ``resume.ckpt`` to go on from.

    Args:
        folder: Of the run.
        config: Says how often, and which score is best.
        run: The whole run as plain values, to recognise it.
        card: What the folders say beside the scores.
    """

    def __init__(self, folder: Path, config: TrainConfig, run: Mapping[str, Any], card: Mapping[str, Any]) -> None:
        self.folder, self.config, self.run, self.card = folder, config, run, card
        self.best: float | None = None
        self.curve_bytes = 0

    def state_dict(self) -> dict[str, Any]:
        """The best score, for Lightning to put into the checkpoint."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best score so far."""
        self.best = state_dict["best"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save within an epoch: every so often, on SIGTERM, and when the steps are used up."""
        c, step, done = self.config, trainer.global_step, batch_idx + 1
        if done % c.accumulate or done == trainer.num_training_batches:
            return
        finished = c.max_steps is not None and step >= c.max_steps
        if finished or trainer.received_sigterm or step % c.save_every == 0:
            self._save_resume(trainer, pl_module, Position(trainer.current_epoch, done))
        trainer.should_stop = trainer.should_stop or finished

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save at the end of an epoch, after validation."""
        epoch, step = trainer.current_epoch, trainer.global_step
        if pl_module.scores:
            self._save_weights(trainer, pl_module, {"epoch": epoch, "step": step})
        if trainer.fit_loop.batch_idx + 1 == trainer.num_training_batches:
            self._save_resume(trainer, pl_module, Position(epoch + 1, 0))
            trainer.should_stop = trainer.should_stop or step >= (self.config.max_steps or math.inf)

    def _save_weights(self, trainer: pl.Trainer, lesson: Lesson, when: Mapping[str, int]) -> None:
        default = "val/avsbench/j" if lesson.model.classes == 1 else "val/avsbench_semantic/miou"
        monitor = self.config.monitor or default
        if monitor not in lesson.scores:
            raise ConfigError(f"train.monitor {monitor!r} is no score. {did_you_mean(monitor, lesson.scores)}")
        score = lesson.scores[monitor] * (1 if self.config.mode == "max" else -1)
        better = self.best is None or score > self.best
        self.best = score if better else self.best
        if trainer.is_global_zero:
            for name in ["last"] + ["best"] * better:
                store.save(lesson.model, self.folder / name, **self.card, **when, metrics=lesson.scores)
        lesson.scores = {}

    def _save_resume(self, trainer: pl.Trainer, lesson: Lesson, position: Position) -> None:
        """Everything the rest of the run depends on, in one file that is either the old or the new one."""
        self.position = position
        self.curve_bytes = lesson.curves.size() if lesson.curves else 0
        path = self.folder / RESUME
        trainer.save_checkpoint(f"{path}.tmp")
        if trainer.is_global_zero:
            os.replace(f"{path}.tmp", path)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add where the run stands, and which run it is."""
        checkpoint["avseg"] = {
            "run": json.dumps(self.run),
            "position": tuple(self.position),
            "curve_bytes": self.curve_bytes,
        }
