"""Training curves: loggers of Lightning for ``train.loggers``, and ``metrics.csv``, exact after a resume."""

import csv
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from avseg.config import LoggerName
from avseg.errors import ConfigError

PROJECT = "avseg"
"""Project of Weights & Biases and experiment of MLflow that runs belong to."""


class CurveLogger(Logger):
    """Logger that writes rows (step, name, value) to ``metrics.csv``.

    Args:
        folder: Folder of the run; created if missing.
        size: Bytes of ``metrics.csv`` to keep on resume; later rows of an interrupted run are truncated.
    """

    def __init__(self, folder: Path, size: int = 0) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.csv"
        kept = size if path.exists() and path.stat().st_size >= size else 0
        self._file = path.open("a", newline="", encoding="utf-8")
        self._file.truncate(kept)
        self._rows = csv.writer(self._file)
        if not kept:
            self._rows.writerow(("step", "name", "value"))

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Empty: the folder of a run has one version."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``config.yaml`` has the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one point of each curve."""
        self._rows.writerows((step, name, repr(value)) for name, value in metrics.items())
        self._file.flush()

    def size(self) -> int:
        """Flush ``metrics.csv`` to disk and return its size in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file."""
        self._file.close()


class _Board(TensorBoardLogger):
    """TensorBoard events in the folder of the run; its settings are in ``config.yaml``, not in ``hparams.yaml``."""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    @rank_zero_only
    def save(self) -> None:
        """Flush the events."""
        self.experiment.flush()


def make_loggers(names: Sequence[LoggerName], folder: Path, size: int = 0, step: int = 0) -> list[Logger]:
    """Return the loggers of a run; packages of loggers that are not named are not imported.

    MLflow takes the server of the environment variable ``MLFLOW_TRACKING_URI``, or else ``mlflow.db`` in the folder.

    Args:
        names: Names out of :data:`avseg.config.LoggerName`.
        folder: Folder of the run.
        size: Bytes of ``metrics.csv`` to keep on resume.
        step: First step of a resumed run; TensorBoard discards events from there on. Weights & Biases and MLflow
            record a resumed run as another run of the same name.

    Raises:
        ConfigError: When the package of a logger is not installed.
    """
    check_loggers(names)
    return [_make(name, folder, size, step) for name in names]


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Check that the packages of loggers are installed.

    Raises:
        ConfigError: When one is not.
    """
    for name in names:
        if name in ("wandb", "mlflow") and find_spec(name) is None:
            raise ConfigError(f"train.loggers has {name}, which is not installed: pip install {name}")


def _make(name: LoggerName, folder: Path, size: int, step: int) -> Logger:
    if name == "csv":
        return CurveLogger(folder, size)
    if name == "tensorboard":
        return _Board(folder, name="", version="", purge_step=step or None)
    if name == "wandb":
        return WandbLogger(project=PROJECT, name=folder.name, save_dir=folder)
    database = f"sqlite:///{(folder / 'mlflow.db').resolve()}"  # MLflow 3 refuses new runs in plain files
    tracking = os.environ.get("MLFLOW_TRACKING_URI", database)
    artifacts = None if tracking != database else (folder / "mlruns").resolve().as_uri()
    return MLFlowLogger(PROJECT, folder.name, tracking, artifact_location=artifacts)
