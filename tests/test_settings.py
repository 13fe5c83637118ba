from collections.abc import Mapping
from typing import Any, Literal

import pytest

from avseg.settings import fits, in_bounds, named


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (1, float, True),
        (float("nan"), float, False),
        (10**400, float, False),
        ("a", str, True),
        (None, str | None, True),
        (1, str | None, False),
        ("b", Literal["a", "b"], True),
        (["b"], Literal["a", "b"], False),
        ([1, 2], tuple[int, int], True),
        ([1, 2, 3], tuple[int, int], False),
        ((1, 2, 3), tuple[int, ...], True),
        (["a"], tuple[int, ...], False),
        (224, int | tuple[int, int], True),
        ({"a": 1.0}, Mapping[str, float], True),
        ({"a": "b"}, dict[str, float], False),
        (object(), Any, True),
    ],
)
def test_value_fits_hint(value: object, hint: object, expected: bool) -> None:
    assert fits(value, hint) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**31 - 1, True),
        (2**31, False),
        (-(10**18), False),
        ((32, 10**30), False),
        ({"a": [2**40]}, False),
        (1e300, True),
        (True, True),
        ("9" * 20, True),
    ],
)
def test_integers_are_bounded(value: object, expected: bool) -> None:
    assert in_bounds(value) is expected


def test_hints_are_named_for_users() -> None:
    assert named(int | tuple[int, int] | None) == "int or list of int, int or null"
    assert named(Literal["a", "b"]) == "'a', 'b'"
