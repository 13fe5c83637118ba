"""``avseg profile``, ``convert`` and ``export``."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from avseg.commands._parser import command_parser, parsed


def profile_verb(argv: Sequence[str]) -> None:
    """Measure parameters, operations, time and memory of a model, part by part."""
    from avseg.config import MODELS, model_config
    from avseg.registry import all_names, is_class_path

    names = all_names(MODELS)
    parser = command_parser("profile", "avseg.profile:profile", skip={"model", "progress"})
    parser.add_argument("model", help=f"{', '.join(names)}, or a trained model: bundled name, folder, Hub id.")
    parser.add_argument("--classes", type=int, default=1, help="Output channels of an untrained model.")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, mps, or auto for the fastest one.")
    parser.add_argument("-o", "--output", type=Path | None, help="JSON file to write.")
    untrained = next((word for word in argv if word in names or is_class_path(word)), None)
    if untrained is not None:
        parser.add_class_arguments(model_config(untrained))
    given = parsed(parser, argv)
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


def convert_verb(argv: Sequence[str]) -> None:
    """Convert a checkpoint released by a paper's authors to a folder for avseg."""
    parser = command_parser("convert", "avseg.checkpoints.release:convert", skip={"output"})
    parser.add_argument("-o", "--output", type=Path, required=True, help="Folder to write.")
    given = parsed(parser, argv)
    from avseg.checkpoints.release import convert

    print(f"avseg: wrote {convert(**given)}")


def export_verb(argv: Sequence[str]) -> None:
    """Write a model to an ONNX file, and compare the file with the model."""
    parser = command_parser("export", "avseg.export.write:export", skip={"model", "path"})
    parser.add_argument("model", type=str, help="Bundled name, folder or Hub id of the model.")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="File to write, *.onnx; its card is *.onnx.json."
    )
    given = parsed(parser, argv)
    from avseg.checkpoints.store import load
    from avseg.export.write import export

    output = given.pop("output")
    for found in export(load(given.pop("model")), output, **given):
        differences = f"{found.probabilities:.1e} in probabilities and {found.logits:.1e} in logits"
        print(f"avseg: {found.input}: largest difference {differences}; {found.masks:.4%} of mask pixels equal")
    print(f"avseg: wrote {output} and {output}.json")
