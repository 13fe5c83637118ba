"""Progress bars: in seconds of one video, and in videos of a batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[str, float, float | None], None]
"""Called with the description of the work, the current time in seconds, and the duration in seconds, if known."""
_report: ContextVar[Report | None] = ContextVar("report", default=None)


@contextmanager
def observed(report: Report) -> Iterator[None]:
    """Call ``report`` with the progress of all work in this block, whether its bars are shown or not.

    An exception of ``report`` stops the work.
    """
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


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
    report = _report.get()
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as bar:
        of = "" if end is None else f" of {end:.1f}"
        task = bar.add_task(what, total=end, at=f"0.0{of} s")

        def reached(time: float) -> None:
            bar.update(task, completed=time, at=f"{time:.1f}{of} s")
            if report is not None:
                report(what, time, end)

        yield reached


class VideosBar:
    """Progress of a batch: videos that are finished, and the state of those in work. Its methods are thread-safe."""

    def __init__(self, bar: Progress, count: int) -> None:
        self._bar = bar
        self._all = bar.add_task(f"0 of {count} videos", total=count, at="")
        self._count = count

    @contextmanager
    def video(self, name: str) -> Iterator[Callable[[str, float], None]]:
        """Show a row for one video; yield a function to call with the work, in one word, and the time in seconds."""
        task = self._bar.add_task(escape(name), total=None, at="")
        try:
            yield lambda what, time: self._bar.update(task, at=f"{what}, {time:.1f} s")
        finally:
            self._bar.remove_task(task)

    def finished(self) -> None:
        """Count one more video as finished."""
        self._bar.advance(self._all)
        done = round(self._bar.tasks[0].completed)
        self._bar.update(self._all, description=f"{done} of {self._count} videos")


@contextmanager
def videos_bar(count: int, *, shown: bool) -> Iterator[VideosBar]:
    """Show the progress of a batch on standard error if that is a terminal.

    Args:
        count: Number of videos.
        shown: Show the bar.
    """
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[at]}"), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as bar:
        yield VideosBar(bar, count)
