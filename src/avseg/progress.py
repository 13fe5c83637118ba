"""Progress bar in seconds of video."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def seconds_bar(what: str, end: float | None, *, shown: bool) -> Iterator[Callable[[float], None]]:
    """Show a progress bar on standard error if that is a terminal.

    Args:
        what: Description of the work, in one word.
        end: Duration of the video in seconds, if known.
        shown: Show the bar.

    Yields:
        A function to call with the current time in seconds.
    """
    columns = TextColumn("{task.description:>10}"), BarColumn(), TextColumn("{task.fields[at]}"), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as bar:
        of = "" if end is None else f" of {end:.1f}"
        task = bar.add_task(what, total=end, at=f"0.0{of} s")
        yield lambda time: bar.update(task, completed=time, at=f"{time:.1f}{of} s")
