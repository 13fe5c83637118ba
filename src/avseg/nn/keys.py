"""Rename the keys of state dicts."""

import re
from collections.abc import Iterable


def rename(key: str, table: Iterable[tuple[str, str]]) -> str:
    """Return a key after all substitutions of a table, in order.

    Args:
        key: Key of a state dict.
        table: Regular expressions and their replacements, as for :func:`re.sub`.
    """
    for pattern, replacement in table:
        key = re.sub(pattern, replacement, key)
    return key
