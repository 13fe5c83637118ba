"""Parse command lines and YAML files into checked settings; every error is one line that suggests a correction."""

import argparse
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace

from avseg.documents import MOST_LEVELS, is_bounded
from avseg.errors import ConfigError, did_you_mean

_MOST_SETTINGS = 10_000
"""Largest number of values in a config file, aliases expanded."""


class PlainHelp(DefaultHelpFormatter):
    """Help formatter that removes the Sphinx markup of docstrings."""

    def format_help(self) -> str:
        """Return the help text: :class:`~a.b.C` becomes C."""
        shortened = re.sub(r":\w+:`~[\w.]*?(\w+)`", r"\1", str(super().format_help()))
        return re.sub(r":\w+:`|`", "", shortened)


def new_parser(verb: str, description: str) -> ArgumentParser:
    """Return a parser for ``avseg VERB``."""
    return ArgumentParser(prog=f"avseg {verb}", description=description, exit_on_error=False, formatter_class=PlainHelp)


def add_part(parser: ArgumentParser, part: str, name: str, config: Any, names: Sequence[str]) -> None:
    """Add ``--model.name`` and the fields of that model's ``Config``; the same for ``data``.

    Args:
        parser: Parser to extend.
        part: ``"model"`` or ``"data"``.
        name: Name of the chosen model or data set.
        config: Its ``Config``.
        names: All names to choose from.
    """
    parser.add_argument(f"--{part}.name", default=name, help=f"One of: {', '.join(names)}; or package.module:Class.")
    parser.add_class_arguments(config, part)


def choice(argv: Sequence[str], part: str) -> str | None:
    """Return the ``name`` of a part, on which its other settings depend; None if it is not given.

    Raises:
        ConfigError: When the config file cannot be read.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config")
    first.add_argument(f"--{part}.name", dest="name")
    try:
        words, _ = first.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None
    section = read_yaml(config_file(words.config)).get(part) if words.config else None
    named = section.get("name") if isinstance(section, Mapping) else None
    return words.name or (None if named is None else str(named))


def recipes() -> dict[str, Path]:
    """Return the name and the file of each recipe in the package, sorted by name.

    The files are those of ``configs/`` in the repository; the wheel contains them.
    """
    with as_file(files("avseg").joinpath("recipes")) as folder:
        return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def config_file(given: str) -> Path:
    """Return the file that ``--config`` refers to: a path, or else the name of a recipe.

    Raises:
        ConfigError: When there is neither such a file nor such a recipe (names the closest recipe).
    """
    if Path(given).is_file():
        return Path(given)
    found = recipes()
    if given not in found:
        hint = did_you_mean(Path(given).stem, found)
        raise ConfigError(f"cannot read config {given!r}: there is no such file, and no such recipe. {hint}")
    return found[given]


def parse(parser: ArgumentParser, argv: Sequence[str], *, defaults: bool = True) -> Namespace:
    """Parse the arguments and their config file.

    Args:
        parser: Declares the settings.
        argv: The arguments.
        defaults: Fill in the defaults of settings that are not given.

    Raises:
        ConfigError: When a setting is unknown (names the closest) or a value has the wrong type.
    """
    if unreadable := [word for word in argv if word != _printable(word)]:
        encoding = sys.getfilesystemencoding()
        cure = "rename the file" if encoding == "utf-8" else f"the locale reads {encoding}, set PYTHONUTF8=1"
        raise ConfigError(f"{_printable(unreadable[0])} is not valid {encoding.upper()}: {cure}")
    argv = _with_config_files(argv)
    values = parser.get_defaults()
    known = set(values.keys(branches=True)) | {"help", "config", "print_config"}
    sections = {key.partition(".")[0] for key in known if "." in key}
    for where, key in _settings(argv):
        if key in sections:
            raise ConfigError(f"{key} in {where} must hold settings, such as {_example(key, known)}")
        if key not in known:
            raise ConfigError(f"unknown setting {key!r} in {where}. {_suggest(key, known)}")
    switches = {f"--{key}" for key, value in values.items() if isinstance(value, bool)}
    try:
        return parser.parse_args(_switched_on(argv, switches), defaults=defaults)
    except (ArgumentError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # jsonargparse lets some errors of malformed values pass.
        raise ConfigError(_one_line(str(error))) from None


def _printable(word: str) -> str:
    """Return a word with escapes for the bytes that are not UTF-8."""
    return word.encode("utf-8", "backslashreplace").decode()


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: When there is no such file, it is not a YAML mapping, is nested too deeply, or has a key that is no
            string.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read config {str(path)!r}: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"config {str(path)!r} is nested deeper than {MOST_LEVELS} levels") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"config {str(path)!r} must hold sections such as 'model:' and 'train:', got {tree!r:.80}")
    if not is_bounded(tree, _MOST_SETTINGS):
        raise ConfigError(f"config {str(path)!r} is nested deeper than {MOST_LEVELS} levels, or has too many values")
    if wrong := [key for key in _keys(tree) if not isinstance(key, str)]:
        raise ConfigError(f"config {str(path)!r}: a key must be a name, got {wrong[0]!r:.80}")
    return tree


def _keys(tree: Any) -> Iterator[Any]:
    """Yield the keys of all mappings in a tree."""
    if isinstance(tree, dict):
        yield from tree
        for value in tree.values():
            yield from _keys(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _keys(value)


def _with_config_files(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the value of each ``--config`` replaced by the path of its file."""
    words: list[str] = []
    for word in argv:
        if word.startswith("--config="):
            word = f"--config={config_file(word.removeprefix('--config='))}"
        elif words and words[-1] == "--config":
            word = str(config_file(word))
        words.append(word)
    return words


