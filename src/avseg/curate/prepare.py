"""``avseg data prepare``: videos in, a data set out that training reads without decoding video.

What it is given decides what it makes: AVSBench's lists and raw videos become the released layout of S4 and MS3
(:mod:`avseg.curate.raw_avsbench`).
"""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from avseg.curate.jobs import Job
from avseg.curate.raw_avsbench import find_tables, jobs_of
from avseg.errors import AvsegError, DataError


class Prepared(NamedTuple):
    """What was done.

    Attributes:
        folder: Where the data set is.
        made: Videos prepared.
        kept: Videos that were prepared before.
        failed: One line for each of the others.
    """

    folder: Path
    made: int
    kept: int
    failed: tuple[str, ...]


def prepare(source: Path, *, progress: bool = True) -> Prepared:
    """Make a data set of videos: AVSBench's raw ones.

    A video appears in the data set when all of it is written; the same call goes on after an interruption. One that
    cannot be used does not keep the others from being prepared.

    Args:
        source: Folder of s4_meta_data.csv or ms3_meta_data.csv, or the one that holds Single-source and Multi-sources.
        progress: Show a bar.

    Raises:
        DataError: When the folder holds nothing that can be prepared.
    """
    tables = find_tables(source)
    if not tables:
        raise DataError(f"{source} holds no s4_meta_data.csv or ms3_meta_data.csv: give AVSBench's folder")
    return _run([job for table in tables for job in jobs_of(table)], source, progress)


def _run(jobs: list[Job], folder: Path, progress: bool) -> Prepared:
    left = [job for job in jobs if not job.done()]
    bar = track(left, "preparing", console=Console(stderr=True), transient=True, disable=not progress)
    complaints = [_complaint(job) for job in bar]
    failed = tuple(complaint for complaint in complaints if complaint is not None)
    return Prepared(folder, len(left) - len(failed), len(jobs) - len(left), failed)


def _complaint(job: Job) -> str | None:
    """Do the job; what keeps it from being done in one line."""
    try:
        job.make()
    except AvsegError as error:
        return str(error)
    return None
