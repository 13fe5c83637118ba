"""Exceptions for mistakes of the user; each message gives the value, what was expected, and what to do."""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class AvsegError(Exception):
    """Base class of errors in the user's input. The command line prints the message, one line, and exits with 2.

    Attributes:
        exit_code: Exit code of the command line.
    """

    exit_code: ClassVar[int] = 2


class ConfigError(AvsegError):
    """A setting that does not exist or cannot work."""


class MediaError(AvsegError):
    """A video, picture or sound that cannot be used."""


class DataError(AvsegError):
    """A data set that is missing, incomplete or inconsistent."""


class CheckpointError(AvsegError):
    """Weights that cannot be read, or do not fit the model."""


class AvsegWarning(UserWarning):
    """A warning about the user's input. The command line prints it as a note in one line."""


class PartialFailure(AvsegError):  # noqa: N818 (it ends a batch that otherwise worked)
    """Some inputs of a batch failed, the others are done. The command line exits with 1."""

    exit_code = 1


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Suggest the closest choice, or list all of them.

    Args:
        word: The user's value.
        choices: The valid values.

    Returns:
        ``"Did you mean 'x'?"`` if one is close, else ``"Choose from: a, b."``.
    """
    choices = sorted(choices)
    if not choices:
        return "There are none to choose from."
    close = difflib.get_close_matches(word, choices, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Choose from: {', '.join(choices)}."
