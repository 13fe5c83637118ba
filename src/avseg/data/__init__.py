"""Data sets, found by file name: ``data/synthetic.py`` is ``"synthetic"``."""

import importlib
import inspect
import pkgutil
from typing import Any

from avseg.data._base import AVSDataset, Sample, collate
from avseg.errors import ConfigError, did_you_mean
from avseg.interface import SPLITS, make_config

__all__ = ["AVSDataset", "Sample", "build_dataset", "collate", "dataset_class", "list_datasets"]


def list_datasets() -> list[str]:
    """Return the names that :func:`build_dataset` accepts."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def dataset_class(name: str) -> type[AVSDataset]:
    """Return the data set class of ``data/<name>.py``.

    Raises:
        ConfigError: When no data set has that name.
    """
    if name not in list_datasets():
        raise ConfigError(f"unknown data set {name!r}. {did_you_mean(name, list_datasets())}")
    module = importlib.import_module(f"{__name__}.{name}")
    (found,) = (
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, AVSDataset) and c.__module__ == module.__name__
    )
    return found


def build_dataset(name: str, split: str, **settings: Any) -> AVSDataset:
    """Build the data set of that name.

    Args:
        name: One of :func:`list_datasets`.
        split: ``"train"``, ``"val"`` or ``"test"``.
        **settings: Fields of the data set's ``Config``; defaults for all others.

    Raises:
        ConfigError: When the data set, the split or a setting does not exist, or a value cannot work.
    """
    found = dataset_class(name)
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}. {did_you_mean(split, SPLITS)}")
    return found(make_config(found, settings), split)  # type: ignore[call-arg]
