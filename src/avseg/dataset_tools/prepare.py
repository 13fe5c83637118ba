"""``avseg data prepare``: videos in, a data set out that training reads without decoding video.

What it is given decides what it makes: AVSBench's lists and raw videos become the released layout of S4 and MS3
(:mod:`avseg.dataset_tools.raw_avsbench`), your own videos and masks a data set ``folder``
(:mod:`avseg.dataset_tools.own_videos`).
"""

from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console
from rich.progress import track

from avseg.data.videos import Videos
from avseg.dataset_tools.jobs import Job
from avseg.dataset_tools.own_videos import OwnVideos
from avseg.dataset_tools.raw_avsbench import find_tables, jobs_of
from avseg.errors import AvsegError, ConfigError, DataError


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


def prepare(
    source: Path,
    out: Path | None = None,
    *,
    seconds: int = 10,
    classes: Literal["all", "one"] = "all",
    progress: bool = True,
) -> Prepared:
    """Make a data set of videos: AVSBench's raw ones, or your own with masks.

    A clip appears in the data set when all of it is written; the same call goes on after an interruption. A video that
    cannot be used does not keep the others from being prepared.

    Args:
        source: Folder of s4_meta_data.csv or ms3_meta_data.csv, or the one that holds Single-source and Multi-sources;
            or the root of a data set videos.
        out: Folder to write your own videos to; AVSBench's are prepared where they lie.
        seconds: Length of the clips that your own videos are cut into; 0 leaves them whole.
        classes: "all": those your masks have. "one": whatever is labelled sounds.
        progress: Show a bar.

    Raises:
        ConfigError: When ``out`` is missing, or given where there is no choice.
        DataError: When the folder holds nothing that can be prepared.
    """
    if tables := find_tables(source):
        if out is not None:
            raise ConfigError(f"AVSBench is prepared where it lies, beside its masks in {source}: leave -o out")
        return _run([job for table in tables for job in jobs_of(table)], source, progress)
    if not Videos.recognise(source):
        raise DataError(
            f"{source} holds no s4_meta_data.csv, no ms3_meta_data.csv, and no videos with masks or annotations: "
            "give the folder of AVSBench, or of your own videos"
        )
    if out is None:
        raise ConfigError("your own videos become a data set of their own: name its folder with -o")
    own = OwnVideos(Videos.Config(root=str(source), seconds=seconds, classes=classes), out)
    own.begin()
    prepared = _run(own.jobs(), out, progress)
    if not prepared.failed:
        own.finish()
    return prepared


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
