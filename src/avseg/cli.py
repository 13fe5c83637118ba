"""The command line: a table from verb to function; each function loads what it needs when it is called."""

import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avseg.errors import AvsegError, ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``avseg COMMAND ...``.

    Args:
        argv: The words after ``avseg``; None takes them from the shell.

    Returns:
        The exit code: 0 done, 2 a mistake of the user (told in one line; ``--debug`` shows where it was found), 130
        interrupted, 143 terminated.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        _dispatch([word for word in words if word != "--debug"])
    except (AvsegError, OSError) as error:
        if "--debug" in words:
            raise
        print(f"avseg: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("avseg: interrupted", file=sys.stderr)
        return 130
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _dispatch(words: list[str]) -> None:
    verb = words[0] if words else "--help"
    if verb in ("-h", "--help"):
        print(_table("COMMAND", VERBS))
    elif verb == "--version":
        print(f"avseg {version('avseg')}")
    elif verb in VERBS:
        VERBS[verb](_spelled_out(words[1:]) if verb in ("train", "eval", "bench", "data", "figures") else words[1:])
    else:
        raise ConfigError(f"unknown command {verb!r}. {did_you_mean(verb, VERBS)}")


def _spelled_out(words: list[str]) -> list[str]:
    """``--data synthetic`` is short for ``--data.name synthetic``; the same for ``--model``."""
    return [re.sub(r"^--(data|model)(?==|$)", r"--\1.name", word) for word in words]


def _train(argv: Sequence[str]) -> None:
    """Train a model on a data set."""
    from avseg.config import read_run

    run = read_run(argv)
    from avseg.training.train import train

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        folder = train(run, progress=sys.stdout.isatty())
    except (SystemExit, KeyboardInterrupt):
        print("avseg: stopped; the same command with --train.resume auto goes on", file=sys.stderr)
        raise
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"avseg: trained, see {folder}")


def _eval(argv: Sequence[str]) -> None:
    """Score a model, also on audio that is not the clip's."""
    from avseg.evaluation.evaluate import evaluate_checkpoint

    parser = _parser("eval", evaluate_checkpoint, skip={"data", "out", "progress"})
    parser.add_argument("-o", "--out", type=Path | None, help="JSON file to write.")
    _add_data(parser, argv, _trained_on(argv))
    evaluate_checkpoint(**_said(parser, argv), progress=sys.stderr.isatty())


def _bench(argv: Sequence[str]) -> None:
    """Train several models under one recipe and budget, and compare them."""
    from avseg.bench.bench import bench_command

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        plan = bench_command(argv)
    except (SystemExit, KeyboardInterrupt):
        if "--help" not in argv and "-h" not in argv:
            print("avseg: stopped; the same command goes on", file=sys.stderr)
        raise
    print(f"avseg: wrote {plan.results / plan.name}.json, .md, .png")


def _predict(argv: Sequence[str]) -> None:
    """Mark what sounds in a video."""
    from avseg.prediction.predict import predict_command

    parser = _parser("predict", predict_command, skip={"output"})
    parser.add_argument(
        "-o", "--output", type=Path | None, help="Folder to write; <name of the video>_avseg by default."
    )
    predict_command(**_said(parser, argv))


def _profile(argv: Sequence[str]) -> None:
    """Count and time what a model costs, part by part."""
    from rich.console import Console

    from avseg.checkpoints.store import load
    from avseg.models import build, list_models, model_class
    from avseg.profile import profile

    parser = _parser("profile", profile, skip={"model", "progress"})
    parser.add_argument("model", help=f"{', '.join(list_models())}, or a trained model: bundled name, folder, Hub id.")
    parser.add_argument("--classes", type=int, default=1, help="Output channels of an untrained model.")
    parser.add_argument("-o", "--output", type=Path | None, help="JSON file to write.")
    untrained = next((word for word in argv if word in list_models()), None)
    if untrained is not None:
        parser.add_class_arguments(model_class(untrained).Config)
    said = _said(parser, argv)
    options = {name: said.pop(name) for name in ("frames", "height", "width", "runs") if name in said}
    name, output, classes = said.pop("model"), said.pop("output", None), said.pop("classes", 1)
    model = load(name) if untrained is None else build(name, classes, **said)
    result = profile(model, **options, progress=sys.stderr.isatty())
    Console().print(result)
    if output is not None:
        result.save(output, shlex.join(["avseg", "profile", *argv]))


