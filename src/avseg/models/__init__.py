"""The models, found by file name: ``models/pcmanet.py`` is ``"pcmanet"``."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING, Any

from avseg.errors import ConfigError, did_you_mean
from avseg.interface import AVSModel, make_config

if TYPE_CHECKING:
    from avseg.data import AVSDataset


def list_models() -> list[str]:
    """Return the names that :func:`build` accepts."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def model_class(name: str) -> type[AVSModel]:
    """Return the model class of ``models/<name>.py``.

    Raises:
        ConfigError: When no model has that name.
    """
    if name not in list_models():
        raise ConfigError(f"unknown model {name!r}. {did_you_mean(name, list_models())}")
    module = importlib.import_module(f"{__name__}.{name}")
    (found,) = (
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, AVSModel) and c.__module__ == module.__name__
    )
    return found


def build(name: str, classes: int = 1, **config: Any) -> AVSModel:
    """Build a model with random weights; reads no file.

    Args:
        name: One of :func:`list_models`.
        classes: Number of output channels K: 1 for sounding objects without class, else background + classes.
        **config: Fields of the model's ``Config``; omitted fields take the value of the paper.

    Raises:
        ConfigError: When the model or a field does not exist, or a value is invalid.
    """
    model = model_class(name)
    return model(make_config(model, config), classes)


def build_for(dataset: AVSDataset, name: str, **config: Any) -> AVSModel:
    """Build a model with random weights for a data set.

    Args:
        dataset: Sets ``classes`` and, for a model whose ``Config`` has the field, ``categories``.
        name: One of :func:`list_models`.
        **config: As in :func:`build`; ``categories`` other than None override those of the data set.

    Raises:
        ConfigError: When the model or a field does not exist, or a value is invalid.
    """
    if "categories" in model_class(name).Config.__dataclass_fields__ and config.get("categories") is None:
        config["categories"] = dataset.categories
    return build(name, dataset.classes, **config)
