"""Command line ``avseg``: the table of commands, and the exit codes."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from avseg.commands import data, figures, lists, models, prediction, training
from avseg.commands._parser import command_table
from avseg.errors import AvsegError, AvsegWarning, ConfigError, did_you_mean
from avseg.signals import Terminated, terminating

VERBS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": training.train_verb,
    "eval": training.eval_verb,
    "bench": training.bench_verb,
    "predict": prediction.predict_verb,
    "app": prediction.app_verb,
    "live": prediction.live_verb,
    "profile": models.profile_verb,
    "convert": models.convert_verb,
    "export": models.export_verb,
    "models": lists.models_verb,
    "datasets": lists.datasets_verb,
    "recipes": lists.recipes_verb,
    "data": data.data_verb,
    "figures": figures.figures_verb,
}
"""Command → the function that runs it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``avseg COMMAND ...``.

    Args:
        argv: Arguments after ``avseg``; None takes those of the process.

    Returns:
        Exit code: 0 for success, 1 if some inputs of a batch failed, 2 for a user's mistake (reported in one line; with
        ``--debug`` the traceback is printed), 130 if interrupted, 143 after SIGTERM, 129 after
        SIGHUP.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    try:
        with terminating(), _notes():
            _dispatch([word for word in words if word != "--debug"])
        sys.stdout.flush()
    except (AvsegError, OSError) as error:
        if "--debug" in words:
            raise
        print(f"avseg: error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        print("avseg: interrupted", file=sys.stderr)
        return 130
    except Terminated as end:
        print(f"avseg: ended by {end.name}", file=sys.stderr)
        return end.number
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


@contextmanager
def _notes() -> Iterator[None]:
    """Print the warnings of avseg as notes of one line, without their place in the code."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, AvsegWarning):
                print(f"avseg: note: {message}", file=sys.stderr)
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield


def _prepare_streams() -> None:
    """Make any standard output usable: a closed one is replaced, characters that it cannot encode are escaped."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # noqa: PERF203 - else the next file that is opened would take its place and receive messages
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the process ends
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _dispatch(words: list[str]) -> None:
    verb = words[0] if words else "--help"
    if verb in ("-h", "--help"):
        print(command_table("COMMAND", VERBS))
    elif verb == "--version":
        print(f"avseg {version('avseg')}")
    elif verb in VERBS:
        VERBS[verb](_expand_short(words[1:]) if verb in ("train", "eval", "bench", "data", "figures") else words[1:])
    else:
        raise ConfigError(f"unknown command {verb!r}. {did_you_mean(verb, VERBS)}")


def _expand_short(words: list[str]) -> list[str]:
    """Replace ``--data synthetic`` by ``--data.name synthetic``, and ``--model`` in the same way."""
    return [re.sub(r"^--(data|model)(?==|$)", r"--\1.name", word) for word in words]
