"""Write a file or a folder completely or not at all.

New content is written inside a hidden folder beside the target, ``.<name>.partial``, and then renamed. After an
exception, a kill or a full disk, the target has its old content or its new content. The writer holds a lock on the
hidden folder, so that the next writer of the same target can tell the remains of a killed process, which it removes,
from a folder in use.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path

from avseg.errors import ConfigError, MediaError

TEMPORARY = ".partial"
"""Suffix of every temporary folder."""
_ASIDE = ".replaced"
"""Name in the temporary folder of a folder that is being replaced."""
_LONGEST_NAME = 200
"""Bytes of a name that are kept in that of its temporary folder; file systems allow 255 in all."""
_MOST_WRITERS = 16
"""Temporary folders of one target that are searched for remains."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path at which to write a file or a folder; it replaces ``path`` when the block ends.

    The temporary path has the name of ``path`` and does not exist. Missing parent folders are created. If the block
    raises, ``path`` stays as it is. Several processes may replace the same path: the last one wins.

    Args:
        path: The final path. A folder there is replaced as a whole.

    Raises:
        OSError: When the path cannot be written.
    """
    recover(path)
    with _workspace(path) as folder:
        yield folder / path.name
        _swap(folder, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the content of a file, see :func:`replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Replace the content of a file by ``text`` in UTF-8, see :func:`replacing`."""
    write_bytes(path, text.encode())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def replacing_folder(
    path: Path, contents: Collection[str], *, overwrite: bool = False, keep: Collection[Path] = ()
) -> Iterator[Path]:
    """Yield an empty temporary folder, which gets the name ``path`` when the block ends.

    The content of ``path`` is recorded at the start and compared right before the exchange: nothing that appeared or
    changed in between is deleted.

    Args:
        path: The final path. It must be free, an empty folder, or, with ``overwrite``, an earlier result.
        contents: Patterns of the files of a result, such as ``masks/*.png``. A folder that holds any other file is
            never replaced.
        overwrite: Replace an earlier result.
        keep: Files that must not lie inside ``path``, such as the input.

    Raises:
        ConfigError: When ``path`` must not be replaced, changes during the block, or is being written by another
            process.
        MediaError: When it cannot be written, such as for lack of space.
    """
    path = path.resolve()
    try:
        recover(path)
        before = _inspect(path, contents, overwrite, keep)
        with _workspace(path, exclusive=True) as folder:
            (folder / path.name).mkdir()
            yield folder / path.name
            if _inspect(path, contents, overwrite, keep) != before:
                raise ConfigError(f"{path} was changed by another program meanwhile: name another folder")
            _swap(folder, path)
    except OSError as error:
        raise MediaError(
            f"cannot write {path} ({error.strerror or error}): free space or name another folder"
        ) from error


def check_writable(path: Path, instead: str = "name another file") -> None:
    """Check that a file can be written, before the work whose result it will hold. Creates missing parent folders.

    Args:
        path: The file.
        instead: Advice at the end of the error.

    Raises:
        ConfigError: When ``path`` is a folder, or its parent cannot be created or written.
    """
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: it is a folder, name a file in it")
    try:
        with _workspace(path):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}, {instead}") from error


def recover(path: Path) -> None:
    """Remove what killed processes left of writing ``path``; put a folder back that one of them had moved aside.

    Raises:
        OSError: When the remains cannot be removed.
    """
    for number in range(_MOST_WRITERS):
        folder = _workspace_path(path, number)
        try:
            lock = _lock(folder)
        except OSError:  # there is none, or it is in use
            continue
        try:
            _restore(folder, path)
            shutil.rmtree(folder)
        finally:
            os.close(lock)


@contextmanager
def _workspace(path: Path, *, exclusive: bool = False) -> Iterator[Path]:
    """Yield the locked temporary folder of a target; remove it at the end, with what is still in it.

    Raises:
        ConfigError: With ``exclusive``, when another process writes the same target.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder, lock = _create(path, exclusive)
    try:
        yield folder
    finally:
        _restore(folder, path)
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _create(path: Path, exclusive: bool) -> tuple[Path, int | None]:
    """Create and lock the temporary folder with the lowest free number."""
    for number in count():
        folder = _workspace_path(path, number)
        try:
            folder.mkdir()
            lock = _lock(folder)
        except FileExistsError:
            if exclusive:
                advice = "wait for it, or name another folder"
                raise ConfigError(f"{path} is being written by another process: {advice}") from None
            continue
        except (BlockingIOError, FileNotFoundError):
            continue  # recover() of another process, between mkdir and lock, deletes it
        except OSError:
            if folder.is_dir():
                return folder, None  # the file system has no locks
            raise
        if folder.is_dir():
            return folder, lock
        os.close(lock)
    raise AssertionError("count() has no end")


def _workspace_path(path: Path, number: int) -> Path:
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}{f'.{number}' if number else ''}{TEMPORARY}")


def _lock(folder: Path) -> int:
    """Return a descriptor that holds the lock of a folder until it is closed.

    Raises:
        BlockingIOError: When another descriptor holds it.
        OSError: When there is no such folder, or the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _swap(folder: Path, path: Path) -> None:
    """Give the new file or folder in ``folder`` its name; an old folder is moved into ``folder``."""
    new = folder / path.name
    if new.is_file():
        with new.open("rb") as file:
            os.fsync(file.fileno())
    if path.is_dir():  # it cannot be renamed over, as a file can
        os.replace(path, folder / _ASIDE)
    os.replace(new, path)


def _restore(folder: Path, path: Path) -> None:
    """Put a folder back that was moved aside, if the new one has not taken its place."""
    if (folder / _ASIDE).exists() and not path.exists():
        os.replace(folder / _ASIDE, path)


def _inspect(
    path: Path, contents: Collection[str], overwrite: bool, keep: Collection[Path]
) -> frozenset[tuple[str, int, int]]:
    """Return name, inode and time of change of all files in ``path``.

    Raises:
        ConfigError: When ``path`` must not be replaced.
    """
    if not path.exists():
        return frozenset()
    if not path.is_dir():
        raise ConfigError(f"{path} is a file: name a folder for the results")
    if os.path.ismount(path):
        raise ConfigError(f"{path} is a mount point, which cannot be replaced: name a folder in it")
    found = {entry.relative_to(path).as_posix(): entry for entry in sorted(path.rglob("*"))}
    if found and not overwrite:
        raise ConfigError(f"{path} is not empty: name another folder, or say overwrite (--overwrite)")
    for file in keep:
        if path in file.resolve().parents:
            raise ConfigError(f"{path} holds the input {file.name}: name another folder")
    for name, entry in found.items():
        folder = entry.is_dir() and not entry.is_symlink()
        if not any(_matches(name, pattern, folder) for pattern in contents):
            raise ConfigError(f"{path} holds {name!r}, which is no result of avseg: name another folder")
    facts = {name: entry.lstat() for name, entry in found.items()}
    return frozenset((name, fact.st_ino, fact.st_mtime_ns) for name, fact in facts.items())


def _matches(name: str, pattern: str, folder: bool) -> bool:
    """Return whether a pattern is for this file, or for files in this folder."""
    parts, patterns = name.split("/"), pattern.split("/")
    if not (len(parts) < len(patterns) if folder else len(parts) == len(patterns)):
        return False
    return all(fnmatchcase(part, one) for part, one in zip(parts, patterns, strict=False))
