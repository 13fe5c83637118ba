"""Checkpoints of a run: ``resume.ckpt`` to resume from, ``best/`` and ``last/`` to load."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError

from avseg.checkpoints import store
from avseg.checkpoints.state import read_failure
from avseg.config import Run
from avseg.documents import check_fields, is_count, is_list_of, is_text
from avseg.errors import CheckpointError, ConfigError, did_you_mean
from avseg.files import replacing
from avseg.metrics import headline
from avseg.training.curves import CurveLogger
from avseg.training.module import AVSLightningModule, score_names
from avseg.training.sampler import START, Position

RESUME = "resume.ckpt"
MAY_CHANGE = {"epochs", "max_steps", "workers", "save_every", "keep_every", "log_every", "loggers", "out", "resume"}
"""Training settings in which a resumed run may differ from the original run."""


@dataclass(frozen=True)
class Resume:
    """State to resume from.

    Attributes:
        path: The checkpoint; None for a new run.
        position: Epoch and batch.
        step: Number of optimizer steps done.
        curve_bytes: Bytes of ``metrics.csv`` at the time of the checkpoint.
    """

    path: Path | None = None
    position: Position = START
    step: int = 0
    curve_bytes: int = 0


def find_resume(run: Run, folder: Path) -> Resume:
    """Find the checkpoint that ``train.resume`` selects.

    Raises:
        ConfigError: When a new run would overwrite an old one, or the checkpoint is of another run.
        CheckpointError: When the checkpoint is missing or cannot be read.
    """
    wish, own = run.train.resume, folder / RESUME
    if wish is None and own.exists():
        raise ConfigError(f"{folder} contains a run: resume it with --train.resume auto, or set another --train.out")
    if wish is None or (wish == "auto" and not own.exists()):
        return Resume()
    path = own if wish == "auto" else Path(wish)
    state = _read(path)
    ours = state["avseg"]
    _check_same(ours["run"], json.loads(json.dumps(run.as_dict())), path)
    return Resume(path, Position(*ours["position"]), state["global_step"], ours["curve_bytes"])


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"cannot resume from {path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        # Torch, zipfile and pickle raise different errors for broken or unsafe files.
        raise CheckpointError(
            f"cannot resume from {path}, it is broken or was not written by avseg train: {read_failure(error)}"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("avseg"), dict):
        raise CheckpointError(f"cannot resume from {path}: it was not written by avseg train")
    check_fields(state, _FIELDS, path, CheckpointError)
    ours = state["avseg"]
    check_fields(ours, _OWN_FIELDS, path, CheckpointError)
    try:
        ours["run"] = json.loads(ours["run"])
    except (ValueError, RecursionError):
        raise CheckpointError(f"cannot resume from {path}: its settings are not JSON") from None
    sections = dict.fromkeys(("model", "data", "train"), (_is_settings, "settings by name"))
    check_fields(ours["run"], sections, path, CheckpointError)
    return state


def _is_index(value: object) -> bool:
    return value == 0 or is_count(value)


def _is_settings(value: object) -> bool:
    return isinstance(value, dict) and all(map(is_text, value))


def _is_state(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


_FIELDS = {
    "global_step": (_is_index, "a number of steps"),
    "epoch": (_is_index, "a number of epochs"),
    "state_dict": (lambda value: _is_state(value) and all(map(torch.is_tensor, value.values())), "tensors by name"),
    "optimizer_states": (lambda value: is_list_of(value, _is_state) and bool(value), "a list of states"),
    "lr_schedulers": (lambda value: is_list_of(value, _is_state), "a list of states"),
    "loops": (_is_state, "the states of the loops"),
    "callbacks": (_is_state, "the states of the callbacks"),
    "pytorch-lightning_version": (is_text, "the version of Lightning"),
}
"""Fields of a checkpoint of Lightning."""
_OWN_FIELDS = {
    "run": (is_text, "settings as JSON"),
    "position": (
        lambda value: isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_index, value)),
        "an epoch and a batch",
    ),
    "curve_bytes": (_is_index, "a number of bytes"),
}
"""Fields that avseg adds."""


def _check_same(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    # A decaying learning rate depends on the length of the run in every step.
    free = MAY_CHANGE if new["train"]["schedule"] == "constant" else MAY_CHANGE - {"epochs", "max_steps"}
    for section in ("model", "data", "train"):
        for key in old[section].keys() & new[section].keys():
            was, now = old[section][key], new[section][key]
            if was != now and not (section == "train" and key in free):
                raise ConfigError(f"cannot resume from {path}: it has {section}.{key} = {was!r}, this run {now!r}")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoint files atomically; they contain tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, see :func:`avseg.files.replacing`."""
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)


