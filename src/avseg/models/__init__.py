"""Models, found by file name (``models/pcmanet.py`` is ``"pcmanet"``) or by entry points of other packages."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from avseg.errors import ConfigError
from avseg.interface import AVSModel, make_config
from avseg.registry import Registry

if TYPE_CHECKING:
    from avseg.data import AVSDataset

MODELS: Registry[AVSModel] = Registry(__name__, "model", AVSModel, configured=True)  # type: ignore[type-abstract]

MOST_PARAMETERS = 2_000_000_000
"""Largest number of parameters of a model that :func:`build` builds: 8 GB."""
_LARGE = 4_096
"""Settings up to this number are built without counting the parameters first."""


def list_models() -> list[str]:
    """Return the names that :func:`build` accepts: those of this package, then those of other packages."""
    return MODELS.names()


def model_class(name: str) -> type[AVSModel]:
    """Return the model class of that name.

    Args:
        name: One of :func:`list_models`, or ``my_package.module:Class``.

    Raises:
        ConfigError: When no model has that name, or it cannot be imported.
    """
    return MODELS.find(name)


def build(name: str, classes: int = 1, **config: Any) -> AVSModel:
    """Build a model with random weights; reads no file.

    Args:
        name: One of :func:`list_models`, or ``my_package.module:Class``.
        classes: Number of output channels K: 1 for sounding objects without class, else background + classes.
        **config: Fields of the model's ``Config``; omitted fields take the value of the paper.

    Raises:
        ConfigError: When the model or a field does not exist, or a value is invalid.
    """
    model = model_class(name)
    settings = make_config(model, config)
    _check_counts(name, settings, classes)
    try:
        return model(settings, classes)
    except MemoryError:
        raise ConfigError(f"{name} with these settings does not fit into the memory: choose smaller settings") from None
    except (ValueError, RuntimeError, ArithmeticError, LookupError) as error:  # such as sizes that do not divide
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"{name} cannot be built with these settings: {reason}") from error


_SIZES = {"channels", "groups", "heads", "audio_dim", "queries"}
"""Settings of models that are sizes of tensors."""


def _check_counts(name: str, settings: Any, classes: int) -> None:
    """Refuse settings that are too small, or so large that building the model would exhaust the memory.

    Raises:
        ConfigError: When an integer is below 0, a size is 0 (:data:`_SIZES`), or the model would have more than
            :data:`MOST_PARAMETERS` parameters.
    """
    counts = {
        field.name: value
        for field in dataclasses.fields(settings)
        if isinstance(value := getattr(settings, field.name), int) and not isinstance(value, bool)
    }
    for field, value in counts.items():
        least = 1 if field in _SIZES else 0
        if value < least:
            raise ConfigError(f"{field} of {name} must be {least} or more, got {value}")
    if max([classes, *counts.values()]) > _LARGE and _parameters(name, settings, classes) > MOST_PARAMETERS:
        raise ConfigError(f"{name} would have more than {MOST_PARAMETERS:.0e} parameters: choose smaller settings")


def _parameters(name: str, settings: Any, classes: int) -> int:
    """Return the number of parameters without allocating them; 0 if the model cannot be built so."""
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in model_class(name)(settings, classes).parameters())
    except (ValueError, RuntimeError, ArithmeticError, LookupError, NotImplementedError):
        return 0


def build_for(dataset: AVSDataset, name: str, **config: Any) -> AVSModel:
    """Build a model with random weights for a data set.

    Args:
        dataset: Sets ``classes`` and, for a model whose ``Config`` has the field, ``categories``.
        name: As in :func:`build`.
        **config: As in :func:`build`; ``categories`` other than None override those of the data set.

    Raises:
        ConfigError: When the model or a field does not exist, or a value is invalid.
    """
    if "categories" in model_class(name).Config.__dataclass_fields__ and config.get("categories") is None:
        config["categories"] = dataset.categories
    return build(name, dataset.classes, **config)
