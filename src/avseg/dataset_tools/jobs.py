"""Resumable jobs: each output is written atomically, and a job whose output exists is skipped."""

from collections.abc import Callable
from typing import NamedTuple


class Job(NamedTuple):
    """One job.

    Attributes:
        done: Return whether the output exists.
        make: Write the output.
    """

    done: Callable[[], bool]
    make: Callable[[], None]
