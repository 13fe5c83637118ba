"""``avseg data prepare``: convert videos to a data set that is read without decoding video.

AVSBench's lists and raw videos become the released layout of S4 and MS3 (:mod:`avseg.dataset_tools.raw_avsbench`),
your own videos and masks a data set ``folder`` (:mod:`avseg.dataset_tools.own_videos`).
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
    """Result of :func:`prepare`.

    Attributes:
        folder: Folder of the data set.
        made: Number of videos prepared.
        kept: Number of videos that were prepared before.
        failed: One line for each of the other videos.
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
    """Prepare a data set from videos: AVSBench's raw videos, or your own with masks.

    Clips are written atomically; the same call resumes after an interruption. A video that cannot be used does not
    stop the others.

    Args:
        source: Folder of s4_meta_data.csv or ms3_meta_data.csv, or the folder of Single-source and Multi-sources;
            or the root of a data set videos.
        out: Folder for your own videos; AVSBench is always prepared in its own folder.
        seconds: Length of the clips that your own videos are cut into; 0 makes each video one clip.
        classes: "all": the classes of your masks. "one": a single class, "sounding", for all labels.
        progress: Show a progress bar.

    Raises:
        ConfigError: When ``out`` is missing for your own videos, or given for AVSBench.
        DataError: When the folder has no videos that can be prepared.
    """
    if tables := find_tables(source):
        if out is not None:
            raise ConfigError(f"AVSBench is prepared in its own folder, {source}, with its masks: omit -o")
        return _run([job for table in tables for job in jobs_of(table)], source, progress)
    if not Videos.recognise(source):
        raise DataError(
            f"{source} holds no s4_meta_data.csv, no ms3_meta_data.csv, and no videos with masks or annotations: "
            "give the folder of AVSBench, or of your own videos"
        )
    if out is None:
        raise ConfigError("your own videos are written to a new data set: give its folder with -o")
    own = OwnVideos(Videos.Config(root=str(source), seconds=seconds, classes=classes), out)
    own.begin()
    prepared = _run(own.jobs(), out, progress)
    if not prepared.failed:
        own.finish()
    return prepared


def _run(jobs: list[Job], folder: Path, progress: bool) -> Prepared:
    left = [job for job in jobs if not job.done()]
    bar = track(left, "preparing", console=Console(stderr=True), transient=True, disable=not progress)
    errors = [_error(job) for job in bar]
    failed = tuple(error for error in errors if error is not None)
    return Prepared(folder, len(left) - len(failed), len(jobs) - len(left), failed)


def _error(job: Job) -> str | None:
    """Run the job; return its error in one line, or None."""
    try:
        job.make()
    except AvsegError as error:
        return str(error)
    return None
