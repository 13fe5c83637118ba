"""``avseg train``: train a model on a data set, with exact resume of interrupted runs.

The folder of a run has ``config.yaml``, ``metrics.csv`` and TensorBoard events, ``best/`` and ``last/`` for
:func:`avseg.load`, and ``resume.ckpt``. All randomness is a function of the seed and the position in the run. A run
that is resumed from weights, optimizer, best score and position therefore equals an uninterrupted run bit for bit (on a
GPU, if its operations are deterministic).
"""

import dataclasses
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import lightning.pytorch as pl
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException

from avseg.checkpoints.pretrained import load_audio, load_decoder, load_visual
from avseg.checkpoints.store import load, start_from, take_part
from avseg.config import Run, TrainConfig, Weights
from avseg.data import AVSDataset, build_dataset
from avseg.errors import ConfigError, DataError
from avseg.files import locked, write_text
from avseg.interface import AVSModel
from avseg.model_folder import bundled, is_model
from avseg.models import build_for
from avseg.nn.audio import AudioEncoder
from avseg.nn.fast_training import fast_layers
from avseg.provenance import commit
from avseg.signals import default_handlers
from avseg.training.checkpoint import CONFIG, AtomicCheckpointIO, Resume, RunCheckpoint, find_resume
from avseg.training.curves import check_loggers, make_loggers
from avseg.training.module import AVSLightningModule
from avseg.training.sampler import reseed


def train(run: Run, *, progress: bool = False) -> Path:
    """Train for the given number of epochs or steps.

    Args:
        run: All settings.
        progress: Show a progress bar.

    Returns:
        The folder of the run.

    Raises:
        AvsegError: When a setting is invalid, the run cannot be resumed, its folder has other files that it would
            replace or is in use by another training, or the loss is not finite.
    """
    folder = Path(run.train.out or f"runs/{run.model['name']}_{run.data['name']}")
    resume = find_resume(run, folder)
    if run.train.max_steps is not None and resume.step >= run.train.max_steps:
        return folder
    reseed(run.train.seed)
    training, validation = _dataset(run, "train"), _dataset(run, "val")
    model = build_for(training, **run.model)
    fresh = load_weights(model, run.weights, training) if resume.path is None else []
    trainer = _trainer(run, folder, training, progress)
    trainer.fit_loop.max_epochs = _epochs(run.train, len(training), trainer.world_size)
    module = AVSLightningModule(model, training, validation, run.train, resume.position)
    module.fresh = fresh
    with _owned(run, folder, resume) if trainer.is_global_zero else nullcontext():
        if trainer.is_global_zero:  # other processes log nothing
            _open_logs(trainer, run, folder, resume)
        _fit(trainer, module, resume.path)
    return folder


@contextmanager
def _owned(run: Run, folder: Path, resume: Resume) -> Iterator[None]:
    """Hold the lock of the folder of a run.

    Raises:
        ConfigError: When another process trains in it, or did so since ``resume`` was read.
    """
    with locked(folder, "wait for it, or set another --train.out"):
        if find_resume(run, folder) != resume:
            raise ConfigError(f"{folder} was changed by another training meanwhile: start again")
        yield


def _open_logs(trainer: pl.Trainer, run: Run, folder: Path, resume: Resume) -> None:
    """Write the settings, by which a repeated command recognises a run that was killed early; open the loggers."""
    check_loggers(run.train.loggers)
    write_text(folder / CONFIG, yaml.safe_dump(run.as_dict(), sort_keys=False))
    step = resume.step + (resume.position.batch == 0)
    trainer.loggers = make_loggers(run.train.loggers, folder, resume.curve_bytes, step)
    for logger in trainer.loggers:
        logger.log_hyperparams(run.as_dict())


def load_weights(model: AVSModel, weights: Weights, data: AVSDataset) -> list[str]:
    """Load initial weights of a model or its parts, and check that a frozen audio encoder has weights.

    Returns:
        Names of the tensors that ``weights.model`` lacks or has in another shape; they are initialised randomly.

    Raises:
        CheckpointError: When weights cannot be found or do not fit.
        ConfigError: When the audio encoder is frozen and has random weights.
    """
    fresh = [] if weights.model is None else start_from(model, weights.model)
    for part, source, read in (
        ("visual", weights.visual, load_visual),
        ("audio", weights.audio, load_audio),
        ("transformer", weights.decoder, load_decoder),
    ):
        if source is not None and is_model(source):
            take_part(model, part, source)
        elif source is not None:
            read(model, source)
    encoder = getattr(model, "audio", None)
    frozen = isinstance(encoder, AudioEncoder) and encoder.net is not None and not encoder.trainable
    without = weights.model is None or any(key.startswith("audio.") for key in fresh)
    if frozen and without and weights.audio is None and data[0].clip.audio.ndim == 5:
        raise ConfigError(_audio_hint(model.config.audio))
    return fresh


def _epochs(config: TrainConfig, clips: int, processes: int) -> int:
    """Return the number of epochs after which training ends, by ``epochs`` or ``max_steps``."""
    if config.max_steps is None:
        return config.epochs
    steps = math.ceil(math.ceil(clips / processes) / (config.batch_size * config.accumulate))
    return min(config.epochs, math.ceil(config.max_steps / steps))


def _audio_hint(audio: str) -> str:
    """Return the message for a frozen audio encoder without weights, with the shortest flags that work."""
    name = bundled()[0]
    return (
        f"the audio encoder {audio!r} is frozen and has no weights: add --model.audio {load(name).config.audio} "
        f"--weights.audio {name} for those of the bundled model, --weights.audio FILE for a file of your own, or "
        "--model.train_audio true to train it"
    )


def _dataset(run: Run, split: str) -> AVSDataset:
    data = build_dataset(split=split, **run.data)
    if not len(data):
        raise DataError(f"the data set {run.data['name']!r} has no clip in its split {split!r}")
    return data


def _trainer(run: Run, folder: Path, data: AVSDataset, progress: bool) -> pl.Trainer:
    c = run.train
    settings = {key: value for key, value in dataclasses.asdict(c).items() if key not in ("out", "resume")}
    card = {"data": run.data, "class_names": data.class_names, "train": settings, "commit": commit()}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*fp16 is not supported on CPU")
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
                log_every_n_steps=1,
                default_root_dir=folder,
                enable_model_summary=False,
                enable_progress_bar=progress,
                callbacks=[RunCheckpoint(folder, run, data.classes, card), *([RichProgressBar()] if progress else [])],
                plugins=[AtomicCheckpointIO()],
            )
    except (MisconfigurationException, ValueError, UserWarning) as error:
        raise ConfigError(f"these devices cannot be used: {' '.join(str(error).split())}") from error


def _fit(trainer: pl.Trainer, module: AVSLightningModule, resume: Path | None) -> None:
    with warnings.catch_warnings():
        for harmless in (
            ".*your dataloader is not resumable",  # it is, by ResumableSampler, which Lightning does not recognise
            ".*does not have many workers",
            ".*LeafSpec.* is deprecated",  # between Lightning and torch
            r"Found \d+ module\(s\) in eval mode",  # a frozen audio encoder
        ):
            warnings.filterwarnings("ignore", harmless)
        try:
            with default_handlers(), fast_layers(module.model, trainer.strategy.root_device):
                trainer.fit(module, ckpt_path=resume, weights_only=True)
        except SIGTERMException:
            raise SystemExit(143) from None
        except SystemExit as end:
            # Lightning turns Ctrl-C into an exit with code 1.
            if isinstance(end.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
