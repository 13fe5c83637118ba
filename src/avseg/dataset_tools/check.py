"""``avseg data check``: check that a data set on disk is complete and readable, and print the settings that load it.

All faults are listed, not only the first. Files that are in no list are listed too, but are not faults.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from avseg.dataset_tools.inspection import Report, Settings, examine
from avseg.errors import ConfigError, DataError
from avseg.files import write_text

_SHOWN = 20
"""Lines printed on the screen; the output file has all."""
_KINDS = ("frames", "masks", "sounds")


def check(path: Path, *, out: Path | None = None, progress: bool = True) -> str:
    """Read every file of a data set; list all faults and the settings that load it.

    Args:
        path: Folder of a data set, or the folder above several.
        out: Text file to write, one line per fault; the screen shows the first ones.
        progress: Show a progress bar.

    Returns:
        One line with the settings that load the data set.

    Raises:
        DataError: When no data set is recognised, or one of those found cannot be used.
        ConfigError: When ``out`` cannot be written.
    """
    reports = examine(path, progress=progress)
    lines = list(dict.fromkeys(line for report in reports for line in _lines(report)))
    titles = _titles([report.settings for report in reports])
    console = Console()
    for report, title in zip(reports, titles, strict=True):
        console.print(table(report, title))
    if out is not None:
        _write(out, lines)
    more = f"… and {len(lines) - _SHOWN} more lines: {out or '-o FILE writes all'}"
    for line in [*lines[:_SHOWN], *[more] * (len(lines) > _SHOWN)]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    order = sorted(zip(reports, titles, strict=True), key=lambda named: not named[0].faults)
    verdicts = "; ".join(_verdict(report, title) for report, title in order)
    if any(report.faults for report in reports):
        raise DataError(f"{path} {verdicts}")
    return f"{path} {verdicts}"


def table(report: Report, title: str) -> Table:
    """Return a table of files per split, with the published sizes."""
    shown = Table(title=escape(title))
    for heading in ("split", "clips", "published", *_KINDS, "faults"):
        shown.add_column(heading, justify="left" if heading == "split" else "right")
    for name, split in report.splits.items():
        published = "-" if split.published is None else str(split.published)
        files = [_part(split.readable[kind], split.listed[kind]) for kind in _KINDS]
        shown.add_row(name, str(split.clips), published, *files, str(len(split.faults)))
    return shown


def _lines(report: Report) -> list[str]:
    """Return faults first, then empty splits and strays."""
    faults = report.faults
    absent = [split.absent for split in report.splits.values() if split.absent]
    return [*faults, *absent, *(f"{path} is in no list" for path in report.strays)]


def _titles(found: Sequence[Settings]) -> list[str]:
    """Return the name of each data set, with the settings that differ if several have the same name."""

    def title(settings: Settings) -> str:
        same = [other for other in found if other["name"] == settings["name"]]
        distinct = [v for k, v in settings.items() if isinstance(v, str) and any(o.get(k) != v for o in same)]
        return " ".join([settings["name"], *distinct])

    return [title(settings) for settings in found]


def _verdict(report: Report, title: str) -> str:
    faults = len(report.faults)
    if faults:
        return f"cannot be used as {title}: {faults} fault{'s' * (faults != 1)}, see above"
    listed = [split for split in report.splits.values() if split.published is not None]
    clips, published = sum(split.clips for split in listed), sum(split.published or 0 for split in listed)
    part = "" if clips == published else f" ({clips} of {published} published clips)"
    settings = yaml.safe_dump(report.settings, default_flow_style=True, sort_keys=False, width=float("inf")).strip()
    return f"can be used{part}: data: {settings}"


def _write(out: Path, lines: Sequence[str]) -> None:
    try:
        write_text(out, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}, give another file") from error


def _part(some: int, of: int) -> str:
    return str(of) if some == of else f"{some} of {of}"
