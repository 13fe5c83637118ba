"""Classes of a stock and their names in other data sets (``classes.yaml``)."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from avseg.errors import DataError, did_you_mean

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Classes:
    """The class table.

    Attributes:
        numbers: Name → number in masks, from 1.
        table: The rows of ``classes.yaml``.
        coco: Name of a COCO category → number; categories that are not named are ``other_object``.
        msrc: Name of an MSRC class → number; classes that are not named are background.
        rest: The other sections of ``classes.yaml``.
    """

    numbers: dict[str, int]
    table: list[dict[str, Any]]
    coco: dict[str, int]
    msrc: dict[str, int]
    rest: dict[str, Any]

    def number(self, name: str) -> int:
        """Return the number of a class.

        Raises:
            DataError: When there is no such class.
        """
        if name not in self.numbers:
            raise DataError(f"classes.yaml has no class {name!r}. {did_you_mean(name, self.numbers)}")
        return self.numbers[name]

    def silent(self, number: int) -> bool:
        """Return whether the class of a number makes no sound."""
        return bool(self.table[number - 1].get("silent", False))

    def sound(self, name: str) -> str:
        """Return our name of a sound class."""
        return str(self.rest["sound_names"].get(name, name))


@cache
def classes() -> Classes:
    """Read the class table."""
    tree = read("classes.yaml")
    table = tree.pop("classes")
    numbers = {row["name"]: place for place, row in enumerate(table, 1)}
    coco, msrc = (
        {name: numbers[row["name"]] for row in table for name in row.get(key, [])} for key in ("coco", "msrc")
    )
    return Classes(numbers, table, coco, msrc, tree)


def read(name: str) -> Any:
    """Return the content of a YAML file in the folder of this module."""
    return yaml.safe_load((HERE / name).read_text(encoding="utf-8"))


def write_classes(path: Path, sound_classes: Collection[str], instruments: Collection[str]) -> None:
    """Write ``classes.yaml`` of a stock.

    Args:
        path: File to write.
        sound_classes: Names of all sound classes of the stock.
        instruments: Names of all instruments.
    """
    kept = ("name", "sounds", "silent")
    table = [
        {"number": place, **{key: row[key] for key in kept if key in row}}
        for place, row in enumerate(classes().table, 1)
    ]
    seen = {sound for row in table for sound in row["sounds"]}
    sources = read("classes.yaml")["background_sources"]
    tree = {
        "classes": table,
        "background_sounds": {name: sources.get(name, []) for name in sorted(set(sound_classes) - seen)},
        "instruments": sorted(instruments),
    }
    path.write_text(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=120), encoding="utf-8")
