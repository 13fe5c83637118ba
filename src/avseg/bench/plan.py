"""Plan of a comparison: every model with every seed, all other settings equal.

A YAML file has the sections of a training recipe, in which ``model`` has the settings shared by all models, and::

    models:                                 # label → name and own settings
      TPAVI: {name: tpavi}
      PCMANet: {name: pcmanet}
    budget: 600                             # optimizer steps of every run
    seeds: 3                                # 0, 1, 2

A shared setting is applied to each model that has it. Without a file, :data:`SMALL` is the recipe.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from avseg.config import MODELS, Run, model_config, read_run
from avseg.errors import ConfigError, did_you_mean
from avseg.flags import config_file, new_parser, parse, read_yaml
from avseg.registry import all_names

SECTIONS = ("model", "data", "weights", "train")
OWN = ("models", "budget", "seeds", "split")
SMALL: Mapping[str, Mapping[str, Any]] = {
    "model": {"visual": "resnet18", "audio": "compact", "train_audio": True, "channels": 64},
    "data": {"size": 96},
    "train": {"lr": 5e-4, "schedule": "cosine", "warmup": 50, "clip_grad": 1.0, "flip": True},
}
"""A recipe that needs no download and no GPU."""
SPLITS = ("val", "test")
"""Splits that can be scored."""
FOREVER = 1_000_000
"""Epochs of a run that is limited by its number of steps."""


@dataclass(frozen=True)
class Plan:
    """A comparison.

    Attributes:
        name: Name of the result files.
        runs: Label of a model → one run per seed; the others are compared with the first model.
        split: Split to score: ``val`` or ``test``.
        results: Folder for the results.
    """

    name: str
    runs: Mapping[str, Sequence[Run]]
    split: str
    results: Path


def read_plan(argv: Sequence[str]) -> Plan:
    """Read a comparison from the command line.

    Raises:
        ConfigError: When a file cannot be read, a setting is unknown or wrong, or two models have the same label.
    """
    words, dotted, config = _divide(argv)
    given = parse(_parser(), words, defaults=False).as_dict()
    tree = read_yaml(config) if config else dict(SMALL)
    unknown = next((key for key in tree if key not in (*SECTIONS, *OWN)), None)
    if unknown is not None:
        raise ConfigError(f"unknown section {unknown!r} in {config}. {did_you_mean(unknown, (*SECTIONS, *OWN))}")
    sections = {name: _mapping(tree.get(name), name, config) for name in SECTIONS}
    models = _models(given.get("models") or tree.get("models"))
    budget, seeds, split = (given.get(key, tree.get(key, default)) for key, default in _DEFAULTS.items())
    _check(budget, seeds, split)
    _check_free([*(f"train.{key}" for key in sections["train"]), *(key for key, _ in dotted)])
    name = Path(config).stem if config else "bench_" + "_".join([*models, _data(sections, dotted)])
    out = Path(given.get("out") or f"runs/{name}")
    _check_shared([*sections["model"], *(key[6:] for key, _ in dotted if key.startswith("model."))], models)
    runs = {label: _runs(_recipe(sections, own, dotted), budget, seeds, out / label) for label, own in models.items()}
    return Plan(name, runs, split, Path(given.get("results", "benchmarks/results")))


_TAKEN = {
    "train.max_steps": "use --budget",
    "train.epochs": "use --budget",
    "train.seed": "use --seeds",
    "train.out": "use --out, the folder of all runs",
    "train.resume": "runs are always resumed",
}
_DEFAULTS: Mapping[str, Any] = {"budget": 1000, "seeds": 3, "split": "test"}


def _parser() -> ArgumentParser:
    parser = new_parser("bench", "Train models with the same recipe and number of steps, and compare them.")
    parser.add_argument(
        "--config",
        type=str,
        help="YAML file, or name of a recipe: training settings, and models, budget, seeds, split.",
    )
    parser.add_argument("--models", type=str, help=f"Names separated by commas: {', '.join(all_names(MODELS))}.")
    parser.add_argument("--seeds", type=int, help="Number of runs of each model (default: 3).")
    parser.add_argument("--budget", type=int, help="Optimizer steps of every run (default: 1000).")
    parser.add_argument("--split", type=str, help="Split to score at the end, val or test (default: test).")
    parser.add_argument("-o", "--out", type=str, help="Folder of the runs; a second call resumes them.")
    parser.add_argument("--results", type=str, help="Folder of table, plot and JSON (default: benchmarks/results).")
    parser.epilog = (
        "All settings of avseg train apply to all models: --data.size 64, --train.lr 3e-4, --model.channels 64."
    )
    return parser


def _divide(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]], str | None]:
    """Return arguments of bench itself; settings of the recipe, such as ``("data.size", "64")``; the config file."""
    own: list[str] = []
    dotted: list[tuple[str, str]] = []
    config: str | None = None
    words = iter(argv)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and key.partition(".")[0] in SECTIONS and "." in key:
            dotted.append((key, value if equals else next(words, "")))
        elif word.startswith("--") and key == "config":
            config = str(config_file(value if equals else next(words, "")))
        else:
            own.append(word)
    return own, dotted, config


def _mapping(section: Any, name: str, config: str | None) -> dict[str, Any]:
    if section is not None and not isinstance(section, Mapping):
        raise ConfigError(f"section {name!r} in {config} must hold settings, got {section!r}")
    return dict(section or {})


def _models(given: Any) -> dict[str, dict[str, Any]]:
    """Return label → name and settings of each model."""
    if isinstance(given, str):
        names = [name.strip() for name in given.split(",")]
        if len({*names}) < len(names):
            raise ConfigError(f"models must differ, got {given}: use a --config file for variants of one model")
        given = {name: {"name": name} for name in names}
    if not isinstance(given, Mapping) or not given:
        raise ConfigError("no models given: use --models pcmanet,tpavi, or a --config file with a section models")
    for label, settings in given.items():
        if not isinstance(settings, Mapping) or "name" not in settings or "/" in str(label):
            raise ConfigError(
                f"model {label!r} must be a plain label and settings such as {{name: tpavi}}, got {settings!r}"
            )
        model_config(settings["name"])
    return {str(label): dict(settings) for label, settings in given.items()}


def _check(budget: Any, seeds: Any, split: Any) -> None:
    for name, value in (("budget", budget), ("seeds", seeds)):
        if type(value) is not int or value < 1:
            raise ConfigError(f"{name} must be a number, 1 or more, got {value!r}")
    if split not in SPLITS:
        raise ConfigError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")


def _check_free(given: Collection[str]) -> None:
    """Raise ConfigError for training settings that are set by the comparison."""
    taken = next((key for key in given if key in _TAKEN), None)
    if taken is not None:
        raise ConfigError(f"{taken} cannot be set in a comparison: {_TAKEN[taken]}")


def _check_shared(shared: Collection[str], models: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConfigError for a shared setting that no model has."""
    known = {field for settings in models.values() for field in _fields(str(settings["name"]))}
    unknown = next((key for key in shared if key not in known), None)
    if unknown is not None:
        raise ConfigError(f"none of the models has a setting {unknown!r}. {did_you_mean(unknown, known)}")


