"""Build a stock of images and sounds: ``python benchmarks/collect_material.py OUT [options]``.

OUT receives ``classes.yaml``, ``report.md`` and the folders ``train``, ``val``, ``test`` and ``research``, each with
``images/<class>``, ``cutouts/<class>``, ``sounds/<class>`` and ``manifest.csv``. Only material with a stated free
licence is in the first three; ``research`` is for validation only. Items with the same original source are in one part.

Masks hold class numbers; 255 is ignored. Pseudo-masks are treated as follows:

- Black corners of rotated images (accordion, phone) are filled with the blurred colours of the nearest background and
  removed from the mask; images with less than 2 % of background are left out.
- Masks below 3 % or above 92 % of the image, or touching all four sides, are computed again with U²-Net
  (``--saliency``) on the image padded to a square with a margin of 15 %; images whose mask is still implausible are
  left out.
- With ``--people`` (DeepLab v3, PASCAL VOC), people who cover at least 2 % of the image get the number of ``person``
  in images of objects that the model separates from people (llama, umbrella, wheelchair), inside the object's mask too.
  It classifies some instruments, headphones and phones as people: in their images, people's pixels outside the object's
  mask are ignored, and an image is left out when person and object overlap by more than half of either. Masks of the
  class ``person`` are united with the model's.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.progress import track

from _common import mistakes_in_a_line
from avseg.errors import ConfigError, DataError
from material import pictures, recordings, render
from material.classes import classes, read, write_classes
from material.masks import People, Saliency
from material.stock import FOLDERS, PARTS, Item, split, write

INPUTS = {
    "collected": "folder with images.csv and sounds.csv",
    "coco": "folder with manifest_images.csv, manifest_audio.csv and manifest_davis.csv",
    "stamps": "folder of Debian's tuxpaint-stamps-default",
    "soundfont": "General MIDI SoundFont (.sf2, .sf3) for tinysoundfont",
    "saliency": "u2netp.onnx, for onnxruntime",
    "people": "DeepLab v3 for PASCAL VOC (.tflite), for ai-edge-litert",
}


def arguments() -> ArgumentParser:
    """Return the parser of the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write; must not exist or be empty")
    for name, text in INPUTS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", help=text)
    parser.add_argument("--voices", action="store_true", help="add speech by espeak-ng")
    return parser


def check(words: Namespace) -> None:
    """Check that all inputs exist and that the output folder is free.

    Raises:
        DataError: When an input is missing.
        ConfigError: When there is no input, or the output folder has files.
    """
    given = {name: path for name in INPUTS if (path := getattr(words, name)) is not None}
    for name, path in given.items():
        if not path.exists():
            raise DataError(f"--{name} {path} does not exist: expected {INPUTS[name]}")
    if not words.voices and not given.keys() - {"saliency", "people"}:
        raise ConfigError("no material was given: add at least one of --collected, --coco, --stamps, --soundfont")
    if words.out.exists() and any(words.out.iterdir()):
        raise ConfigError(f"{words.out} is not empty: give a new folder, or delete this one first")


def gathered(words: Namespace) -> Iterator[Item]:
    """Yield the items of all inputs without duplicates."""
    sources: list[Iterator[Item]] = []
    if words.collected:
        teachers = pictures.Teachers(
            Saliency(words.saliency) if words.saliency else None, People(words.people) if words.people else None
        )
        sources += [pictures.collected(words.collected, teachers), recordings.collected(words.collected)]
        if (folder := words.collected / "research_only" / "msrc").is_dir():
            sources.append(pictures.msrc(folder))
    if words.coco:
        sources += [pictures.coco(words.coco), pictures.davis(words.coco), recordings.esc(words.coco)]
    if words.stamps:
        sources.append(pictures.stamps(words.stamps))
    if words.soundfont:
        sources.append(render.instruments(words.soundfont))
    if words.voices:
        sources.append(render.voices())
    known: set[tuple[str, str, str]] = set()
    for item in chain.from_iterable(sources):
        if (key := (item.kind, item.label, item.name)) not in known:
            known.add(key)
            yield item


def report(rows: Sequence[dict[str, str]]) -> str:
    """Return the counts by class, kind and part, and the classes that lack pictures or sounds, as Markdown."""
    counts = Counter((row["kind"], row["class"], row["part"]) for row in rows)
    lines = ["# Stock", ""]
    for kind, folder in FOLDERS.items():
        totals = [sum(n for (k, _, p), n in counts.items() if (k, p) == (kind, part)) for part in PARTS]
        lines += [f"## {folder}", "", f"| class | {' | '.join(PARTS)} |", f"|---|{'---|' * len(PARTS)}"]
        for label in sorted({label for k, label, _ in counts if k == kind}):
            lines.append(f"| {label} | {' | '.join(str(counts[kind, label, part]) for part in PARTS)} |")
        lines += [f"| all | {' | '.join(map(str, totals))} |", ""]
    audible = {label for kind, label, part in counts if kind == "sound" and part != "research"}
    seen = {label for kind, label, part in counts if kind != "sound" and part != "research"}
    loud = {row["name"]: row["sounds"] for row in classes().table if not row.get("silent")}
    mute = [name for name, sounds in loud.items() if name in seen and not audible & set(sounds)]
    unseen = [name for name in loud if name not in seen]
    off_screen = sorted(audible - {sound for name in seen & loud.keys() for sound in loud[name]})
    for text, names in (
        ("With pictures, without sounds", mute),
        ("Without pictures", unseen),
        ("Off screen", off_screen),
    ):
        lines += [f"{text}: {', '.join(names) or 'none'}.", ""]
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    """Build the stock."""
    words = arguments().parse_args(given)
    with mistakes_in_a_line():
        check(words)
        items = list(gathered(words))
        parts = split(items)
        shown = track(items, "Writing", console=Console(stderr=True), disable=not sys.stderr.isatty())
        rows = write(words.out, shown, parts)
        audible = {row["class"] for row in rows if row["kind"] == "sound"}
        write_classes(words.out / "classes.yaml", audible, read("instruments.yaml").keys() - {"metronome", "phone"})
        (words.out / "report.md").write_text(report(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