class RunCheckpoint(Checkpoint):
    """Writes the checkpoints of a run during training.

    Args:
        folder: Folder of the run.
        run: Settings of the run.
        classes: K of the model.
        card: Fields of the cards of ``best/`` and ``last/`` in addition to the scores.

    Raises:
        ConfigError: When ``train.monitor`` is not the name of a score.
    """

    def __init__(self, folder: Path, run: Run, classes: int, card: Mapping[str, Any]) -> None:
        self.folder, self.run, self.config, self.card = folder, run, run.train, card
        self.monitor, names = run.train.monitor or f"val/{headline(classes).name}", score_names(classes)
        if self.monitor not in names:
            raise ConfigError(f"train.monitor {self.monitor!r} is no score. {did_you_mean(self.monitor, names)}")
        self.best = -math.inf
        self._position, self._curve_bytes = START, 0

    @property
    def state_key(self) -> str:
        """The key of the state in ``resume.ckpt``; fixed, so that checkpoints stay readable if the class is renamed."""
        return "Keeper"

    def state_dict(self) -> dict[str, Any]:
        """Return the best score, which Lightning stores in the checkpoint."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score."""
        self.best = state_dict["best"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save within an epoch: every ``train.save_every`` steps, on SIGTERM, and after ``train.max_steps``."""
        c, step, done = self.config, trainer.global_step, batch_idx + 1
        if c.keep_every and step % c.keep_every == 0 and not done % c.accumulate:
            self._write_weights(trainer, pl_module, (f"step{step}",), {})
        if done % c.accumulate or done == trainer.num_training_batches:
            return
        if self._used_up(step):
            # The validation that follows may be interrupted; a finished run must have its last weights.
            self._save_weights(trainer, pl_module)
        if trainer.received_sigterm or self._used_up(step) or step % c.save_every == 0:
            self._save_resume(trainer, pl_module, Position(trainer.current_epoch, done))
        trainer.should_stop = trainer.should_stop or self._used_up(step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save at the end of an epoch, after validation."""
        self._save_weights(trainer, pl_module)
        if trainer.fit_loop.batch_idx + 1 == trainer.num_training_batches:
            self._save_resume(trainer, pl_module, Position(trainer.current_epoch + 1))
            trainer.should_stop = trainer.should_stop or self._used_up(trainer.global_step)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the settings and the position of the run."""
        checkpoint["avseg"] = {
            "run": json.dumps(self.run.as_dict()),
            "position": tuple(self._position),
            "curve_bytes": self._curve_bytes,
        }

    def _used_up(self, step: int) -> bool:
        return self.config.max_steps is not None and step >= self.config.max_steps

    def _save_resume(self, trainer: pl.Trainer, module: AVSLightningModule, position: Position) -> None:
        self._position = position
        self._curve_bytes = sum(log.size() for log in trainer.loggers if isinstance(log, CurveLogger))
        with _writing(self.folder / RESUME):
            trainer.save_checkpoint(self.folder / RESUME)

    def _save_weights(self, trainer: pl.Trainer, module: AVSLightningModule) -> None:
        scores, module.scores = module.scores, {}
        score = scores.get(self.monitor, math.nan) * (1 if self.config.mode == "max" else -1)
        better = score > self.best
        self.best = score if better else self.best
        self._write_weights(trainer, module, ("last", "best") if better else ("last",), scores)
        if scores:
            trainer.print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, step {trainer.global_step}: "
                f"val/loss {scores['val/loss']:.4f}, {self.monitor} {scores[self.monitor]:.4f}"
                f"{' (best)' if better else ''}"
            )

    def _write_weights(
        self, trainer: pl.Trainer, module: AVSLightningModule, names: Sequence[str], scores: Mapping[str, float]
    ) -> None:
        numbers = {name: None if math.isnan(value) else value for name, value in scores.items()}  # JSON has no NaN
        card = {**self.card, "epoch": trainer.current_epoch + 1, "step": trainer.global_step, "metrics": numbers}
        for name in names:
            if trainer.is_global_zero:
                with _writing(self.folder / name):
                    store.save(module.model, self.folder / name, **card)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # Python, torch and safetensors raise different errors for a full disk.
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"cannot write {path} ({reason}): free disk space, then continue with --train.resume auto"
        ) from error
