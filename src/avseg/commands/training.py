"""``avseg train``, ``eval`` and ``bench``."""

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from avseg.commands._parser import add_data, command_parser, parsed, training_data


def train_verb(argv: Sequence[str]) -> None:
    """Train a model on a data set."""
    from avseg.config import read_run

    run = read_run(argv)
    from avseg.training.train import train

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with _advising("resume with the same command and --train.resume auto"):
        folder = train(run, progress=sys.stdout.isatty())
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"avseg: trained, see {folder}")


def eval_verb(argv: Sequence[str]) -> None:
    """Score a model, with the clips' own audio and with negative audio."""
    parser = command_parser("eval", "avseg.evaluation.evaluate:evaluate_checkpoint", skip={"data", "out", "progress"})
    parser.add_argument("-o", "--out", type=Path | None, help="JSON file to write.")
    add_data(parser, argv, training_data(argv))
    given = parsed(parser, argv)
    from avseg.evaluation.evaluate import evaluate_checkpoint

    evaluate_checkpoint(**given, progress=sys.stderr.isatty())


def bench_verb(argv: Sequence[str]) -> None:
    """Train several models with the same recipe and number of steps, and compare them."""
    from avseg.bench.plan import read_plan

    plan = read_plan(argv)
    from avseg.bench.bench import bench

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with _advising("resume with the same command"):
        bench(plan, shlex.join(["avseg", "bench", *argv]), progress=sys.stderr.isatty())
    print(f"avseg: wrote {plan.results / plan.name}.json, .md, .png")


@contextmanager
def _advising(advice: str) -> Iterator[None]:
    """Print one line with an advice when a command is interrupted or terminated, and keep the exit code."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as end:
        code = 130 if isinstance(end, KeyboardInterrupt) else end.code
        if code:  # --help exits with 0
            print(f"avseg: stopped; {advice}", file=sys.stderr)
        raise SystemExit(code) from None
