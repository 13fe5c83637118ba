"""What a user can do wrong, as exceptions: each message says what came, what was expected, what to do."""

import difflib
from collections.abc import Iterable


class AvsegError(Exception):
    """A mistake in what the user gave. The command line prints its one line and exits with code 2."""


class ConfigError(AvsegError):
    """A setting that does not exist or cannot work."""


class MediaError(AvsegError):
    """A video, picture or sound that cannot be used."""


class DataError(AvsegError):
    """A data set that is missing, incomplete or inconsistent."""


class CheckpointError(AvsegError):
    """Weights that cannot be read, or do not fit the model."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A sentence that names the closest choice, or all of them.

    Args:
        word: What the user wrote.
        choices: What would have been right.

    Returns:
        ``"Did you mean 'x'?"`` when one is close, else ``"Choose from: a, b."``.
    """
    choices = sorted(choices)
    if not choices:
        return "There is none to choose from."
    close = difflib.get_close_matches(word, choices, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Choose from: {', '.join(choices)}."