def _fields(name: str) -> set[str]:
    return {f.name for f in dataclasses.fields(model_config(name))}


def _data(sections: Mapping[str, Mapping[str, Any]], dotted: Sequence[tuple[str, str]]) -> str:
    return dict(dotted).get("data.name", str(sections["data"].get("name", "synthetic")))


def _recipe(
    sections: Mapping[str, Mapping[str, Any]], own: Mapping[str, Any], dotted: Sequence[tuple[str, str]]
) -> Run:
    """Return the settings of one model, which all of its runs share."""
    has = _fields(str(own["name"]))
    shared = {key: value for key, value in sections["model"].items() if key in has}
    words = [
        f"--{section}.{key}={json.dumps(value) if not isinstance(value, str) else value}"
        for section, settings in ({**sections, "model": {**shared, **own}}).items()
        for key, value in settings.items()
    ]
    words += [f"--{key}={value}" for key, value in dotted if not key.startswith("model.") or key[6:] in has]
    return read_run(words)


def _runs(recipe: Run, budget: int, seeds: int, folder: Path) -> list[Run]:
    """Return the runs of one model, which differ in the seed."""
    fixed = dataclasses.replace(recipe.train, epochs=FOREVER, max_steps=budget, resume="auto")
    return [
        dataclasses.replace(recipe, train=dataclasses.replace(fixed, seed=seed, out=str(folder / f"seed{seed}")))
        for seed in range(seeds)
    ]
