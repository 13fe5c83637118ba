"""Predict one video with several models, for ``avseg app``."""

import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from avseg.app.sessions import Sessions
from avseg.errors import AvsegError, MediaError
from avseg.media.video import probe
from avseg.outputs import choose_outputs, write
from avseg.pipeline.predict import predict_file, ready
from avseg.prediction.frame_stream import Options

Progress = Callable[[float, str], None]
"""Called with the share of the work that is done, 0..1, and with a description of the current step."""
_STEPS = ("predicting", "writing")


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
        models: Names or folders of the models.
        outputs: Names of the outputs; ``page`` is always written.
        fps: Samples per second of video.
        silence: Accept a video without a sound track.
        uncertainty: Estimate the uncertainty, with models that can.
        settings: Output → its settings.
        device: Device of the models.
    """

    models: Sequence[str]
    outputs: Sequence[str] = ()
    fps: float = 1.0
    silence: bool = False
    uncertainty: bool = False
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    device: str = "cpu"

    def chosen_outputs(self) -> dict[str, Any]:
        """Return the outputs to write, see :func:`avseg.outputs.choose_outputs`.

        Raises:
            ConfigError: When a setting is invalid.
        """
        names = ["page", *self.outputs]
        return choose_outputs(names, uncertainty=self.uncertainty, settings=self.settings)


@dataclass(frozen=True)
class Outcome:
    """Result of one model.

    Attributes:
        model: Name of the model.
        page: Its page, as a path in the folder of the run; None after an error.
        archive: A zip file with all its outputs, in the same form.
        error: Reason in one line; None without an error.
    """

    model: str
    page: str | None = None
    archive: str | None = None
    error: str | None = None


class StoppedError(Exception):
    """The user has stopped the run, or left."""


def run(sessions: Sessions, user: str, settings: Settings, progress: Progress) -> tuple[str, list[Outcome]]:
    """Predict the upload of a user with every model, and delete it.

    The error of one model does not stop the others, unless the video itself cannot be used.

    Args:
        sessions: Files of the users.
        user: Key of the user.
        settings: Settings.
        progress: Called with the progress.

    Returns:
        The name of the folder for :meth:`Sessions.find`, and the outcome of each model.

    Raises:
        MediaError: When there is no upload.
        StoppedError: When the user has stopped the run.
    """
    video = sessions.take(user)
    try:
        token = sessions.begin(user)
        outcomes: list[Outcome] = []
        for number in range(len(settings.models)):
            outcome, usable = _attempt(sessions, token, video, number, settings, progress)
            outcomes.append(outcome)
            if not usable:
                break
    finally:
        shutil.rmtree(video.parent, ignore_errors=True)
    sessions.expire(token)
    return token, outcomes


def _attempt(
    sessions: Sessions, token: str, video: Path, number: int, settings: Settings, progress: Progress
) -> tuple[Outcome, bool]:
    """Return the outcome of one model, and whether the video can be used with another one."""
    try:
        return _run_model(sessions, token, video, number, settings, progress), True
    except (AvsegError, OSError) as error:
        if not sessions.active(token):  # its folder has been deleted
            raise StoppedError from error
        return Outcome(settings.models[number], error=str(error)), not isinstance(error, MediaError)


def _run_model(
    sessions: Sessions, token: str, video: Path, number: int, settings: Settings, progress: Progress
) -> Outcome:
    model = settings.models[number]
    name = f"{number + 1}_{Path(model).name}"
    folder = sessions.folder(token) / name
    length = probe(video).duration or 0.0

    def report(step: str, time: float) -> None:
        if not sessions.active(token):
            raise StoppedError
        share = min(time / length, 1.0) if length else 0.0
        progress((number + (_STEPS.index(step) + share) / len(_STEPS)) / len(settings.models), f"{model}: {step}")

    report("predicting", 0.0)
    options = Options(
        settings.fps,
        missing_audio="silence" if settings.silence else "error",
        show="uncertainty" if settings.uncertainty else "masks",
    )
    result = predict_file(video, ready(model, settings.device), options, partial(report, "predicting"))
    folder.mkdir()
    write(result, folder, settings.chosen_outputs(), reached=partial(report, "writing"))
    archive = f"{video.stem}_{name}.zip"
    _pack(folder, sessions.folder(token) / archive)
    return Outcome(model, f"{name}/page.html", archive)


def _pack(folder: Path, archive: Path) -> None:
    """Write the files of a folder to a zip file, uncompressed: videos and images are compressed already."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            target.write(file, file.relative_to(folder.parent))
