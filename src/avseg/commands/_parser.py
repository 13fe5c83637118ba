"""Parsers of the commands, and the table of commands in a help text."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from avseg.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def command_parser(verb: str, function: str = "", skip: Collection[str] = ()) -> "ArgumentParser":
    """Return a parser with the arguments of ``function``, given as ``module:name``, except ``skip``."""
    from avseg.declarations import declared
    from avseg.flags import new_parser

    signature = declared(function, skip) if function else None
    parser = new_parser(verb, "" if signature is None else first_line(signature))
    if signature is not None:
        parser.add_function_arguments(signature, skip=set(skip), as_positional=True)
    return parser


def parsed(parser: "ArgumentParser", argv: Sequence[str]) -> dict[str, Any]:
    """Return the arguments that are given; all others are left to the defaults of the function."""
    from avseg.flags import parse

    return dict(parse(parser, argv, defaults=False).as_dict())


def add_data(parser: "ArgumentParser", argv: Sequence[str], default: str) -> None:
    """Add the settings of the data set named on the command line."""
    from avseg.config import add_dataset
    from avseg.flags import choice

    add_dataset(parser, choice(argv, "data") or default)


def training_data(argv: Sequence[str]) -> str:
    """Return the data set on the card of the first model among the arguments; "synthetic" without one.

    A model is a bundled name or a folder here; the card of a Hub id is not on this computer.
    """
    from avseg.model_folder import folder_of, read_card

    folder = next(filter(None, map(folder_of, argv)), None)
    data = {} if folder is None else read_card(folder).get("data") or {}
    return str(data.get("name") or "synthetic")


def run_subcommand(verb: str, verbs: Mapping[str, Callable[[Sequence[str]], None]], argv: Sequence[str]) -> None:
    """Run the subcommand named by the first argument."""
    word = argv[0] if argv else "--help"
    if word in ("-h", "--help"):
        print(command_table(f"{verb} COMMAND", verbs))
    elif word in verbs:
        verbs[word](argv[1:])
    else:
        raise ConfigError(f"unknown command {f'{verb} {word}'!r}. {did_you_mean(word, verbs)}")


def command_table(command: str, verbs: Mapping[str, Callable[..., None]]) -> str:
    """Return the help text of a command with subcommands: one line for each of them."""
    rows = [f"  {verb:12}{first_line(function)}" for verb, function in verbs.items()]
    return "\n".join([f"usage: avseg {command} ...", "", *rows, "", f"See avseg {command} --help."])


def first_line(documented: object) -> str:
    """Return the first line of a docstring; empty without one."""
    return (documented.__doc__ or "").strip().partition("\n")[0]
