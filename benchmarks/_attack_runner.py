"""Run hostile inputs in forked processes with limits, and classify how each one ends."""

import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avseg.errors import AvsegError

OUTCOMES = ("result", "line", "traceback", "unclear", "hang", "crash", "execution", "file lost")
"""Ends of a run; only the first two are right, see :class:`Outcome`."""
OWNED = "owned"
"""Name of the file that the code in a hostile pickle would create."""
_TRACEBACK = 70
_ALLOWED = 6 << 30
"""Bytes of address space of a run; torch alone maps about 2 GB."""


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        kind: Kind of input, a row of the table.
        name: Base file and number of the mutation: with the seed, enough to make the input again.
        prepare: Writes the input to an empty folder, in the parent process.
        act: Uses the input in that folder, in a forked process. A user's mistake is an AvsegError, OSError, or the
            exit code 2 of a command.
        seconds: Time limit.
    """

    kind: str
    name: str
    prepare: Callable[[Path], None]
    act: Callable[[Path], int | None]
    seconds: float = 60.0


@dataclass(frozen=True)
class Outcome:
    """End of a run.

    Attributes:
        case: The input.
        end: ``result``: exit code 0. ``line``: one line of avseg and exit code 2. ``traceback``: an exception that is
            no AvsegError. ``unclear``: another exit code, or more lines. ``hang``: the time limit was reached.
            ``crash``: killed by a signal. ``execution``: code of the input ran. ``file lost``: a file of the user is
            missing or changed.
        seconds: Duration.
        peak: Largest resident memory in MiB.
        message: Last line of the error output.
    """

    case: Case
    end: str
    seconds: float
    peak: int
    message: str


def run(case: Case, folder: Path) -> Outcome:
    """Run a case in a new folder, which is removed at the end."""
    inputs = folder / "input"
    inputs.mkdir(parents=True)
    case.prepare(inputs)
    before = _content(inputs)
    started = time.monotonic()
    child = os.fork()
    if not child:
        _child(case, inputs, folder / "messages")
    status, peak, late = _wait(child, started + case.seconds)
    seconds = time.monotonic() - started
    text = (folder / "messages").read_text(encoding="utf-8", errors="replace") if (folder / "messages").exists() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    end = "hang" if late else _end(status, lines)
    if (inputs / OWNED).exists():
        end = "execution"
    elif any(_content(inputs).get(name) != value for name, value in before.items()):
        end = "file lost"
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(case, end, seconds, peak, _message(lines))


def _end(status: int, lines: list[str]) -> str:
    if os.WIFSIGNALED(status):
        return "crash"
    code = os.WEXITSTATUS(status)
    if code == _TRACEBACK:
        return "traceback"
    if code == 2:
        return "line" if len(lines) == 1 and lines[0].startswith("avseg: error:") else "unclear"
    return "unclear" if code else "result"


def _message(lines: list[str]) -> str:
    """Return the last line, and the innermost line of avseg in a traceback."""
    places = [line.strip() for line in lines if line.startswith('  File "') and "avseg" in line.partition(", line")[0]]
    where = f" ({places[-1].rpartition('/')[2]})" if places else ""
    return f"{lines[-1][:200]}{where}" if lines else ""


def _wait(child: int, deadline: float) -> tuple[int, int, bool]:
    """Return the exit status, the peak in MiB, and whether the process was killed at the deadline."""
    late, pause = False, 0.002
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage.ru_maxrss // 1024, late
        if time.monotonic() > deadline and not late:
            os.kill(child, signal.SIGKILL)
            late = True
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def _content(folder: Path) -> dict[str, tuple[int, int]]:
    """Return path → size and modification time of the files in a folder."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _child(case: Case, inputs: Path, messages: Path) -> None:
    """Run the case and end the process; messages go to a file."""
    code = _TRACEBACK
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_ALLOWED, _ALLOWED))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        output = os.open(messages, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        silent = os.open(os.devnull, os.O_RDWR)
        for descriptor, target in ((silent, 0), (silent, 1), (output, 2)):
            os.dup2(descriptor, target)
        before = sys.stdout, sys.stderr  # kept, because their end would close the descriptors
        sys.stdout, sys.stderr = open(1, "w", encoding="utf-8"), open(2, "w", encoding="utf-8")  # noqa: SIM115
        os.chdir(inputs)
        code = _acted(case, inputs)
        sys.stderr.flush()
        del before
    finally:
        os._exit(code)


def _acted(case: Case, inputs: Path) -> int:
    """Return 0 for a result, 2 for a user's mistake, after printing its line, or the code of a traceback."""
    try:
        return case.act(inputs) or 0
    except (AvsegError, OSError) as error:
        sys.stderr.write(f"avseg: error: {error}\n")
        return 2
    except BaseException:
        traceback.print_exc()
        return _TRACEBACK
