"""Outputs of a prediction, one kind per file; the file name is the name in ``avseg predict --save``."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from avseg.errors import ConfigError, MediaError
from avseg.files import replacing_folder
from avseg.interface import make_config
from avseg.media.video import pictures
from avseg.outputs._base import Output, OutputFrame, damage, matching
from avseg.outputs.json import listed_files
from avseg.prediction.record import Record
from avseg.progress import seconds_bar
from avseg.registry import Registry
from avseg.threads import ahead

__all__ = [
    "DEFAULT",
    "Output",
    "OutputFrame",
    "choose_outputs",
    "file_to_open",
    "list_outputs",
    "new_result",
    "output_class",
    "patterns",
    "write",
]

OUTPUTS: Registry[Output] = Registry(__name__, "output", Output)
DEFAULT = ("overlay", "masks", "summary", "json")
"""Names of the outputs that are written by default; with uncertainty, also ``"uncertainty"``."""
_TO_OPEN = ("page", "overlay", "summary")
"""Outputs to view, the most complete first."""
_AHEAD = 4
"""Frames that are decoded in advance."""
_TOLERANCE = 1e-6
"""Seconds by which two decodings of a frame may differ in time."""


def list_outputs() -> list[str]:
    """Return the names for ``--save``."""
    return OUTPUTS.names()


def output_class(name: str) -> type[Output]:
    """Return the output of that name.

    Raises:
        ConfigError: When there is none, or it cannot be imported.
    """
    return OUTPUTS.find(name)


def choose_outputs(
    names: str | Iterable[str] | Mapping[str, Mapping[str, Any]] | None,
    *,
    uncertainty: bool = False,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the outputs to write: name → settings, a ``Config`` of the output, or None if it has none.

    Args:
        names: Names, or one string with commas between them, or a mapping of names to settings; None for the default.
        uncertainty: True if the prediction has uncertainty.
        settings: Output → its settings, of outputs that are chosen.

    Raises:
        ConfigError: When a name or a setting is unknown, there is no name, or uncertainty is chosen for a prediction
            without it.
    """
    if names is None:
        names = (*DEFAULT, "uncertainty") if uncertainty else DEFAULT
    words = [word.strip() for word in (names.split(",") if isinstance(names, str) else names)]
    settings = {**(names if isinstance(names, Mapping) else {}), **(settings or {})}
    chosen = {word: _config(word, settings.get(word, {})) for word in words}
    if not chosen:
        raise ConfigError(f"no output is chosen: give some of {', '.join(list_outputs())}")
    for name in settings.keys() - chosen.keys():
        raise ConfigError(f"{name} has settings, but is not written: add it to the outputs (--save {name})")
    if "uncertainty" in chosen and not uncertainty:
        raise ConfigError("there is no uncertainty to save: add show uncertainty (--show uncertainty)")
    return chosen


def _config(name: str, settings: Any) -> Any:
    """Return the settings of an output; ``settings`` are a mapping, or what this function has returned."""
    found = output_class(name)
    if found.Config is not None:
        return settings if isinstance(settings, found.Config) else make_config(found, settings or {})
    if settings:
        raise ConfigError(f"the output {name!r} has no settings, got {', '.join(settings)}")
    return None


def patterns(names: Iterable[str]) -> list[str]:
    """Return the glob patterns of the files of these outputs and of all built-in outputs."""
    return [pattern for name in {*OUTPUTS.own(), *names} for pattern in output_class(name).files]


def new_result(folder: Path, names: Iterable[str], *, overwrite: bool, video: Path) -> AbstractContextManager[Path]:
    """Return the context in which a result with these outputs is written, see :func:`avseg.files.replacing_folder`.

    An earlier result is only replaced if all its files are outputs, and those in subfolders are listed in its
    result.json.
    """
    return replacing_folder(folder, patterns(names), overwrite=overwrite, keep=[video], listed=listed_files)


def file_to_open(folder: Path, names: Iterable[str]) -> Path:
    """Return the file to open first in the folder of a result with these outputs."""
    best = min(names, key=lambda name: _TO_OPEN.index(name) if name in _TO_OPEN else len(_TO_OPEN))
    found = matching(folder, output_class(best).files)
    return folder / found[0] if found else folder


def write(
    record: Record,
    folder: Path,
    outputs: Mapping[str, Any],
    *,
    progress: bool = False,
    reached: Callable[[float], None] = lambda _: None,
) -> None:
    """Write outputs in one pass through the video.

    Args:
        record: The prediction.
        folder: Existing, empty folder.
        outputs: From :func:`choose_outputs`.
        progress: Show a progress bar.
        reached: Called with the time of each frame that is written.

    Raises:
        MediaError: When the video cannot be read.
    """
    with ExitStack() as stack:
        named = {name: stack.enter_context(_made(name, record, folder, config)) for name, config in outputs.items()}
        show = stack.enter_context(seconds_bar("writing", record.end, shown=progress))
        for frame in _frames(record, any(output.reads_video for output in named.values())):
            for output in named.values():
                output.add(frame)
            show(frame.time)
            reached(frame.time)
        written: dict[str, list[str]] = {name: [] for name in outputs}
        # The page is finished before result.json, which lists its files. The page can link to result.json before that
        # exists, since its name is fixed.
        for name, output in sorted(named.items(), key=lambda item: (item[1].finishes_last, item[0] == "json")):
            output.written, output.settings = written, settings_of(outputs)
            output.finish()
            written[name] = output.own_files()


def settings_of(outputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return name → settings as plain values, of the outputs from :func:`choose_outputs` that have settings."""
    return {name: dataclasses.asdict(config) for name, config in outputs.items() if config is not None}


def _made(name: str, record: Record, folder: Path, config: Any) -> Output:
    found: Any = output_class(name)
    made: Output = found(record, folder) if config is None else found(record, folder, config)
    return made


def _frames(record: Record, read: bool) -> Iterator[OutputFrame]:
    if not read:
        yield from (OutputFrame(record, index) for index in range(len(record.frames)))
        return
    shown = ahead(pictures(record.source, damage(record)), _AHEAD)
    for index, frame in enumerate(record.frames):
        picture = next(shown, None)
        if picture is None or picture.size != record.size or abs(picture.time - frame.time) > _TOLERANCE:
            raise _changed(record)
        yield OutputFrame(record, index, picture)
    if next(shown, None) is not None:
        raise _changed(record)


def _changed(record: Record) -> MediaError:
    return MediaError(
        f"{record.source} is not the video of this result: size, number or times of its frames differ. Predict it "
        "again, or save only masks and json"
    )
