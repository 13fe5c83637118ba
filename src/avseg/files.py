"""Write a file or a folder completely or not at all.

New content is written inside a hidden folder next to the target, ``.<name>.partial``, and then renamed. After an
exception, a kill or a full disk, the target has its old content or its new content. The writer holds a lock on the
hidden folder, so that the next writer of the same target can distinguish the remains of a killed process, which
it removes, from a folder in use.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from itertools import count, product
from pathlib import Path
from typing import NamedTuple

from avseg.errors import ConfigError, MediaError

TEMPORARY = ".partial"
"""Suffix of every temporary folder."""
_ASIDE = ".replaced"
"""Name in the temporary folder of the old content; suffix of a folder that could not be put back."""
_OLD, _ARRIVING = ".old", ".arriving"
"""Names in the temporary folder of the old content of a folder that stays, and of the new while it is moved in."""
_LONGEST_NAME = 200
"""Bytes of a name that are kept in that of its temporary folder; file systems allow 255 in all."""
_MOST_WRITERS = 16
"""Temporary folders of one target that are searched for remains."""


_LOCKS: set[int] = set()
"""Descriptors of the locks that this process holds."""


class _Fact(NamedTuple):
    """Properties of a file that change when it is written."""

    folder: bool
    inode: int
    size: int
    modified: int


_Facts = dict[str, _Fact]


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
    path: Path,
    contents: Collection[str],
    *,
    overwrite: bool = False,
    keep: Collection[Path] = (),
    listed: Callable[[Path], Collection[str]] | None = None,
) -> Iterator[Path]:
    """Yield an empty temporary folder, whose content is at ``path`` when the block ends.

    A new folder and an earlier result are exchanged by renaming. An empty folder, and a mount point, which cannot be
    renamed, stay and get the content. The content of ``path`` is recorded at the start and compared at the exchange:
    nothing that appeared or changed in between is deleted.

    Args:
        path: The final path. It must be free, an empty folder, or, with ``overwrite``, an earlier result.
        contents: Patterns of the files of a result, such as ``masks/*.png``. A folder that holds any other file is
            never replaced.
        overwrite: Replace an earlier result.
        keep: Files that must not lie inside ``path``, such as the input.
        listed: Function that returns the files which the result in a folder lists, as paths relative to it. Another
            file in a subfolder is not of the result, although its name has a pattern of ``contents``.

    Raises:
        ConfigError: When ``path`` must not be replaced, changes during the block, or is being written by another
            process.
        MediaError: When it cannot be written, such as for lack of space.
    """
    path = path.resolve()
    try:
        recover(path)
        inside = _stays(path)
        target = path / path.name if inside else path
        before = _inspect(path, contents, overwrite, keep, listed)
        with _workspace(target, owner=path) as folder:
            (folder / path.name).mkdir()
            yield folder / path.name
            _check_unchanged(path, path, before)
            if inside:
                _move_in(folder, path, before)
            else:
                _swap(folder, path, before)
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


@contextmanager
def locked(folder: Path, advice: str) -> Iterator[None]:
    """Hold the lock of a folder, which is created if missing; it ends with the block or the process.

    Args:
        folder: The folder. No file is written in it; on a file system without locks nothing is locked.
        advice: End of the error.

    Raises:
        ConfigError: When another process holds the lock.
        OSError: When the folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = None
    try:
        lock = _lock(folder)
    except BlockingIOError:
        raise ConfigError(f"another process writes to {folder}: {advice}") from None
    except OSError:  # the file system has no locks
        if not folder.is_dir():
            raise
    try:
        yield
    finally:
        if lock is not None:
            _unlock(lock)


def recover(path: Path) -> None:
    """Remove what killed processes left of writing ``path``; finish or undo an exchange that one of them had begun.

    Raises:
        OSError: When the remains cannot be removed.
    """
    inside = [path / path.name] if path.is_dir() else []
    for target, number in product((path, *inside), range(_MOST_WRITERS)):
        folder = _workspace_path(target, number)
        try:
            lock = _lock(folder)
        except OSError:  # there is none, or it is in use
            continue
        try:
            _settle(folder, target)
            shutil.rmtree(folder)
        finally:
            _unlock(lock)


@contextmanager
def _workspace(path: Path, *, owner: Path | None = None) -> Iterator[Path]:
    """Yield the locked temporary folder of a target; remove it at the end, with what is still in it.

    Raises:
        ConfigError: With ``owner``, the path for the message, when another process writes the same target.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder, lock = _create(path, owner)
    try:
        yield folder
    finally:
        try:
            _settle(folder, path)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            if lock is not None:
                _unlock(lock)


def _create(path: Path, owner: Path | None) -> tuple[Path, int | None]:
    """Create and lock the temporary folder with the lowest free number."""
    for number in count():
        folder = _workspace_path(path, number)
        try:
            folder.mkdir()
            lock = _lock(folder)
        except FileExistsError:
            if owner is not None:
                advice = f"wait for it, or name another folder (if there is none, delete {folder})"
                raise ConfigError(f"{owner} is being written by another process: {advice}") from None
            continue
        except (BlockingIOError, FileNotFoundError):
            continue  # recover() of another process, between mkdir and lock, deletes it
        except OSError:
            if folder.is_dir():
                return folder, None  # the file system has no locks
            raise
        if folder.is_dir():
            return folder, lock
        _unlock(lock)
    raise AssertionError("count() has no end")


def _workspace_path(path: Path, number: int) -> Path:
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}{f'.{number}' if number else ''}{TEMPORARY}")


def _lock(folder: Path) -> int:
    """Return a descriptor that holds the lock of a folder until :func:`_unlock`.

    Raises:
        BlockingIOError: When another descriptor holds it.
        OSError: When there is no such folder, or the file system has no locks.
    """
    _forget_locks_in_children()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    _LOCKS.add(descriptor)
    return descriptor


def _unlock(descriptor: int) -> None:
    _LOCKS.discard(descriptor)
    os.close(descriptor)


@cache
def _forget_locks_in_children() -> None:
    """Close the locks in forked processes, which may live a little longer than this one when it is killed."""

    def close() -> None:
        while _LOCKS:
            os.close(_LOCKS.pop())

    os.register_at_fork(after_in_child=close)


def _swap(folder: Path, path: Path, before: _Facts | None = None) -> None:
    """Give the new file or folder in ``folder`` its name; an old folder is moved into ``folder``.

    Raises:
        ConfigError: When the old folder differs from ``before``. It is put back by :func:`_settle`.
    """
    new = folder / path.name
    if new.is_file():
        with new.open("rb") as file:
            os.fsync(file.fileno())
    if path.is_dir():  # it cannot be renamed over, as a file can
        os.replace(path, folder / _ASIDE)
        if before is not None:
            _check_unchanged(folder / _ASIDE, path, before)
    os.replace(new, path)


def _move_in(folder: Path, path: Path, before: _Facts) -> None:
    """Replace the content of a folder that stays; :func:`_settle` undoes or finishes it after a kill.

    Raises:
        ConfigError: When the old content differs from ``before``.
        OSError: When a file cannot be moved.
    """
    (folder / _OLD).mkdir()
    for name in (name for name in before if "/" not in name):
        os.replace(path / name, folder / _OLD / name)
    _check_unchanged(folder / _OLD, path, before)
    os.replace(folder / path.name, folder / _ARRIVING)
    _arrive(folder, path)


def _arrive(folder: Path, path: Path) -> None:
    for new in list((folder / _ARRIVING).iterdir()):
        if os.path.lexists(path / new.name):
            raise FileExistsError(errno.EEXIST, f"another program has created {new.name!r}")
        os.replace(new, path / new.name)


def _settle(folder: Path, target: Path) -> None:
    """Finish or undo an exchange that was interrupted, so that ``folder`` holds nothing that is still needed."""
    if (folder / _ARRIVING).exists():
        _arrive(folder, target.parent)
    elif (folder / _OLD).exists():
        for old in list((folder / _OLD).iterdir()):
            os.replace(old, _free(target.parent / old.name))
    elif (folder / _ASIDE).exists() and (folder / target.name).exists():  # the new one has not taken its place
        os.replace(folder / _ASIDE, _free(target))


def _free(path: Path) -> Path:
    """Return the path, or if it exists, one that does not, with a suffix."""
    names = (path, *(path.with_name(f"{path.name}{_ASIDE}{n or ''}") for n in range(_MOST_WRITERS)))
    return next((name for name in names if not os.path.lexists(name)), names[-1])


def _stays(path: Path) -> bool:
    """Return whether a folder gets its content without being renamed."""
    return path.is_dir() and (os.path.ismount(path) or not any(_entries(path)) or not os.access(path.parent, os.W_OK))


def _entries(path: Path) -> list[Path]:
    """Return the files and folders in a folder, except temporary folders."""
    return [entry for entry in sorted(path.iterdir()) if not _is_workspace(entry.name)]


def _is_workspace(name: str) -> bool:
    return name.startswith(".") and name.endswith(TEMPORARY)


def _inspect(
    path: Path,
    contents: Collection[str],
    overwrite: bool,
    keep: Collection[Path],
    listed: Callable[[Path], Collection[str]] | None,
) -> _Facts:
    """Return the facts of all files in ``path``.

    Raises:
        ConfigError: When ``path`` must not be replaced.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file: name a folder for the results")
    found = _facts(path)
    if found and not overwrite:
        raise ConfigError(f"{path} is not empty: name another folder, or pass overwrite=True (--overwrite true)")
    for file in keep:
        if path in file.resolve().parents:
            raise ConfigError(f"{path} holds the input {file.name}: name another folder")
    for name, fact in sorted(found.items()):
        if not any(_matches(name, pattern, fact.folder) for pattern in contents):
            raise ConfigError(f"{path} holds {name!r}, which is no result of avseg: name another folder")
    deep = {name for name, fact in found.items() if "/" in name and not fact.folder}
    if deep and listed is not None and (others := sorted(deep - {*listed(path)})):
        raise ConfigError(f"{path} holds {others[0]!r}, which no result.json lists: delete it, or name another folder")
    return found


def _check_unchanged(folder: Path, path: Path, before: _Facts) -> None:
    """Compare the content of ``path``, which is now in ``folder``, with that of the start.

    Raises:
        ConfigError: When they differ.
    """
    changed = sorted(name for name, _ in _facts(folder).items() ^ before.items())
    if changed:
        raise ConfigError(f"{path} was changed by another program meanwhile ({changed[0]}): name another folder")


def _facts(path: Path) -> _Facts:
    """Return name → facts of all files and folders in a folder; empty if there is none."""
    found = {}
    for top in _entries(path) if path.is_dir() else ():
        for entry in (top, *(top.rglob("*") if top.is_dir() and not top.is_symlink() else ())):
            fact = entry.lstat()
            folder = stat.S_ISDIR(fact.st_mode)
            found[entry.relative_to(path).as_posix()] = _Fact(folder, fact.st_ino, fact.st_size, fact.st_mtime_ns)
    return found


def _matches(name: str, pattern: str, folder: bool) -> bool:
    """Return whether a pattern is for this file, or for files in this folder."""
    parts, patterns = name.split("/"), pattern.split("/")
    if not (len(parts) < len(patterns) if folder else len(parts) == len(patterns)):
        return False
    return all(fnmatchcase(part, one) for part, one in zip(parts, patterns, strict=False))
