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
    """Names :func:`build` knows."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def model_class(name: str) -> type[AVSModel]:
    """The one model class of ``models/<name>.py``.

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
    """A model with random weights; reads no file.

    Args:
        name: One of :func:`list_models`.
        classes: Output channels K: 1 for "what sounds", else background + classes.
        **config: Fields of the model's ``Config``; what is left out takes the paper's value.

    Raises:
        ConfigError: When the model or a field does not exist, or a value cannot work.
    """
    model = model_class(name)
    return model(make_config(model, config), classes)


def build_for(dataset: AVSDataset, name: str, **config: Any) -> AVSModel:
    """A model with random weights for a data set.

    Args:
        dataset: Decides ``classes`` and, for a model whose ``Config`` has the field, ``categories``.
        name: One of :func:`list_models`.
        **config: As in :func:`build`; ``categories`` stand when they are given and not None.

    Raises:
        ConfigError: When the model or a field does not exist, or a value cannot work.
    """
    if "categories" in model_class(name).Config.__dataclass_fields__ and config.get("categories") is None:
        config["categories"] = dataset.categories
    return build(name, dataset.classes, **config)
