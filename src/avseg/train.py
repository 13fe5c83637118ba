"""``avseg train``: a model learns from a data set, and a killed run goes on as if nothing had happened.

A run's folder holds ``config.yaml``, ``metrics.csv`` and TensorBoard's events, ``best/`` and ``last/`` for
:func:`avseg.load`, and ``resume.ckpt``. Nothing random depends on the past (see ``_sampler.py``), so that weights,
optimizer, scores and the position are all a run needs to continue bit for bit.
"""

import dataclasses
import json
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException

from avseg._curves import Curves
from avseg._loop import RESUME, Keeper, Lesson
from avseg._sampler import START, Position, reseed
from avseg.config import Run, Weights
from avseg.data import build_dataset
from avseg.data._base import AVSDataset
from avseg.errors import CheckpointError, ConfigError
from avseg.interface import AVSModel
from avseg.models import build
from avseg.nn.audio import AudioEncoder

MAY_CHANGE = {"epochs", "max_steps", "workers", "save_every", "log_every", "out", "resume"}
"""Training settings that a resumed run may have otherwise than the run it continues."""


@dataclass(frozen=True)
class Resume:
    """Where a run goes on.

    Attributes:
        path: The checkpoint; None for a new run.
        position: Epoch and batch.
        step: Optimizer steps done.
        curve_bytes: How much of ``metrics.csv`` belongs to it.
    """

    path: Path | None = None
    position: Position = START
    step: int = 0
    curve_bytes: int = 0


def train(run: Run, *, progress: bool = True) -> Path:
    """Train until the epochs or steps are used up.

    Args:
        run: All settings.
        progress: Show a bar.

    Returns:
        The run's folder.

    Raises:
        AvsegError: When a setting cannot work, the run cannot be resumed, or the loss is not finite.
    """
    folder = Path(run.train.out or f"runs/{run.model['name']}_{run.data['name']}")
    resume = find_resume(run, folder)
    if run.train.max_steps and resume.step >= run.train.max_steps:
        return folder
    reseed(run.train.seed)
    training, validation = (_dataset(run.data, split) for split in ("train", "val"))
    model = build(classes=training.classes, **run.model)
    if resume.path is None:
        load_weights(model, run.weights, training)
    trainer = _trainer(run, folder, training, progress)
    curves = None
    if trainer.is_global_zero:
        curves = Curves(folder, resume.curve_bytes, resume.step + (resume.position.batch == 0))
        (folder / "config.yaml").write_text(yaml.safe_dump(run.as_dict(), sort_keys=False), encoding="utf-8")
    lesson = Lesson(model, (training, validation), run.train, curves, resume.position)
    _fit(trainer, lesson, resume.path)
    return folder


def find_resume(run: Run, folder: Path) -> Resume:
    """What ``train.resume`` asks for.

    Raises:
        ConfigError: When a new run would write over an old one, or the checkpoint is of another run.
        CheckpointError: When the checkpoint is missing or cannot be read.
    """
    wish, own = run.train.resume, folder / RESUME
    if wish is None:
        if own.exists():
            raise ConfigError(
                f"{folder} holds a run already: continue it with --train.resume auto, or choose another --train.out"
            )
        return Resume()
    if wish == "auto" and not own.exists():
        return Resume()
    path = own if wish == "auto" else Path(wish)
    state = _read(path)
    _same_run(json.loads(state["avseg"]["run"]), json.loads(json.dumps(run.as_dict())), path)
    ours = state["avseg"]
    return Resume(path, Position(*ours["position"]), state["global_step"], ours["curve_bytes"])


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"nothing to resume at {path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        # Torch, zipfile and pickle each have their own way to say that a file is broken or unsafe.
        reason = str(error).strip().partition("\n")[0][:160]
        raise CheckpointError(f"cannot resume from {path}: broken, or not written by avseg train ({reason})") from error
    if not isinstance(state, dict) or "avseg" not in state:
        raise CheckpointError(f"cannot resume from {path}: it was not written by avseg train")
    return state


def _same_run(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    free = MAY_CHANGE - ({"epochs", "max_steps"} if new["train"]["schedule"] != "constant" else set())
    for section in ("model", "data", "train"):
        for key in old[section].keys() | new[section].keys():
            was, now = old[section].get(key), new[section].get(key)
            if was != now and not (section == "train" and key in free):
                raise ConfigError(
                    f"{path} was trained with {section}.{key} = {was!r}, not {now!r}: resume with the same"
                )


def load_weights(model: AVSModel, weights: Weights, data: AVSDataset) -> None:
    """Pretrained backbones, and the check that a frozen audio encoder has some.

    Raises:
        CheckpointError: When weights cannot be had or do not fit.
        ConfigError: When the model would listen through a frozen, random encoder.
    """
    from avseg.nn.weights import load_audio, load_visual

    if weights.visual is not None:
        load_visual(model, weights.visual)
    if weights.audio is not None:
        load_audio(model, weights.audio)
        return
    encoder = getattr(model, "audio", None)
    frozen = isinstance(encoder, AudioEncoder) and encoder.net is not None and not encoder.learns
    if frozen and data[0].clip.audio.ndim == 5:
        raise ConfigError(
            "the audio encoder is frozen and has no weights: give --weights.audio PATH, "
            "or let it learn with --model.train_audio true"
        )


def _dataset(settings: dict[str, Any], split: str) -> AVSDataset:
    fields = {k: v for k, v in settings.items() if k != "name"}
    return build_dataset(settings["name"], split, **fields)


def _trainer(run: Run, folder: Path, data: AVSDataset, progress: bool) -> pl.Trainer:
    c = run.train
    card = {"data": run.data, "class_names": list(data.class_names), "train": dataclasses.asdict(c), "commit": commit()}
    return pl.Trainer(
        max_epochs=c.epochs,
        accelerator=c.accelerator,
        devices=c.devices,
        strategy=c.strategy,
        precision=c.precision,
        accumulate_grad_batches=c.accumulate,
        gradient_clip_val=c.clip_grad,
        check_val_every_n_epoch=c.val_every,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        default_root_dir=folder,
        enable_model_summary=False,
        enable_progress_bar=progress,
        callbacks=[Keeper(folder, c, run.as_dict(), card)] + [RichProgressBar()] * progress,
    )


def _fit(trainer: pl.Trainer, lesson: Lesson, resume: Path | None) -> None:
    with warnings.catch_warnings():
        # Ours is resumable (ShuffledFrom), but Lightning looks for another mechanism.
        warnings.filterwarnings("ignore", ".*your dataloader is not resumable")
        warnings.filterwarnings("ignore", ".*does not have many workers")
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        # A frozen audio encoder stays in evaluation mode on purpose.
        warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
        try:
            trainer.fit(lesson, ckpt_path=resume, weights_only=True)
        except SIGTERMException:
            raise SystemExit(143) from None
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            if lesson.curves:
                lesson.curves.close()


def commit() -> str | None:
    """The commit of the checkout this package runs from, ``+`` when it was edited; None outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        edited = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "."], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(edited)
