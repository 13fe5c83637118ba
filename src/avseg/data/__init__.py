"""Data sets, found by file name (``data/synthetic.py`` is ``"synthetic"``) or by entry points of other packages."""

from typing import Any

from avseg.data._base import AVSDataset, Sample, collate
from avseg.errors import ConfigError, did_you_mean
from avseg.interface import SPLITS, make_config
from avseg.registry import Registry

__all__ = ["AVSDataset", "Sample", "build_dataset", "collate", "dataset_class", "list_datasets"]

DATASETS: Registry[AVSDataset] = Registry(__name__, "data set", AVSDataset, configured=True)  # type: ignore[type-abstract]


def list_datasets() -> list[str]:
    """Return the names that :func:`build_dataset` accepts: those of this package, then those of other packages."""
    return DATASETS.names()


def dataset_class(name: str) -> type[AVSDataset]:
    """Return the data set class of that name.

    Args:
        name: One of :func:`list_datasets`, or ``my_package.module:Class``.

    Raises:
        ConfigError: When no data set has that name, or it cannot be imported.
    """
    return DATASETS.find(name)


def build_dataset(name: str, split: str, **settings: Any) -> AVSDataset:
    """Build the data set of that name.

    Args:
        name: One of :func:`list_datasets`, or ``my_package.module:Class``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        **settings: Fields of the data set's ``Config``; defaults for all others.

    Raises:
        ConfigError: When the data set, the split or a setting does not exist, or a value cannot work.
    """
    found = dataset_class(name)
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}. {did_you_mean(split, SPLITS)}")
    return found(make_config(found, settings), split)  # type: ignore[call-arg]
