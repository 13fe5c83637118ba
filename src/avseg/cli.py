"""Command line: a table of commands; each one imports its dependencies when it runs."""

import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avseg.errors import AvsegError, AvsegWarning, ConfigError, DataError, did_you_mean
from avseg.signals import Terminated, terminating

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``avseg COMMAND ...``.

    Args:
        argv: Arguments after ``avseg``; None takes those of the process.

    Returns:
        Exit code: 0 for success, 1 if some inputs of a batch failed, 2 for a user's mistake (reported in one line; with
        ``--debug`` the traceback is printed), 130 if interrupted, 143 after SIGTERM, 129 after
        SIGHUP.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    try:
        with terminating(), _notes():
            _dispatch([word for word in words if word != "--debug"])
        sys.stdout.flush()
    except (AvsegError, OSError) as error:
        if "--debug" in words:
            raise
        print(f"avseg: error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        print("avseg: interrupted", file=sys.stderr)
        return 130
    except Terminated as end:
        print(f"avseg: ended by {end.name}", file=sys.stderr)
        return end.number
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


@contextmanager
def _notes() -> Iterator[None]:
    """Print the warnings of avseg as notes of one line, without their place in the code."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, AvsegWarning):
                print(f"avseg: note: {message}", file=sys.stderr)
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield


def _prepare_streams() -> None:
    """Make any standard output usable: a closed one is replaced, characters that it cannot encode are escaped."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # noqa: PERF203 - else the next file that is opened would take its place and receive messages
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the process ends
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _dispatch(words: list[str]) -> None:
    verb = words[0] if words else "--help"
    if verb in ("-h", "--help"):
        print(_table("COMMAND", VERBS))
    elif verb == "--version":
        print(f"avseg {version('avseg')}")
    elif verb in VERBS:
        VERBS[verb](_expand_short(words[1:]) if verb in ("train", "eval", "bench", "data", "figures") else words[1:])
    else:
        raise ConfigError(f"unknown command {verb!r}. {did_you_mean(verb, VERBS)}")


def _expand_short(words: list[str]) -> list[str]:
    """Replace ``--data synthetic`` by ``--data.name synthetic``, and ``--model`` in the same way."""
    return [re.sub(r"^--(data|model)(?==|$)", r"--\1.name", word) for word in words]


@contextmanager
def _advising(advice: str) -> Iterator[None]:
    """Print one line with an advice when a command is interrupted or terminated, and keep the exit code."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as end:
        code = 130 if isinstance(end, KeyboardInterrupt) else end.code
        if code:  # --help exits with 0
            print(f"avseg: stopped; {advice}", file=sys.stderr)
        raise SystemExit(code) from None


def _train(argv: Sequence[str]) -> None:
    """Train a model on a data set."""
    from avseg.config import read_run

    run = read_run(argv)
    from avseg.training.train import train

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with _advising("resume with the same command and --train.resume auto"):
        folder = train(run, progress=sys.stdout.isatty())
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"avseg: trained, see {folder}")


def _eval(argv: Sequence[str]) -> None:
    """Score a model, with the clips' own audio and with negative audio."""
    parser = _parser("eval", "avseg.evaluation.evaluate:evaluate_checkpoint", skip={"data", "out", "progress"})
    parser.add_argument("-o", "--out", type=Path | None, help="JSON file to write.")
    _add_data(parser, argv, _training_data(argv))
    given = _parsed(parser, argv)
    from avseg.evaluation.evaluate import evaluate_checkpoint

    evaluate_checkpoint(**given, progress=sys.stderr.isatty())


def _bench(argv: Sequence[str]) -> None:
    """Train several models with the same recipe and number of steps, and compare them."""
    from avseg.bench.plan import read_plan

    plan = read_plan(argv)
    from avseg.bench.bench import bench

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with _advising("resume with the same command"):
        bench(plan, shlex.join(["avseg", "bench", *argv]), progress=sys.stderr.isatty())
    print(f"avseg: wrote {plan.results / plan.name}.json, .md, .png")


def _predict(argv: Sequence[str]) -> None:
    """Segment the sounding objects in one video or many."""
    if sys.stderr.isatty() and not {"-h", "--help"} & set(argv):
        print("avseg: starting", file=sys.stderr)  # the imports below take seconds
    argv = [re.sub(r"^--[\w-]+", lambda flag: f"--{flag[0][2:].replace('-', '_')}", word) for word in argv]
    from avseg.declarations import declared

    skip = {"video", "output", "options", "settings"}
    parser = _parser("predict", "avseg.prediction.predict:predict_command", skip)
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
    given = _parsed(parser, argv)
    settings = {name: given.pop(name) for name in names if name in given}
    from avseg.prediction.batch import predict_videos
    from avseg.prediction.frame_stream import Options

    options = Options(**{field.name: given.pop(field.name) for field in fields(Options) if field.name in given})
    predict_videos(**given, options=options, settings=settings)


def _add_output_settings(parser: "ArgumentParser", argv: Sequence[str]) -> list[str]:
    """Add ``--NAME.FIELD`` for the settings of outputs: those on the command line, for help all; return their names."""
    from avseg.config import OUTPUTS
    from avseg.registry import all_names, own_names

    words = [word.partition(".")[0].removeprefix("--") for word in argv if word.startswith("--")]
    asked = own_names(OUTPUTS) if {"-h", "--help"} & set(argv) else [n for n in all_names(OUTPUTS) if n in words]
    configs = {name: _output_config(name) for name in asked}
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


def _app(argv: Sequence[str]) -> None:
    """Segment videos in a page of the browser."""
    parser = _parser("app", "avseg.app.server:app_command", skip={"models"})
    parser.add_argument("models", nargs="*", type=str, help="Models to choose from: bundled names, folders or Hub ids.")
    given = _parsed(parser, argv)
    from avseg.app.server import app_command

    app_command(**{name: value for name, value in given.items() if value != []})


def _live(argv: Sequence[str]) -> None:
    """Show the masks of a camera with a microphone, of a pipe, or of a file, while it runs."""
    parser = _parser("live", "avseg.live.command:live_command", skip={"source"})
    parser.add_argument(
        "source",
        nargs="?",
        type=str | None,
        help="Video file, named pipe, or - for the standard input; nothing for a camera with a microphone.",
    )
    given = _parsed(parser, argv)
    from avseg.live.command import live_command

    live_command(**given)


def _profile(argv: Sequence[str]) -> None:
    """Measure parameters, operations, time and memory of a model, part by part."""
    from avseg.config import MODELS, model_config
    from avseg.registry import all_names, is_class_path

    names = all_names(MODELS)
    parser = _parser("profile", "avseg.profile:profile", skip={"model", "progress"})
    parser.add_argument("model", help=f"{', '.join(names)}, or a trained model: bundled name, folder, Hub id.")
    parser.add_argument("--classes", type=int, default=1, help="Output channels of an untrained model.")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, mps, or auto for the fastest one.")
    parser.add_argument("-o", "--output", type=Path | None, help="JSON file to write.")
    untrained = next((word for word in argv if word in names or is_class_path(word)), None)
    if untrained is not None:
        parser.add_class_arguments(model_config(untrained))
    given = _parsed(parser, argv)
    from rich.console import Console

    from avseg.checkpoints.store import load
    from avseg.devices import move
    from avseg.models import build
    from avseg.profile import profile

    options = {name: given.pop(name) for name in ("frames", "height", "width", "runs") if name in given}
    name, output, classes = given.pop("model"), given.pop("output", None), given.pop("classes", 1)
    device = given.pop("device", "cpu")
    model = load(name) if untrained is None else build(name, classes, **given)
    result = profile(move(model, device), **options, progress=sys.stderr.isatty())
    Console().print(result)
    if output is not None:
        result.save(output, shlex.join(["avseg", "profile", *argv]))


def _convert(argv: Sequence[str]) -> None:
    """Convert a checkpoint released by a paper's authors to a folder for avseg."""
    parser = _parser("convert", "avseg.checkpoints.release:convert", skip={"output"})
    parser.add_argument("-o", "--output", type=Path, required=True, help="Folder to write.")
    given = _parsed(parser, argv)
    from avseg.checkpoints.release import convert

    print(f"avseg: wrote {convert(**given)}")


def _export(argv: Sequence[str]) -> None:
    """Write a model to an ONNX file, and compare the file with the model."""
    parser = _parser("export", "avseg.export.write:export", skip={"model", "path"})
    parser.add_argument("model", type=str, help="Bundled name, folder or Hub id of the model.")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="File to write, *.onnx; its card is *.onnx.json."
    )
    given = _parsed(parser, argv)
    from avseg.checkpoints.store import load
    from avseg.export.write import export

    output = given.pop("output")
    for found in export(load(given.pop("model")), output, **given):
        differences = f"{found.probabilities:.1e} in probabilities and {found.logits:.1e} in logits"
        print(f"avseg: {found.input}: largest difference {differences}; {found.masks:.4%} of mask pixels equal")
    print(f"avseg: wrote {output} and {output}.json")