def _convert(argv: Sequence[str]) -> None:
    """Turn a checkpoint of an authors' release into a folder avseg loads."""
    from avseg.checkpoints.release import convert

    parser = _parser("convert", convert, skip={"output"})
    parser.add_argument("-o", "--output", type=Path, required=True, help="Folder to write.")
    print(f"avseg: wrote {convert(**_said(parser, argv))}")


def _models(argv: Sequence[str]) -> None:
    """List the models."""
    from avseg.models import list_models, model_class

    _said(_parser("models"), argv)
    for name in list_models():
        found = model_class(name)
        print(f"{name:12}arXiv {found.paper:12}{_first_line(found)}")


def _datasets(argv: Sequence[str]) -> None:
    """List the data sets."""
    from avseg.data import dataset_class, list_datasets

    _said(_parser("datasets"), argv)
    for name in list_datasets():
        print(f"{name:12}{_first_line(dataset_class(name))}")


def _recipes(argv: Sequence[str]) -> None:
    """List the recipes for --config of train and bench."""
    from avseg.flags import recipes

    _said(_parser("recipes"), argv)
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


def _data(argv: Sequence[str]) -> None:
    """Look at a data set (show, check), or make one from pictures and sounds (compose) or from videos (prepare)."""
    _choose("data", {"show": _show, "check": _check, "compose": _compose, "prepare": _prepare}, argv)


def _show(argv: Sequence[str]) -> None:
    """Write a contact sheet: pictures, masks, sound."""
    from avseg.figures.contact_sheet import show

    parser = _parser("data show", show, skip={"data", "out"})
    parser.add_argument("-o", "--out", type=Path, required=True, help="Picture to write.")
    _add_data(parser, argv, "synthetic")
    print(f"avseg: wrote {show(**{'data': {}} | _said(parser, argv))}")


def _check(argv: Sequence[str]) -> None:
    """Read every file of a data set; say what is wrong, and how to use it."""
    from avseg.dataset_tools.check import check

    parser = _parser("data check", check, skip={"out", "progress"})
    parser.add_argument(
        "-o", "--out", type=Path | None, help="Text file to write: a line for everything that is wrong."
    )
    print(f"avseg: {check(**_said(parser, argv), progress=sys.stderr.isatty())}")


def _compose(argv: Sequence[str]) -> None:
    """Make a data set from cut-outs and sounds."""
    from avseg.dataset_tools.compose import Composition, compose

    parser = _parser("data compose")
    parser.add_class_arguments(Composition, skip={"out"})
    parser.add_argument("-o", "--out", type=str, required=True, help="Folder to write.")
    print(f"avseg: wrote {compose(Composition(**_said(parser, argv)), progress=sys.stderr.isatty())}")


def _prepare(argv: Sequence[str]) -> None:
    """Make a data set of videos: AVSBench's raw ones, or your own with masks."""
    from avseg.dataset_tools.prepare import prepare

    parser = _parser("data prepare", prepare, skip={"out", "progress"})
    parser.add_argument("-o", "--out", type=Path | None, help="Folder to write your own videos to.")
    result = prepare(**_said(parser, argv), progress=sys.stderr.isatty())
    print(f"avseg: {result.made} videos prepared, {result.kept} were there already, see {result.folder}")
    for line in result.failed:
        print(f"avseg: {line}", file=sys.stderr)
    if result.failed:
        raise DataError(
            f"{len(result.failed)} of {result.made + result.kept + len(result.failed)} videos could not be prepared "
            "(listed above): mend or remove them, then the same command goes on"
        )


def _figures(argv: Sequence[str]) -> None:
    """Draw the figures of a paper: trend, confidence, attention, panel."""
    verbs = {"trend": _trend, "confidence": _confidence, "attention": _attention, "panel": _panel}
    _choose("figures", verbs, argv)


