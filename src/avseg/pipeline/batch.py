"""Predict many videos with one model: a folder per video, failures collected, finished videos skipped on request."""

import hashlib
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from avseg.errors import AvsegError, ConfigError, MediaError, PartialFailure
from avseg.files import recover, write_text
from avseg.interface import AVSModel
from avseg.outputs import choose_outputs, file_to_open, new_result, settings_of, write
from avseg.outputs.json import FILE, load_with_files
from avseg.pipeline.batch_page import MARK, page
from avseg.pipeline.outcome import Outcome
from avseg.pipeline.predict import Loaded, predict_command, predict_file, ready, recorded_options
from avseg.pipeline.result import Result
from avseg.pipeline.video_list import find_videos, names_many
from avseg.prediction.frame_stream import Options
from avseg.progress import VideosBar, videos_bar

DEFAULT_FOLDER = "predictions"
INDEX = "index.html"


@dataclass(frozen=True)
class _Job:
    """Settings that all videos of a batch share."""

    loaded: Loaded
    options: Options
    outputs: Mapping[str, Any]
    skip_done: bool
    overwrite: bool


class _StopError(Exception):
    """Ends the work on one video because the batch was interrupted."""


def predict_many(
    videos: str | Path | Iterable[str | Path],
    output: str | Path = DEFAULT_FOLDER,
    model: str | Path | AVSModel = "small",
    *,
    options: Options = Options(),
    device: str = "cpu",
    workers: int = 1,
    skip_done: bool = False,
    overwrite: bool = False,
    save: str | Iterable[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool = False,
    finished: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Segment the sounding objects of many videos with one loaded model.

    Every result is a folder in ``output``, written completely or not at all, with the name of the video without its
    suffix. If several videos have the same name, a hash of the path follows it. ``index.html`` lists the results.

    Args:
        videos: Files, patterns, folders and CSV lists, see :func:`avseg.pipeline.video_list.find_videos`.
        output: Folder for the results.
        model: A name, path or model, see :func:`avseg.predict`.
        options: Settings of the prediction: ``avseg.Options(fps=4)``.
        device: Device of the model.
        workers: Videos that are processed at the same time, in threads that share the model.
        skip_done: Skip videos whose folder has a result of the same video, not modified since, with the same model,
            weights, settings and at least the same outputs.
        overwrite: Replace earlier results.
        save: Outputs, see :func:`avseg.outputs.choose_outputs`; result.json is always one of them.
        settings: Output → its settings.
        progress: Show a progress display.
        finished: Called in this thread with the outcome of each video as soon as it is finished.

    Returns:
        One outcome per video, in the order of the videos. A video that cannot be used does not raise.

    Raises:
        ConfigError: When a setting is invalid, or ``output`` is not a folder, or holds a foreign ``index.html``.
        MediaError: When there is no video.
        CheckpointError: When the model cannot be loaded.
    """
    found = find_videos([videos] if isinstance(videos, str | Path) else videos)
    _check(found, workers)
    outputs = {"json": None, **choose_outputs(save, uncertainty=options.show == "uncertainty", settings=settings)}
    folder = Path(output)
    _check_folder(folder)
    job = _Job(ready(model, device, options.modes), options, outputs, skip_done, overwrite)
    outcomes: dict[Path, Outcome] = {}
    try:
        with closing(_run(job, _folders(found, folder), workers, progress)) as arriving:
            for outcome in arriving:
                outcomes[outcome.video] = outcome
                finished(outcome)
    finally:
        ordered = [outcomes[video] for video in found if video in outcomes]
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / INDEX, page(ordered, folder))
    return ordered


def _check(videos: Sequence[Path], workers: object) -> None:
    """Raise unless there is a video, and ``workers`` is a positive integer."""
    if not videos:
        raise MediaError("no video is given: name files, folders, CSV lists or patterns")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"workers must be a whole number, 1 or more, got {workers!r}")


def predict_videos(
    videos: Sequence[str], output: Path | None = None, workers: int = 1, skip_done: bool = False, **settings: Any
) -> None:
    """Run ``avseg predict``: one file as :func:`predict_command`, anything else as :func:`predict_many`.

    Args:
        videos: Words of the command line.
        output: Folder of the result, or of the results.
        workers: Videos at the same time.
        skip_done: Skip videos that have a result.
        **settings: Further arguments of both functions.

    Raises:
        AvsegError: As in both functions; PartialFailure when some of many videos failed.
    """
    if len(videos) == 1 and workers == 1 and not (skip_done or names_many(videos[0])):
        predict_command(Path(videos[0]), output, **settings)
        return
    folder, count = output or Path(DEFAULT_FOLDER), itertools.count(1)
    arguments = {"workers": workers, "skip_done": skip_done, "progress": True, **settings}
    outcomes = predict_many(videos, folder, **arguments, finished=lambda outcome: _print(next(count), outcome))
    _report(outcomes, folder / INDEX)


def _print(number: int, outcome: Outcome) -> None:
    console = Console(stderr=outcome.state == "failed", highlight=False)
    text = outcome.message or f"{outcome.state}, {len(outcome.intervals)} intervals"
    console.print(f"{number}: {escape(str(outcome.video))}: {escape(text)}", soft_wrap=True)


def _report(outcomes: Sequence[Outcome], index: Path) -> None:
    """Print the totals, and the failures again, which scrolled away; raise PartialFailure if there are any."""
    counts = Counter(outcome.state for outcome in outcomes)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    console.print(f"{counts['done']} done, {counts['skipped']} skipped, {len(failed)} failed", soft_wrap=True)
    console.print(f"open {escape(str(index))}", soft_wrap=True)
    for outcome in failed:
        errors.print(f"failed: {escape(str(outcome.video))}: {escape(outcome.message)}", soft_wrap=True)
    if failed:
        raise PartialFailure(
            f"{len(failed)} of {len(outcomes)} videos failed (listed above): repair or remove them, then give the same "
            "command with --skip_done"
        )


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a folder for the results")
    index = folder / INDEX
    if index.exists() and MARK not in index.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(f"{folder} holds an {INDEX} that is not of avseg: name another folder")


def _folders(videos: Sequence[Path], output: Path) -> list[tuple[Path, list[Path]]]:
    """Return each video with its folder and the other folder that an earlier batch may have used.

    Names are compared without case, because some file systems do.
    """
    count = Counter(video.stem.lower() for video in videos)
    rows = []
    for video in videos:
        plain = output / video.stem
        hashed = unique_folder(output, video)
        rows.append((video, [hashed, plain] if count[video.stem.lower()] > 1 else [plain, hashed]))
    return rows


def unique_folder(output: Path, video: Path) -> Path:
    """Return the folder of a video in ``output`` with a hash of its path in the name."""
    return output / f"{video.stem}-{hashlib.sha256(os.fsencode(video.resolve())).hexdigest()[:8]}"


def _run(
    job: _Job, rows: Sequence[tuple[Path, list[Path]]], workers: int, progress: bool
) -> Generator[Outcome, None, None]:
    """Yield outcomes as they come; at an exception, such as an interrupt, end the work on all videos first."""
    stop = threading.Event()
    with videos_bar(len(rows), shown=progress) as bar, _threads(workers) as pool:
        futures = [pool.submit(_one, job, video, folders, bar, stop) for video, folders in rows]
        try:
            for future in as_completed(futures):
                bar.finished()
                yield future.result()
        finally:
            stop.set()
            for future in futures:
                future.cancel()


@contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool whose threads share the processor's cores."""
    cores = torch.get_num_threads()
    share = max(1, cores // workers)
    try:
        with ThreadPoolExecutor(workers, "avseg", torch.set_num_threads, (share,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(cores)


def _one(job: _Job, video: Path, folders: Sequence[Path], bar: VideosBar, stop: threading.Event) -> Outcome:
    """Return the outcome of one video; every exception is a failure of this video only."""
    folder = folders[0]
    try:
        if job.skip_done and (done := _find_done(job, video, folders)):
            return done
        with bar.video(video.name) as show:

            def reached(what: str, time: float) -> None:
                if stop.is_set():
                    raise _StopError
                show(what, time)

            result = _predict(job, video, folder, reached)
        return Outcome(video, folder, "done", "", result.intervals, file_to_open(folder, job.outputs), result.captions)
    except _StopError:
        return Outcome(video, folder, "failed", "interrupted")
    except Exception as error:  # an error in one video must not end the batch
        return Outcome(video, folder, "failed", reason(error))


def reason(error: Exception) -> str:
    """Return an exception as one line, with its type unless it is a user's mistake or of the system."""
    expected = isinstance(error, AvsegError | OSError)
    return " ".join((str(error) if expected else f"{type(error).__name__}: {error}").split())


def _predict(job: _Job, video: Path, folder: Path, reached: Callable[[str, float], None]) -> Result:
    reached("waiting", 0.0)
    with new_result(folder, job.outputs, overwrite=job.overwrite, video=video) as partial:
        result = predict_file(video, job.loaded, job.options, lambda time: reached("predicting", time))
        write(result, partial, job.outputs, reached=lambda time: reached("writing", time))
    return result


def _find_done(job: _Job, video: Path, folders: Sequence[Path]) -> Outcome | None:
    """Return the outcome of an earlier run that is equal to what this one would write; None without one."""
    for folder in folders if video.is_file() else ():
        recover(folder.resolve())
        file = folder / FILE
        if not file.is_file() or file.stat().st_mtime < video.stat().st_mtime:
            continue
        try:
            result, written, settings = load_with_files(folder, Result)
        except MediaError:
            continue
        made_by = (result.model, result.weights_sha256, dict(result.options))
        wanted = (job.loaded.name, job.loaded.weights_sha256, recorded_options(job.options, job.loaded.device))
        same = made_by == wanted and settings_of(job.outputs).items() <= settings.items()
        if same and set(job.outputs) <= set(written) and result.source.resolve() == video.resolve():
            return Outcome(
                video, folder, "skipped", "", result.intervals, file_to_open(folder, job.outputs), result.captions
            )
    return None
