"""``avseg predict``, ``app`` and ``live``."""

import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avseg.commands._parser import command_parser, parsed

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def predict_verb(argv: Sequence[str]) -> None:
    """Segment the sounding objects in one video or many."""
    if sys.stderr.isatty() and not {"-h", "--help"} & set(argv):
        print("avseg: starting", file=sys.stderr)  # the imports below take seconds
    argv = [re.sub(r"^--[\w-]+", lambda flag: f"--{flag[0][2:].replace('-', '_')}", word) for word in argv]
    from avseg.declarations import declared

    # The flags are the parameters of predict_command, the fields of Options, and the Config of each output.
    skip = {"video", "output", "options", "settings"}
    parser = command_parser("predict", "avseg.pipeline.predict:predict_command", skip)
    parser.add_class_arguments(declared("avseg.prediction.frame_stream:Options"), as_group=False)
    parser.add_argument("videos", nargs="+", type=str, help="Video files, patterns, folders, or CSV lists of paths.")
    parser.add_argument(
        "-o",
        "--output",
        type=Path | None,
        help="Folder to write; <name of the video>_avseg by default, predictions/ for several videos.",
    )
    parser.add_argument("--workers", type=int, default=1, help="Videos that are processed at the same time.")
    parser.add_argument("--skip_done", type=bool, default=False, help="Skip videos that have an equal result.")
    names = _add_output_settings(parser, argv)
    given = parsed(parser, argv)
    settings = {name: given.pop(name) for name in names if name in given}
    from avseg.pipeline.batch import predict_videos
    from avseg.prediction.frame_stream import Options

    options = Options(**{field.name: given.pop(field.name) for field in fields(Options) if field.name in given})
    predict_videos(**given, options=options, settings=settings)


def _add_output_settings(parser: "ArgumentParser", argv: Sequence[str]) -> list[str]:
    """Add ``--NAME.FIELD`` for outputs on the command line, or for all with ``--help``; return their names."""
    from avseg.config import OUTPUTS
    from avseg.registry import all_names, own_names

    words = [word.partition(".")[0].removeprefix("--") for word in argv if word.startswith("--")]
    wanted = own_names(OUTPUTS) if {"-h", "--help"} & set(argv) else [n for n in all_names(OUTPUTS) if n in words]
    configs = {name: _output_config(name) for name in wanted}
    for name, config in configs.items():
        if config is not None:
            parser.add_class_arguments(config, name)
    return [name for name, config in configs.items() if config is not None]


def _output_config(name: str) -> Any:
    """Return the ``Config`` of an output, of this package without importing it; None if it has no settings."""
    from avseg.config import OUTPUTS
    from avseg.declarations import classes_with_config, declared
    from avseg.registry import own_names

    if name in own_names(OUTPUTS):
        module = f"{OUTPUTS}.{name}"
        found = classes_with_config(module)
        return declared(f"{module}:{found[0]}.Config") if found else None
    from avseg.outputs import output_class

    return output_class(name).Config


def app_verb(argv: Sequence[str]) -> None:
    """Segment videos in a page of the browser."""
    parser = command_parser("app", "avseg.app.server:app_command", skip={"models"})
    parser.add_argument("models", nargs="*", type=str, help="Models to choose from: bundled names, folders or Hub ids.")
    given = parsed(parser, argv)
    from avseg.app.server import app_command

    app_command(**{name: value for name, value in given.items() if value != []})


def live_verb(argv: Sequence[str]) -> None:
    """Show the masks of a camera with a microphone, of a pipe, or of a file, while it runs."""
    parser = command_parser("live", "avseg.live.command:live_command", skip={"source"})
    parser.add_argument(
        "source",
        nargs="?",
        type=str | None,
        help="Video file, named pipe, or - for the standard input; nothing for a camera with a microphone.",
    )
    given = parsed(parser, argv)
    from avseg.live.command import live_command

    live_command(**given)
