"""Check the values of settings against the type hints of a ``Config``."""

import math
import numbers
import os
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from avseg.errors import ConfigError, did_you_mean

LARGEST = 2**31 - 1
"""Largest absolute value of an integer setting: libraries do not take larger ones everywhere."""


def check_choices(config: Any) -> None:
    """Raise ConfigError unless every field of a dataclass with a ``Literal`` type has one of its values."""
    for name, hint in get_type_hints(type(config)).items():
        value, choices = getattr(config, name), get_args(hint)
        if get_origin(hint) is Literal and value not in choices:
            raise ConfigError(f"{name} = {value!r}. {did_you_mean(str(value), choices)}")


def check_positive(config: Any, *names: str) -> None:
    """Raise ConfigError unless the named fields are 1 or more."""
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} must be 1 or more, got {getattr(config, name)}")


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value has the type of a hint.

    Args:
        value: The value; a list stands for a tuple, a path for a string, an integer for a float.
        hint: ``int``, ``float``, ``bool``, ``str``, ``None``, ``Literal``, a union, ``tuple``, ``list`` or a mapping of
            these. Any other hint accepts any value.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if origin is tuple:
        return _fits_tuple(value, arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(k, arguments[0]) and fits(v, arguments[1]) for k, v in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(fits(v, arguments[0]) for v in value)
    return _fits_plain(value, hint)


def _fits_tuple(value: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(value, list | tuple):
        return False
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return all(fits(item, arguments[0]) for item in value)
    return len(value) == len(arguments) and all(map(fits, value, arguments))


def _fits_plain(value: Any, hint: Any) -> bool:
    if hint in (None, NoneType):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is float:
        return not isinstance(value, bool) and _is_finite(value)
    return isinstance(value, str | os.PathLike) if hint is str else True


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):  # no number, or an integer beyond all floats
        return False


def in_bounds(value: Any) -> bool:
    """Return whether no integer in a value is beyond :data:`LARGEST`."""
    if isinstance(value, Mapping):
        return in_bounds(list(value.values()))
    if isinstance(value, list | tuple):
        return all(map(in_bounds, value))
    return not isinstance(value, numbers.Integral) or abs(int(value)) <= LARGEST


def named(hint: Any) -> str:
    """Return a hint as text for messages: ``int or null``, ``list of int``."""
    arguments = [argument for argument in get_args(hint) if argument is not Ellipsis]
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(named, arguments))
    if get_origin(hint) is Literal:
        return ", ".join(map(repr, arguments))
    if get_origin(hint) in (tuple, list):
        return f"list of {', '.join(map(named, arguments))}"
    return "null" if hint in (None, NoneType) else getattr(hint, "__name__", str(hint))
