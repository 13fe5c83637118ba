"""JSON files of unknown origin are bounded and checked; every error is one line."""

from pathlib import Path

import pytest

from avseg.documents import MOST_LEVELS, check_fields, is_bounded, is_count, is_number, read_json
from avseg.errors import DataError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a list of things"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("[" * 65 + "]" * 65, "nested deeper than 64 levels"),
        (" " * 101 + "1", "expected at most 100"),
    ],
)
def test_unreadable_file_raises_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_json(tmp_path / "a.json", DataError, "a list of things", most_bytes=100 if " " in text else None)
    assert "\n" not in str(caught.value)


def test_bounds_count_shared_and_recursive_nodes() -> None:
    shared: list[object] = [1] * 10
    for _ in range(9):
        shared = [shared] * 10  # 10^10 nodes in 10 lists
    endless: list[object] = []
    endless.append(endless)
    tree: object = 1
    for _ in range(MOST_LEVELS):
        tree = [tree]
    assert is_bounded(tree, 100)
    assert not is_bounded([tree])
    assert not is_bounded(shared, 10_000)
    assert not is_bounded(endless)


@pytest.mark.parametrize("tree", [[], None, {"a": "1"}, {"a": True}, {"a": 0}, {}])
def test_field_of_wrong_type_raises(tree: object) -> None:
    with pytest.raises(DataError, match=r"x\.json"):
        check_fields(tree, {"a": (is_count, "a number")}, Path("x.json"), DataError)


def test_nan_and_booleans_are_no_numbers() -> None:
    assert [is_number(x) for x in (1, 0.5, float("nan"), float("inf"), True, "1", 10**400)] == [True] * 2 + [False] * 5
