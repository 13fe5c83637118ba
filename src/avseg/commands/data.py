"""``avseg data``: inspect a data set, or make one."""

import sys
from collections.abc import Sequence
from pathlib import Path

from avseg.commands._parser import add_data, command_parser, parsed, run_subcommand
from avseg.errors import DataError


def data_verb(argv: Sequence[str]) -> None:
    """Inspect a data set (show, check), or make one from images and sounds (compose) or videos (prepare)."""
    run_subcommand("data", {"show": _show, "check": _check, "compose": _compose, "prepare": _prepare}, argv)


def _show(argv: Sequence[str]) -> None:
    """Write a contact sheet: frames, masks, waveform."""
    parser = command_parser("data show", "avseg.figures.contact_sheet:show", skip={"data", "out"})
    parser.add_argument("-o", "--out", type=Path, required=True, help="Image file to write.")
    add_data(parser, argv, "synthetic")
    given = {"data": {}} | parsed(parser, argv)
    from avseg.figures.contact_sheet import show

    print(f"avseg: wrote {show(**given)}")


def _check(argv: Sequence[str]) -> None:
    """Read every file of a data set; list all faults and the settings that load it."""
    parser = command_parser("data check", "avseg.dataset_tools.check:check", skip={"out", "progress"})
    parser.add_argument("-o", "--out", type=Path | None, help="Text file to write: one line per fault.")
    given = parsed(parser, argv)
    from avseg.dataset_tools.check import check

    print(f"avseg: {check(**given, progress=sys.stderr.isatty())}")


def _compose(argv: Sequence[str]) -> None:
    """Compose a data set from cut-outs and sounds."""
    from avseg.declarations import declared

    parser = command_parser("data compose")
    parser.add_class_arguments(declared("avseg.dataset_tools.compose:ComposeSettings"), skip={"out"})
    parser.add_argument("-o", "--out", type=str, required=True, help="Folder to write.")
    given = parsed(parser, argv)
    from avseg.dataset_tools.compose import ComposeSettings, compose

    print(f"avseg: wrote {compose(ComposeSettings(**given), progress=sys.stderr.isatty())}")


def _prepare(argv: Sequence[str]) -> None:
    """Prepare a data set from videos: AVSBench's raw videos, or your own with masks."""
    parser = command_parser("data prepare", "avseg.dataset_tools.prepare:prepare", skip={"out", "progress"})
    parser.add_argument("-o", "--out", type=Path | None, help="Folder to write your own videos to.")
    given = parsed(parser, argv)
    from avseg.dataset_tools.prepare import prepare

    result = prepare(**given, progress=sys.stderr.isatty())
    print(f"avseg: {result.made} videos prepared, {result.kept} already done, see {result.folder}")
    for line in result.failed:
        print(f"avseg: {line}", file=sys.stderr)
    if result.failed:
        raise DataError(
            f"{len(result.failed)} of {result.made + result.kept + len(result.failed)} videos could not be prepared "
            "(listed above): repair or remove them, then resume with the same command"
        )