def _settings(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the source of each setting, the command line or a config file, and its dotted name."""
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        key, _, value = word.partition("=")
        if key == "--config":
            path = value or following
            for section, fields in read_yaml(path).items():
                names = [f"{section}.{field}" for field in fields] if isinstance(fields, Mapping) else [section]
                yield from ((path, name) for name in names)
        elif word.startswith("--"):
            yield "the command line", key[2:]


def _example(section: str, known: Collection[str]) -> str:
    return min(key for key in known if key.startswith(f"{section}."))


def _suggest(key: str, known: Collection[str]) -> str:
    """Suggest the closest setting of the same section, or the setting with exactly this name in another section."""
    section, _, field = key.rpartition(".")
    siblings = [name for name in known if name.startswith(f"{section}.")] if section else []
    elsewhere = next((name for name in sorted(known) if name.endswith(f".{field}")), None)
    if section and not siblings:
        return did_you_mean(section, {name.partition(".")[0] for name in known if "." in name})
    if elsewhere is not None:
        return did_you_mean(elsewhere, known)
    return did_you_mean(key, siblings or known)


def _switched_on(argv: Sequence[str], switches: Collection[str]) -> list[str]:
    """Return the arguments with ``true`` added after each switch that has no value."""
    words: list[str] = []
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        words += [word, "true"] if word in switches and following not in ("true", "false") else [word]
    return words


def _one_line(message: str) -> str:
    """Shorten a message of jsonargparse to the setting, the expected type and the value."""
    setting = re.search(r'Parser key "(.+?)"', message)
    value = re.search(r"(?:Got|Given) value: (.*)", message)
    kinds = re.findall(r"Expected an? (.+?)(?:\. Got value|$)", message, re.MULTILINE)
    if not (setting and value and kinds):
        return " ".join(message.replace("Parser key ", "").split())
    words = re.findall(r"'([^']*)'", kinds[0]) if kinds[0].startswith("typing.Literal") else []
    if words and len(kinds) == 1:
        return f"{setting[1]} = {value[1]!r} does not exist. {did_you_mean(value[1], words)}"
    plain = [re.sub(r"<class '(\w+)'>|typing.Literal\[(.*)\]", r"\1\2", kind) for kind in kinds]
    return f"{setting[1]} must be {' or '.join(plain).replace('NoneType', 'null')}, got {value[1]!r}"
