"""The CSV file in which a released data set lists its clips."""

import csv
from collections.abc import Sequence
from pathlib import Path

from avseg.errors import DataError, did_you_mean

Row = dict[str, str]


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Its rows, column → value, in the order of the file: the first value of a row is that of the first column.

    Args:
        path: The file.
        columns: What the rows must have.

    Raises:
        DataError: When it is missing, cannot be read, lacks a column or a value, or names an unknown split.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [{k: v for k, v in row.items() if k is not None} for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise DataError(f"no {path}: set root (--data.root) to the folder that holds {path.name}") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    for number, row in enumerate(rows, start=2):
        missing = [c for c in columns if c not in row]
        if missing:
            raise DataError(f"{path} has no column {missing[0]!r}. {did_you_mean(missing[0], row)}")
        empty = [c for c in (next(iter(row)), *columns) if not row[c]]
        if empty:
            raise DataError(f"{path}, line {number}: nothing in column {empty[0]!r}")
        if row.get("split", "test") not in ("train", "val", "test"):
            raise DataError(f"{path}, line {number}: split must be train, val or test, got {row['split']!r}")
    return rows
