"""Kill a command that replaces a result, and check the files that it left."""

import os
import signal
import sys
import time
from pathlib import Path

from avseg.cli import main
from avseg.pipeline.result import Result


def killed_and_repeated(words: list[str], delay: float, blow: signal.Signals, folder: Path) -> int:
    """Kill a command that replaces a result; the old or the new result must be there, and the next run must work."""
    os.waitpid(_started(words), 0)
    child = _started(words)
    time.sleep(delay)
    os.kill(child, blow)
    os.waitpid(child, 0)
    _, status = os.waitpid(_started(words), 0)  # recovers what the killed process left
    complete = len(list((folder / "out/masks").iterdir())) == len(Result.load(folder / "out").frames)
    left = sorted({path.name for path in folder.iterdir()} - {"v.mkv", "model", "out"})
    if status or not complete or left:
        sys.stderr.write(f"status {status}, complete {complete}, left {left}\n")
    return 3 if status or not complete or left else 0


def _started(words: list[str]) -> int:
    """Fork a process that runs a command; return its id."""
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = main(words)
        finally:
            os._exit(code)
    return child
