"""The command line: a table from verb to function; each function loads what it needs when it is called."""

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from avseg.errors import AvsegError, ConfigError, did_you_mean


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``avseg VERB ...``.

    Args:
        argv: The words after ``avseg``; None takes them from the shell.

    Returns:
        The exit code: 0 done, 2 a mistake of the user (told in one line; ``--debug`` shows where it was found), 130
        interrupted, 143 terminated.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        _dispatch([word for word in words if word != "--debug"])
    except AvsegError as error:
        if debug:
            raise
        print(f"avseg: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("avseg: interrupted", file=sys.stderr)
        return 130
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
    elif words[0] == "--version":
        print(f"avseg {version('avseg')}")
    elif words[0] in VERBS:
        VERBS[words[0]](words[1:])
    else:
        raise ConfigError(f"unknown command {words[0]!r}. {did_you_mean(words[0], VERBS)}")


def _help() -> str:
    rows = [f"  {verb:10}{(function.__doc__ or '').splitlines()[0]}" for verb, function in VERBS.items()]
    return "\n".join(["usage: avseg COMMAND ... (avseg COMMAND --help says more)", "", *rows])


def train(argv: Sequence[str]) -> None:
    """Train a model on a data set."""
    from avseg.config import read_run

    run = read_run(argv)
    from avseg.train import train

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        folder = train(run, progress=sys.stdout.isatty())
    except SystemExit:
        print("avseg: stopped; the same command with --train.resume auto goes on", file=sys.stderr)
        raise
    print(f"avseg: trained, see {folder}")


def models(argv: Sequence[str]) -> None:
    """List the models."""
    from avseg.models import list_models

    print("\n".join(list_models()))


def datasets(argv: Sequence[str]) -> None:
    """List the data sets."""
    from avseg.data import list_datasets

    print("\n".join(list_datasets()))


VERBS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": train,
    "models": models,
    "datasets": datasets,
}
