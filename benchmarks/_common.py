"""Command line, runs of an ``avseg bench``, and formatting of numbers over seeds, shared by several scripts."""

import dataclasses
import math
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avseg.bench.statistics import summary
from avseg.errors import AvsegError, ConfigError


def arguments(description: str | None) -> ArgumentParser:
    """Return a parser for ``RUNS OUT LABEL …``."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of an avseg bench")
    parser.add_argument("out", type=Path, help="prefix of the files to write")
    parser.add_argument("labels", nargs="+", metavar="LABEL", help="models of the bench")
    return parser


def seeds(runs: Path, labels: Sequence[str]) -> dict[str, list[Path]]:
    """Return label → folders of all seeds, in order.

    Raises:
        ConfigError: When a label has none.
    """
    found = {label: sorted((runs / label).glob("seed*")) for label in labels}
    if missing := [label for label, folders in found.items() if not folders]:
        known = sorted(folder.parent.name for folder in runs.glob("*/seed0"))
        raise ConfigError(f"{runs} has no runs of {missing}: choose labels from {known}")
    return found


def over_seeds(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Return mean, deviation and values of one number; None unless it is defined for all seeds."""
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return dataclasses.asdict(summary(defined)) if len(defined) == len(values) else None


def cell(found: Mapping[str, Any] | None) -> str:
    """Format mean ± deviation, times 100; without deviation for one seed, "-" for None."""
    if found is None:
        return "-"
    spread = "" if found["std"] is None else f" ± {100 * found['std']:.1f}"
    return f"{100 * found['mean']:.1f}{spread}"


@contextmanager
def mistakes_in_a_line() -> Iterator[None]:
    """End the script with one line and exit code 2 at a user's mistake."""
    try:
        yield
    except (AvsegError, OSError) as error:
        sys.stderr.write(f"{Path(sys.argv[0]).stem}: error: {error}\n")
        raise SystemExit(2) from error
