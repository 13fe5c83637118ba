"""Run hostile inputs in processes with limits, and classify how each one ends.

The parent imports avseg and forks a process for each input, because the imports take seconds. FFmpeg and torch may not
be used in the parent: the threads that they start are missing in a forked process.
"""

import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from avseg.cli import main
from avseg.errors import AvsegError

T = TypeVar("T")
OUTCOMES = ("result", "line", "traceback", "unclear", "hang", "crash", "execution", "file lost", "memory")
"""Ends of a run; only the first two are right, see :class:`Outcome`."""
OWNED = "owned"
"""Name of the file that the code in a hostile pickle would create."""
REPLACED = "out/result.json"
"""The only file of an input that avseg may replace: the result of an earlier run."""
_TRACEBACK = 70
_ALLOWED = 6 << 30
"""Bytes of address space of a run; torch alone maps about 2 GB."""
_MOST_MIB = 2048
"""Largest resident memory of a run that is right."""
_PATIENCE = 5
"""Real time per processor time: other programs use the processor too."""
_BENCHMARKS = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        kind: Kind of input, a row of the table.
        number: Number of the mutation: with the seed, enough to make the input again.
        prepare: Writes the input to an empty folder, in the parent process.
        act: Words after ``avseg`` of a command that is run in that folder, or a function of the Python API. A user's
            mistake is the exit code 2 of a command, an AvsegError or an OSError.
        base: The file that was mutated, if there are several.
        seconds: Limit of processor time; the limit of real time is :data:`_PATIENCE` times as long.
        new: Start a new ``python -m avseg`` instead of a fork.
    """

    kind: str
    number: int
    prepare: Callable[[Path], None]
    act: tuple[str, ...] | Callable[[Path], int | None]
    base: str = ""
    seconds: float = 60.0
    new: bool = False

    @property
    def way(self) -> str:
        """Return how the input is used: by a function, a command in a forked process, or in a new process."""
        return "function" if callable(self.act) else "new process" if self.new else "command"


@dataclass(frozen=True)
class Outcome:
    """End of a run.

    Attributes:
        kind: See :class:`Case`.
        number: See :class:`Case`.
        base: See :class:`Case`.
        way: See :class:`Case`.
        end: ``result``: exit code 0. ``line``: one line of avseg and exit code 2. ``traceback``: an exception that is
            no AvsegError. ``unclear``: another exit code, or more lines. ``hang``: a time limit was reached.
            ``crash``: killed by a signal. ``execution``: code of the input ran. ``file lost``: a file of the user is
            missing or changed. ``memory``: more than 2 GiB.
        seconds: Duration.
        processor: Processor time in seconds.
        peak: Largest resident memory in MiB.
        message: Last line of the error output.
    """

    kind: str
    number: int
    base: str
    way: str
    end: str
    seconds: float
    processor: float
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
    status, peak, processor, late = _wait(child, case.seconds)
    _kill(child)  # processes that it started
    seconds = time.monotonic() - started
    text = (folder / "messages").read_text(encoding="utf-8", errors="replace") if (folder / "messages").exists() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    end = "hang" if late else _end(status, lines)
    if peak > _MOST_MIB and end in OUTCOMES[:2]:
        end = "memory"
    if (inputs / OWNED).exists():
        end = "execution"
    elif any(_content(inputs).get(name) != value for name, value in before.items()):
        end = "file lost"
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(
        case.kind, case.number, case.base, case.way, end, round(seconds, 2), processor, peak, _message(lines)
    )


def _end(status: int, lines: list[str]) -> str:
    if os.WIFSIGNALED(status):
        return "crash"
    code = os.WEXITSTATUS(status)
    if code == _TRACEBACK or any(line.startswith("Traceback (most recent call last)") for line in lines):
        return "traceback"
    if code == 2:
        errors = sum(line.startswith("avseg: error:") for line in lines)
        return "line" if errors == 1 and all(line.startswith("avseg: ") for line in lines) else "unclear"
    return "unclear" if code else "result"


def _message(lines: list[str]) -> str:
    """Return the last line, and the innermost line of avseg in a traceback."""
    places = [line.strip() for line in lines if line.startswith('  File "') and "avseg" in line.partition(", line")[0]]
    where = f" ({places[-1].rpartition('/')[2]})" if places else ""
    return f"{lines[-1][:200]}{where}" if lines else ""


def _wait(child: int, limit: float) -> tuple[int, int, float, bool]:
    """Return the exit status, peak in MiB, processor time, and whether the process was killed at a limit of time."""
    late, pause, deadline = False, 0.002, time.monotonic() + _PATIENCE * limit
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage.ru_maxrss // 1024, round(usage.ru_utime + usage.ru_stime, 2), late
        if not late and (time.monotonic() > deadline or _processor(child) > limit):
            _kill(child)
            late = True
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def _processor(child: int) -> float:
    """Return the processor time of a process in seconds."""
    fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _content(folder: Path) -> dict[str, tuple[int, int]]:
    """Return path → size and modification time of the files in a folder."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / REPLACED
    }


def _child(case: Case, inputs: Path, messages: Path) -> None:
    """Run the case and end the process; messages go to a file."""
    code = _TRACEBACK
    try:
        os.setsid()
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
    """Return the exit code of a command; of a function 0 for a result, 2 for a mistake, after printing its line."""
    try:
        if case.new and not callable(case.act):
            os.environ["PYTHONPATH"] = os.pathsep.join(path for path in (str(_BENCHMARKS), *sys.path) if path)
            os.execv(sys.executable, [sys.executable, "-m", "avseg", *case.act])
        if not callable(case.act):
            return main(case.act)
        warnings.simplefilter("ignore")  # a matter of the caller
        return case.act(inputs) or 0
    except (AvsegError, OSError) as error:
        sys.stderr.write(f"avseg: error: {error}\n")
        return 2
    except BaseException:
        traceback.print_exc()
        return _TRACEBACK


def in_process(function: Callable[[], T]) -> T:
    """Return the value of a function that may use FFmpeg or torch, from a forked process."""
    with tempfile.TemporaryFile() as file:
        child = os.fork()
        if not child:
            try:
                pickle.dump(function(), file)
                file.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        file.seek(0)
        return pickle.load(file)  # type: ignore[no-any-return]  # noqa: S301 - written above
