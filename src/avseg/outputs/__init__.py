"""Outputs of a prediction, one kind per file; the file name is the name in ``avseg predict --save``."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from avseg.errors import ConfigError, MediaError
from avseg.media.video import pictures
from avseg.outputs._base import Output, OutputFrame, damage, matching
from avseg.prediction.record import Record
from avseg.progress import seconds_bar
from avseg.registry import Registry

__all__ = [
    "DEFAULT",
    "Output",
    "OutputFrame",
    "choose_outputs",
    "file_to_open",
    "list_outputs",
    "output_class",
    "patterns",
    "write",
]

OUTPUTS: Registry[Output] = Registry(__name__, "output", Output)
DEFAULT = ("overlay", "masks", "summary", "json")
"""Names of the outputs that are written by default; with uncertainty, also ``"uncertainty"``."""
_TO_OPEN = ("page", "overlay", "summary")
"""Outputs for a person, the most complete first."""
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


def choose_outputs(names: str | Iterable[str] | None, *, uncertainty: bool = False) -> tuple[str, ...]:
    """Return the names of the outputs to write, without duplicates.

    Args:
        names: Names, or one string with commas between them; None for the default.
        uncertainty: Whether the prediction has uncertainty.

    Raises:
        ConfigError: When a name is unknown, there is none, or uncertainty is chosen for a prediction without it.
    """
    if names is None:
        return (*DEFAULT, "uncertainty") if uncertainty else DEFAULT
    words = names.split(",") if isinstance(names, str) else names
    chosen = tuple(dict.fromkeys(word.strip() for word in words))
    if not chosen:
        raise ConfigError(f"no output is chosen: give some of {', '.join(list_outputs())}")
    for name in chosen:
        output_class(name)
    if "uncertainty" in chosen and not uncertainty:
        raise ConfigError("there is no uncertainty to save: add show uncertainty (--show uncertainty)")
    return chosen


def patterns(names: Iterable[str]) -> list[str]:
    """Return the patterns of all files of a result with these outputs, and of all outputs of this package."""
    return [pattern for name in {*OUTPUTS.own(), *names} for pattern in output_class(name).files]


def file_to_open(folder: Path, names: Sequence[str]) -> Path:
    """Return the file to look at first in the folder of a result with these outputs."""
    best = next((name for name in _TO_OPEN if name in names), names[0])
    found = matching(folder, output_class(best).files)
    return folder / found[0] if found else folder


def write(
    record: Record,
    folder: Path,
    names: Sequence[str],
    *,
    progress: bool = False,
    reached: Callable[[float], None] = lambda _: None,
) -> None:
    """Write outputs in one pass through the video.

    Args:
        record: The prediction.
        folder: Existing, empty folder.
        names: From :func:`choose_outputs`.
        progress: Show a progress bar.
        reached: Called with the time of each frame that is written.

    Raises:
        MediaError: When the video cannot be read.
    """
    with ExitStack() as stack:
        named = {name: stack.enter_context(output_class(name)(record, folder)) for name in names}
        outputs = list(named.values())
        show = stack.enter_context(seconds_bar("writing", record.end, shown=progress))
        for frame in _frames(record, any(output.reads_video for output in outputs)):
            for output in outputs:
                output.add(frame)
            show(frame.time)
            reached(frame.time)
        written: dict[str, list[str]] = {name: [] for name in names}
        # result.json lists the files of the page; the page links to result.json, whose name is fixed.
        for name, output in sorted(named.items(), key=lambda item: (item[1].finishes_last, item[0] == "json")):
            output.written = written
            output.finish()
            written[name] = output.own_files()


def _frames(record: Record, read: bool) -> Iterator[OutputFrame]:
    if not read:
        yield from (OutputFrame(record, index) for index in range(len(record.frames)))
        return
    shown = pictures(record.source, damage(record))
    for index, frame in enumerate(record.frames):
        picture = next(shown, None)
        if picture is None or picture.size != record.size or abs(picture.time - frame.time) > _TOLERANCE:
            raise _changed(record)
        yield OutputFrame(record, index, picture)
    if next(shown, None) is not None:
        raise _changed(record)


def _changed(record: Record) -> MediaError:
    return MediaError(
        f"{record.source} is not the video of this result, its frames have another size, number or time: predict it "
        "again, or save masks and json only"
    )
