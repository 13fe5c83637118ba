"""``avseg figures``: the figures of a paper."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avseg.commands._parser import add_data, command_parser, parsed, run_subcommand, training_data

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def figures_verb(argv: Sequence[str]) -> None:
    """Plot the figures of a paper: trend, confidence, attention, panel."""
    verbs = {"trend": _trend, "confidence": _confidence, "attention": _attention, "panel": _panel}
    run_subcommand("figures", verbs, argv)


def _trend(argv: Sequence[str]) -> None:
    """Plot training curves, by default the keep ratio of each stage."""
    parser = command_parser("figures trend", "avseg.figures.trend:trend", skip={"runs", "out", "scalars"})
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
    parser = command_parser(
        f"figures {figure}", f"avseg.figures.{figure}:{figure}", skip={"models", "out", "data", "pick"}
    )
    parser.add_argument("--pick", nargs="+", type=int, help="Indices of the clips to plot, instead of the default.")
    add_data(parser, argv, training_data(argv))
    return parser


def _figure_settings(parser: "ArgumentParser", argv: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a figure on the command line."""
    parser.add_argument("-o", "--out", type=Path, required=True, help="Image file to write: .png, .pdf, .svg or .jpg.")
    return parsed(parser, argv)
