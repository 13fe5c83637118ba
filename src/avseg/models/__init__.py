"""Models, found by file name (``models/pcmanet.py`` is ``"pcmanet"``) or by entry points of other packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avseg.interface import AVSModel, make_config
from avseg.registry import Registry

if TYPE_CHECKING:
    from avseg.data import AVSDataset

MODELS: Registry[AVSModel] = Registry(__name__, "model", AVSModel, configured=True)  # type: ignore[type-abstract]


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
    return model(make_config(model, config), classes)


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
