"""``avseg models``, ``datasets`` and ``recipes``."""

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from avseg.commands._parser import command_parser, first_line, parsed


def models_verb(argv: Sequence[str]) -> None:
    """List the models."""
    from avseg.config import MODELS
    from avseg.registry import all_names

    parsed(command_parser("models"), argv)
    for name in all_names(MODELS):
        paper, summary = _described(name)
        print(f"{name:12}{'no paper' if paper in ('', 'none') else f'arXiv {paper}':18}{summary}")


def _described(name: str) -> tuple[str, str]:
    """Return the arXiv id and the summary of a model, without an import of the models of avseg."""
    from avseg.config import MODELS
    from avseg.declarations import constant, docstring, main_class
    from avseg.registry import own_names

    if name in own_names(MODELS):
        module = f"{MODELS}.{name}"
        found = main_class(module)
        return constant(module, found, "paper") or "", docstring(module, found).partition("\n")[0]
    from avseg.models import model_class

    model = model_class(name)
    return model.paper, first_line(model)


def datasets_verb(argv: Sequence[str]) -> None:
    """List the data sets."""
    from avseg.config import DATASETS
    from avseg.declarations import docstring, main_class
    from avseg.registry import all_names, own_names

    parsed(command_parser("datasets"), argv)
    own = own_names(DATASETS)
    for name in all_names(DATASETS):
        module = f"{DATASETS}.{name}"
        if name in own:
            summary = docstring(module, main_class(module)).partition("\n")[0]
        else:
            from avseg.data import dataset_class

            summary = first_line(dataset_class(name))
        print(f"{name:12}{summary}")


def recipes_verb(argv: Sequence[str]) -> None:
    """List the recipes for --config of train and bench."""
    from avseg.flags import recipes

    parsed(command_parser("recipes"), argv)
    for name, path in recipes().items():
        command, purpose = _recipe_header(path)
        if command.startswith("avseg "):
            print(f"{name:28}{command.split()[1]:7}{purpose}")


def _recipe_header(path: Path) -> tuple[str, str]:
    """Return the command and the purpose in the first comment of a recipe.

    The command is the first line. The purpose is the first sentence after it that does not list requirements.
    """
    text = path.read_text(encoding="utf-8").splitlines()
    lines = [line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), text)]
    sentences = re.split(r"(?<=[.?!]) +", " ".join(lines[1:]))
    purpose = next((sentence for sentence in sentences if not sentence.startswith("Needs ")), "")
    return lines[0], purpose