def _models(argv: Sequence[str]) -> None:
    """List the models."""
    from avseg.config import MODELS
    from avseg.registry import all_names

    _parsed(_parser("models"), argv)
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
    return model.paper, _first_line(model)


def _datasets(argv: Sequence[str]) -> None:
    """List the data sets."""
    from avseg.config import DATASETS
    from avseg.declarations import docstring, main_class
    from avseg.registry import all_names, own_names

    _parsed(_parser("datasets"), argv)
    own = own_names(DATASETS)
    for name in all_names(DATASETS):
        module = f"{DATASETS}.{name}"
        if name in own:
            summary = docstring(module, main_class(module)).partition("\n")[0]
        else:
            from avseg.data import dataset_class

            summary = _first_line(dataset_class(name))
        print(f"{name:12}{summary}")


def _recipes(argv: Sequence[str]) -> None:
    """List the recipes for --config of train and bench."""
    from avseg.flags import recipes

    _parsed(_parser("recipes"), argv)
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
    """Inspect a data set (show, check), or make one from images and sounds (compose) or videos (prepare)."""
    _choose("data", {"show": _show, "check": _check, "compose": _compose, "prepare": _prepare}, argv)


def _show(argv: Sequence[str]) -> None:
    """Write a contact sheet: frames, masks, waveform."""
    parser = _parser("data show", "avseg.figures.contact_sheet:show", skip={"data", "out"})
    parser.add_argument("-o", "--out", type=Path, required=True, help="Image file to write.")
    _add_data(parser, argv, "synthetic")
    given = {"data": {}} | _parsed(parser, argv)
    from avseg.figures.contact_sheet import show

    print(f"avseg: wrote {show(**given)}")


