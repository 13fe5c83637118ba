"""Work in pieces, each of which is there completely or not at all, so that an interrupted run goes on."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Job(NamedTuple):
    """One piece.

    Attributes:
        done: Whether it is there already.
        make: Makes it.
    """

    done: Callable[[], bool]
    make: Callable[[], None]


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A name beside to write a file or folder under; it becomes ``path`` when the ``with`` block ends well.

    What a killed run left under that name is removed first, and an incomplete folder of the final name last.
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
