"""Read JSON files of unknown origin: bounded in size and depth, checked against a schema, errors in one line."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError

MOST_LEVELS = 64
"""Deepest nesting of lists and objects; files of avseg have at most six levels."""
_LARGEST = 1e15
"""Largest number: every integer up to it is exact as a float."""

Check = Callable[[Any], bool]
"""Test of one value."""


def read_json(path: Path, error: type[AvsegError], what: str, *, most_bytes: int | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        error: Kind of error to raise.
        what: Description of the file for messages, such as "a card of avseg".
        most_bytes: Largest size of the file; None for no limit.

    Raises:
        AvsegError: Of kind ``error``, when the file cannot be read, is too large, is not JSON, or is nested deeper than
            :data:`MOST_LEVELS`.
    """
    try:
        size = path.stat().st_size
        if most_bytes is not None and size > most_bytes:
            raise error(f"{path} is not {what}: it has {size} bytes, expected at most {most_bytes}")
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as reason:
        text = "it is nested too deeply" if isinstance(reason, RecursionError) else " ".join(str(reason).split())
        raise error(f"{path} is not {what} ({text}): restore it from a copy") from reason
    if not is_bounded(tree):
        raise error(f"{path} is not {what}: it is nested deeper than {MOST_LEVELS} levels")
    return tree


def is_bounded(tree: Any, most_nodes: int | None = None) -> bool:
    """Return whether a tree has at most :data:`MOST_LEVELS` levels, and ``most_nodes`` nodes if that is given.

    A node that several others share, by an alias of YAML, counts each time.
    """
    level, nodes = [tree], 0
    for _ in range(MOST_LEVELS + 1):
        branches = [node for node in level if isinstance(node, dict | list)]
        if not branches:
            return True
        nodes += sum(map(len, branches))
        if most_nodes is not None and nodes > most_nodes:
            return False
        level = [child for node in branches for child in (node.values() if isinstance(node, dict) else node)]
    return False


def check_fields(tree: Any, schema: Mapping[str, tuple[Check, str]], path: Path, error: type[AvsegError]) -> None:
    """Check the fields of a JSON object.

    Args:
        tree: Content of the file.
        schema: Field -> test and description of its value. A missing field is tested as None.
        path: The file, for messages.
        error: Kind of error to raise.

    Raises:
        AvsegError: Of kind ``error``, when it is no object or a test fails; names the first such field.
    """
    if not isinstance(tree, dict):
        raise error(f"{path} must hold a JSON object, got {_short(tree)}")
    for field, (valid, expected) in schema.items():
        if not valid(tree.get(field)):
            raise error(f"{path}: {field} must be {expected}, got {_short(tree.get(field))}")


def is_count(value: object, most: int = 2**31 - 1) -> bool:
    """Return whether a value is an integer from 1 to ``most``; True is not."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def is_number(value: object) -> bool:
    """Return whether a value is a number within 1e15; NaN and True are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def is_text(value: object) -> bool:
    """Return whether a value is a string that is not empty."""
    return isinstance(value, str) and bool(value)


def is_list_of(value: object, valid: Check) -> bool:
    """Return whether a value is a list whose items all pass a test."""
    return isinstance(value, list) and all(map(valid, value))


def _short(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
