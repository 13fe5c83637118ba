"""A folder of results that is there completely or not at all."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from avseg.errors import ConfigError, MediaError


@contextmanager
def fresh_folder(path: Path, contents: Collection[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which gets its name when the ``with`` block ends well and vanishes when it does not.

    Args:
        path: The name it shall get.
        contents: Names of what is going to be written. A folder that holds anything else is never overwritten.
        overwrite: Replace an earlier folder of that name.

    Raises:
        ConfigError: When the name is taken.
        MediaError: When the folder cannot be written, or the disk is full.
    """
    path = path.resolve()
    _check(path, contents, overwrite)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    except OSError as error:
        raise MediaError(
            f"cannot write {path} ({error.strerror or error}): free space or name another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(path: Path, contents: Collection[str], overwrite: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise ConfigError(f"{path} is a file: name a folder for the results")
    found = {entry.name for entry in path.iterdir()}
    if found and not overwrite:
        raise ConfigError(f"{path} is not empty: name another folder, or say overwrite (--overwrite)")
    if strangers := sorted(found - set(contents)):
        raise ConfigError(f"{path} holds {strangers[0]!r}, which is no result of avseg: name another folder")