def _check(argv: Sequence[str]) -> None:
    """Read every file of a data set; list all faults and the settings that load it."""
    parser = _parser("data check", "avseg.dataset_tools.check:check", skip={"out", "progress"})
    parser.add_argument("-o", "--out", type=Path | None, help="Text file to write: one line per fault.")
    given = _parsed(parser, argv)
    from avseg.dataset_tools.check import check

    print(f"avseg: {check(**given, progress=sys.stderr.isatty())}")


def _compose(argv: Sequence[str]) -> None:
    """Compose a data set from cut-outs and sounds."""
    from avseg.declarations import declared

    parser = _parser("data compose")
    parser.add_class_arguments(declared("avseg.dataset_tools.compose:Composition"), skip={"out"})
    parser.add_argument("-o", "--out", type=str, required=True, help="Folder to write.")
    given = _parsed(parser, argv)
    from avseg.dataset_tools.compose import Composition, compose

    print(f"avseg: wrote {compose(Composition(**given), progress=sys.stderr.isatty())}")


def _prepare(argv: Sequence[str]) -> None:
    """Prepare a data set from videos: AVSBench's raw videos, or your own with masks."""
    parser = _parser("data prepare", "avseg.dataset_tools.prepare:prepare", skip={"out", "progress"})
    parser.add_argument("-o", "--out", type=Path | None, help="Folder to write your own videos to.")
    given = _parsed(parser, argv)
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


def _figures(argv: Sequence[str]) -> None:
    """Plot the figures of a paper: trend, confidence, attention, panel."""
    verbs = {"trend": _trend, "confidence": _confidence, "attention": _attention, "panel": _panel}
    _choose("figures", verbs, argv)


def _trend(argv: Sequence[str]) -> None:
    """Plot training curves, by default the keep ratio of each stage."""
    parser = _parser("figures trend", "avseg.figures.trend:trend", skip={"runs", "out", "scalars"})
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of avseg train; one panel each.")
    parser.add_argument("--scalars", nargs="+", type=str, help="Names in metrics.csv, keep_ratio/* by default.")
    given = _figure_settings(parser, argv)
    from avseg.figures.trend import trend

    print(f"avseg: wrote {trend(**given)}")


