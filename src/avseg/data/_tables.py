"""Read the CSV file that lists the clips of a released data set."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from avseg.errors import DataError, did_you_mean


class Row(dict[str, str]):
    """Column → value of one clip, in the order of the file.

    Attributes:
        place: File and line, for messages.
    """

    def __init__(self, values: dict[str, str], place: str) -> None:
        super().__init__(values)
        self.place = place


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Read the rows as column → value, in the order of the file: the first value of a row is that of the first column.

    Args:
        path: The file.
        columns: Required columns.

    Raises:
        DataError: When it is missing, cannot be read, has no such column or no value, or names an unknown split or a
            file outside the data set.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [
                Row({k: v for k, v in row.items() if k is not None}, f"{path}, line {reader.line_num}")
                for row in reader
            ]
    except FileNotFoundError:
        raise DataError(f"no {path}: set root (--data.root) to the folder that holds {path.name}") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    for row in rows:
        _check(row, columns, path)
    return rows


def _check(row: Row, columns: Sequence[str], path: Path) -> None:
    if missing := [c for c in columns if c not in row]:
        _no_column(missing[0], list(row), path)
    for column in (next(iter(row)), *columns):
        value = row[column]
        if not value:
            raise DataError(f"{row.place}: column {column!r} is empty")
        if Path(value).is_absolute() or ".." in Path(value).parts:
            raise DataError(f"{row.place}: {value!r} is not the name of a file in the data set")
    if row.get("split", "test") not in ("train", "val", "test"):
        raise DataError(f"{row.place}: split must be train, val or test, got {row['split']!r}")


def _no_column(column: str, found: list[str], path: Path) -> NoReturn:
    other = next((mark for mark in (";", "\t", "|") if len(found) == 1 and mark in found[0]), None)
    if other:
        raise DataError(f"{path} separates its columns by {other!r}: separate them by ','")
    raise DataError(f"{path} has no column {column!r}. {did_you_mean(column, found)}")
