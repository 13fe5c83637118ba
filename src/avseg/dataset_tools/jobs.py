"""Resumable jobs: each output is written atomically, and a job whose output exists is skipped."""

from collections.abc import Callable
from typing import NamedTuple


class Job(NamedTuple):
    """One resumable job.

    Attributes:
        done: Returns whether the output exists.
        make: Writes the output.
    """

    done: Callable[[], bool]
    make: Callable[[], None]
