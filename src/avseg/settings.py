"""Check the values of settings against the type hints of a ``Config``."""

import numbers
import os
import sys
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin


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
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, str | os.PathLike) if hint is str else True


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