def _confidence(argv: Sequence[str]) -> None:
    """Plot confidence masks and the queries they select."""
    given = _figure_settings(_model_parser("confidence", argv), argv)
    from avseg.figures.confidence import confidence

    print(f"avseg: wrote {confidence(**given)}")


def _attention(argv: Sequence[str]) -> None:
    """Plot the attention maps of each group and stage."""
    given = _figure_settings(_model_parser("attention", argv), argv)
    from avseg.figures.attention import attention

    print(f"avseg: wrote {attention(**given)}")


def _panel(argv: Sequence[str]) -> None:
    """Plot frames, audio, ground truth and the predictions of models."""
    parser = _model_parser("panel", argv)
    parser.add_argument("models", nargs="+", type=str, help="Bundled names, folders of avseg train, or Hub ids.")
    given = _figure_settings(parser, argv)
    from avseg.figures.panel import panel

    print(f"avseg: wrote {panel(**given)}")


def _model_parser(figure: str, argv: Sequence[str]) -> "ArgumentParser":
    """Return a parser for a figure of clips and predictions."""
    parser = _parser(f"figures {figure}", f"avseg.figures.{figure}:{figure}", skip={"models", "out", "data", "pick"})
    parser.add_argument("--pick", nargs="+", type=int, help="Indices of the clips to plot, instead of the default.")
    _add_data(parser, argv, _training_data(argv))
    return parser


def _figure_settings(parser: "ArgumentParser", argv: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a figure on the command line."""
    parser.add_argument("-o", "--out", type=Path, required=True, help="Image file to write: .png, .pdf, .svg or .jpg.")
    return _parsed(parser, argv)


def _choose(verb: str, verbs: Mapping[str, Callable[[Sequence[str]], None]], argv: Sequence[str]) -> None:
    """Run the subcommand named by the first argument."""
    word = argv[0] if argv else "--help"
    if word in ("-h", "--help"):
        print(_table(f"{verb} COMMAND", verbs))
    elif word in verbs:
        verbs[word](argv[1:])
    else:
        raise ConfigError(f"unknown command {f'{verb} {word}'!r}. {did_you_mean(word, verbs)}")


def _parser(verb: str, function: str = "", skip: Collection[str] = ()) -> "ArgumentParser":
    """Return a parser with the arguments of ``function``, given as ``module:name``, except ``skip``."""
    from avseg.declarations import declared
    from avseg.flags import new_parser

    signature = declared(function, skip) if function else None
    parser = new_parser(verb, "" if signature is None else _first_line(signature))
    if signature is not None:
        parser.add_function_arguments(signature, skip=set(skip), as_positional=True)
    return parser


def _parsed(parser: "ArgumentParser", argv: Sequence[str]) -> dict[str, Any]:
    """Return the arguments that are given; all others are left to the defaults of the function."""
    from avseg.flags import parse

    return dict(parse(parser, argv, defaults=False).as_dict())


def _add_data(parser: "ArgumentParser", argv: Sequence[str], default: str) -> None:
    """Add the settings of the data set named on the command line."""
    from avseg.config import add_dataset
    from avseg.flags import choice

    add_dataset(parser, choice(argv, "data") or default)


def _training_data(argv: Sequence[str]) -> str:
    """Return the data set on the card of the checkpoint among the arguments; "synthetic" without one."""
    from avseg.model_folder import CARD, read_card

    folder = next((word for word in argv if (Path(word) / CARD).is_file()), None)
    card = {} if folder is None else read_card(folder)
    return str(card.get("data", {}).get("name", "synthetic"))


def _table(command: str, verbs: Mapping[str, Callable[..., None]]) -> str:
    rows = [f"  {verb:12}{_first_line(function)}" for verb, function in verbs.items()]
    return "\n".join([f"usage: avseg {command} ...", "", *rows, "", f"See avseg {command} --help."])


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]


VERBS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": _train,
    "eval": _eval,
    "bench": _bench,
    "predict": _predict,
    "app": _app,
    "live": _live,
    "profile": _profile,
    "convert": _convert,
    "export": _export,
    "models": _models,
    "datasets": _datasets,
    "recipes": _recipes,
    "data": _data,
    "figures": _figures,
}
