"""Resumable jobs: each output is written atomically."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Job(NamedTuple):
    """One resumable job.

    Attributes:
        done: Returns whether the output exists.
        make: Writes the output.
    """

    done: Callable[[], bool]
    make: Callable[[], None]


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which is renamed to ``path`` if the ``with`` block succeeds.

    Leftovers of a killed run at the temporary path are removed first; an existing folder ``path`` is replaced.
    """
    beside = path.with_name(f".{path.stem}.part{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(beside)
    try:
        yield beside
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(beside, path)
    finally:
        _remove(beside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