def _trend(argv: Sequence[str]) -> None:
    """Curves of training: the share of tokens that still ask."""
    from avseg.figures.trend import trend

    parser = _parser("figures trend", trend, skip={"runs", "out", "scalars"})
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of avseg train; each gets a panel of its own.")
    parser.add_argument("--scalars", nargs="+", type=str, help="Names in metrics.csv, keep_ratio/* by default.")
    _draw(parser, trend, argv)


def _confidence(argv: Sequence[str]) -> None:
    """Confidence masks and the queries they select."""
    from avseg.figures.confidence import confidence

    _draw(_model_parser("figures confidence", confidence, argv), confidence, argv)


def _attention(argv: Sequence[str]) -> None:
    """Attention maps of each group and stage."""
    from avseg.figures.attention import attention

    _draw(_model_parser("figures attention", attention, argv), attention, argv)


def _panel(argv: Sequence[str]) -> None:
    """Frames, sound, truth and the answers of models."""
    from avseg.figures.panel import panel

    parser = _model_parser("figures panel", panel, argv)
    parser.add_argument("models", nargs="+", type=str, help="Bundled names, folders of avseg train, or Hub ids.")
    _draw(parser, panel, argv)


def _model_parser(verb: str, function: Callable[..., Any], argv: Sequence[str]) -> "ArgumentParser":
    """A parser for a figure of clips and what models make of them."""
    parser = _parser(verb, function, skip={"models", "out", "data", "pick"})
    parser.add_argument("--pick", nargs="+", type=int, help="These clips instead, by number.")
    _add_data(parser, argv, _trained_on(argv))
    return parser


def _draw(parser: "ArgumentParser", figure: Callable[..., Path], argv: Sequence[str]) -> None:
    """Have a figure drawn as the words say."""
    parser.add_argument("-o", "--out", type=Path, required=True, help="Picture to write: .png, .pdf, .svg or .jpg.")
    print(f"avseg: wrote {figure(**_said(parser, argv))}")


def _choose(verb: str, verbs: Mapping[str, Callable[[Sequence[str]], None]], argv: Sequence[str]) -> None:
    """Run the command that the first word names."""
    word = argv[0] if argv else "--help"
    if word in ("-h", "--help"):
        print(_table(f"{verb} COMMAND", verbs))
    elif word in verbs:
        verbs[word](argv[1:])
    else:
        raise ConfigError(f"unknown command {f'{verb} {word}'!r}. {did_you_mean(word, verbs)}")


def _parser(verb: str, function: Callable[..., Any] | None = None, skip: Collection[str] = ()) -> "ArgumentParser":
    """A parser whose arguments are those of a function, but for some."""
    from avseg.flags import new_parser

    parser = new_parser(verb, "" if function is None else _first_line(function))
    if function is not None:
        parser.add_function_arguments(function, skip=set(skip), as_positional=True)
    return parser


def _said(parser: "ArgumentParser", argv: Sequence[str]) -> dict[str, Any]:
    """What the words say; what they do not is left to the functions' own defaults."""
    from avseg.flags import parse

    return dict(parse(parser, argv, defaults=False).as_dict())


def _add_data(parser: "ArgumentParser", argv: Sequence[str], default: str) -> None:
    """Add the settings of the data set that the words name."""
    from avseg.data import dataset_class, list_datasets
    from avseg.flags import add_part, choice

    name = choice(argv, "data") or default
    add_part(parser, "data", name, dataset_class(name), list_datasets())


def _trained_on(argv: Sequence[str]) -> str:
    """The data set on the card of the checkpoint among the words, if there is one."""
    from avseg.checkpoints.store import CARD, read_card

    folder = next((word for word in argv if (Path(word) / CARD).is_file()), None)
    card = {} if folder is None else read_card(folder)
    return str(card.get("data", {}).get("name", "synthetic"))


def _table(command: str, verbs: Mapping[str, Callable[..., None]]) -> str:
    rows = [f"  {verb:12}{_first_line(function)}" for verb, function in verbs.items()]
    return "\n".join([f"usage: avseg {command} ...", "", *rows, "", f"avseg {command} --help says more."])


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]


VERBS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": _train,
    "eval": _eval,
    "bench": _bench,
    "predict": _predict,
    "profile": _profile,
    "convert": _convert,
    "models": _models,
    "datasets": _datasets,
    "recipes": _recipes,
    "data": _data,
    "figures": _figures,
}
