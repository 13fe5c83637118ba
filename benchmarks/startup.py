"""Measure the start of the command line: ``python benchmarks/startup.py OUT.json [--rounds 5]``.

Each command runs in a process of its own. Processor time (user and system) counts all threads and depends little on
other processes. ``predict`` is measured on a video of one second, with the modules that it imports and the wall time
until its first output on a terminal.
"""

import os
import pty
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path

from avseg.cli import VERBS
from avseg.provenance import provenance, write_result
from predict_speed import EXAMPLE, repeated

LISTS = ("models", "datasets", "recipes")
UNWANTED = ("lightning", "tensorboard", "matplotlib", "torchmetrics")
"""Packages that ``predict --save masks,json`` must not import."""


def commands() -> list[list[str]]:
    """Return the words of every command that must start fast: the lists, and the help of every verb."""
    return [["--help"], *([name] for name in LISTS), *([verb, "--help"] for verb in VERBS)]


def seconds(words: list[str]) -> float:
    """Return the processor time of ``python -m avseg WORDS``.

    Raises:
        CalledProcessError: When the command fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "avseg", *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def row(words: list[str], rounds: int) -> dict[str, object]:
    """Return median and range of the processor time of a command; the first run only fills the caches."""
    found = [seconds(words) for _ in range(rounds + 1)][1:]
    numbers = {"cpu": statistics.median(found), "lowest": min(found), "highest": max(found)}
    return {"command": shlex.join(["avseg", *words]), **{name: round(value, 2) for name, value in numbers.items()}}


def predict_words(folder: Path) -> list[str]:
    """Return ``predict --save masks,json`` of a video of one second, written to ``folder``."""
    video = repeated(EXAMPLE, folder / "one_second.mp4", 1.0)
    return ["predict", str(video), "-o", str(folder / "out"), "--save", "masks,json", "--overwrite", "true"]


def imported(words: list[str]) -> list[str]:
    """Return the packages of ``UNWANTED`` that a command imports."""
    code = f"import sys; from avseg.cli import main; main({words!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return sorted({*UNWANTED} & {*done.stdout.splitlines()[-1].split()})


def first_line(words: list[str]) -> float:
    """Return the wall time in seconds from the start of a command to its first output on a terminal."""
    ours, its = pty.openpty()
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "avseg", *words], stdout=its, stderr=its) as process:
        os.read(ours, 1)
        seconds = time.perf_counter() - start
        os.close(its)
        with suppress(OSError):  # raised at the end of the output
            while os.read(ours, 4096):
                pass
        process.wait()
    os.close(ours)
    return seconds


def main(argv: list[str]) -> None:
    """Measure and write."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        words = predict_words(Path(temporary))
        predict = row(words, given.rounds) | {"command": "avseg predict one_second.mp4 --save masks,json"}
        predict["unwanted_imports"] = imported(words)
        predict["first_line"] = round(statistics.median(first_line(words) for _ in range(given.rounds)), 2)
    command = shlex.join(["python", "benchmarks/startup.py", given.out.name, "--rounds", str(given.rounds)])
    numbers = [*(row(each, given.rounds) for each in commands()), predict]
    write_result(given.out, provenance(command) | {"config": {"rounds": given.rounds}, "numbers": numbers})


if __name__ == "__main__":
    main(sys.argv[1:])
