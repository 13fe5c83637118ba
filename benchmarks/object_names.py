"""Measure how often sounding objects are named right: ``python benchmarks/object_names.py STOCK OUT.json``.

Photographs and real recordings of the parts ``research`` and ``test`` of a stock, which are never trained on, are
paired by class: a clip is five frames of one photograph with five seconds of one recording. The name is that of
:mod:`avseg.prediction.objects` over the frames with a mask. It is right when it is one of the names in :data:`RIGHT`
for the class of the photograph. Instruments are left out, since most of their recordings are rendered.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from _photo_clips import PhotoClip, measure_photo_clips, photo_clips, still_clip
from avseg.interface import AVSModel
from avseg.prediction import objects
from avseg.prediction.objects import NamedObject, highest

RIGHT = {
    "airplane": {"airplane"},
    "bear": {"bear"},
    "big_cat": {"big_cat"},
    "bird": {"bird", "duck", "chicken"},
    "bus": {"bus"},
    "car": {"car"},
    "cat": {"cat"},
    "cow": {"cow"},
    "dog": {"dog"},
    "elephant": {"elephant"},
    "goat": {"sheep"},
    "helicopter": {"helicopter"},
    "horse": {"horse"},
    "insect": {"insect"},
    "motorcycle": {"motorcycle"},
    "person": {"person"},
    "pig": {"pig"},
    "rooster": {"chicken"},
    "sheep": {"sheep"},
    "train": {"train"},
    "truck": {"truck"},
    "wild_cat": {"cat", "big_cat"},
}
"""Class of a photograph → names that are right; ``sheep`` has the AudioSet classes sheep, goat and bleat."""


@torch.inference_mode()
def named(model: AVSModel, clip: PhotoClip) -> NamedObject | None:
    """Return the name of what sounds; None when nothing is marked."""
    prediction = model(still_clip(model, clip.planes, clip.wave))
    scores = model.object_scores(prediction)
    if scores is None:
        raise SystemExit(f"{model.name} scores no objects")
    marked = prediction.masks[0].flatten(1).any(1).tolist()
    rows = [highest(model.object_names, row) for row, shown in zip(scores[0].tolist(), marked, strict=True) if shown]
    return objects.best(rows, least=0.0) or NamedObject("", 0.0) if rows else None


def measure(model: AVSModel, stock: Path, most: int) -> dict[str, Any]:
    """Return the share of right names of all clips with a mask, of those that get a name, and of each class."""
    clips = photo_clips(stock, list(RIGHT), most)
    found = [(clip.name, named(model, clip)) for clip in track(clips, "naming", console=Console(stderr=True))]
    rows = [(name, best) for name, best in found if best is not None]
    right = {k: [f.name in RIGHT[name] for name, f in rows if name == k] for k in RIGHT}
    certain = [found.name in RIGHT[name] for name, found in rows if found.score >= objects.LEAST]
    return {
        "clips": len(clips),
        "marked": len(rows),
        "right": float(np.mean([r for row in right.values() for r in row])),
        "named": len(certain),
        "named_right": float(np.mean(certain)),
        "least_score": objects.LEAST,
        "classes": {k: {"marked": len(row), "right": float(np.mean(row))} for k, row in right.items() if row},
    }


def main(argv: Sequence[str]) -> None:
    """Measure and write."""
    numbers, _ = measure_photo_clips("object_names", __doc__, measure, argv)
    every, some = (
        f"{numbers['right']:.3f} of {numbers['marked']}",
        f"{numbers['named_right']:.3f} of {numbers['named']}",
    )
    Console().print(f"right: {every} with a mask, {some} with a name")


if __name__ == "__main__":
    main(sys.argv[1:])
