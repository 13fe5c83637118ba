"""Measure how often AudioSet scores name a recording: ``python benchmarks/sound_names.py STOCK OUT.json``.

For each recording of the part ``research`` of a stock (never trained on) the name is the object class with the highest
score of any of its AudioSet classes, over all windows of one second (:mod:`avseg.nn.class_prior`). It is right when it
is one of the classes in :data:`RIGHT` for the folder of the recording. Folders without a class there are left out.
Names in results would need 80 %.
"""

import shlex
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

import avseg
from _common import mistakes_in_a_line
from avseg.interface import AVSModel
from avseg.mel import SAMPLE_RATE, log_mel_at
from avseg.nn.audio import AudioEncoder
from avseg.nn.class_prior import object_classes
from avseg.provenance import provenance, write_result
from avseg.synthesis.stock import Recording, Stock, open_stock

RIGHT = {
    "acoustic_guitar": {"guitar", "banjo", "electric_guitar"},
    "airplane": {"airplane"},
    "big_cat": {"big_cat"},
    "bird": {"bird"},
    "car": {"car"},
    "car_horn": {"car"},
    "cat": {"cat", "big_cat"},
    "chicken": {"chicken"},
    "cow": {"cow"},
    "dog": {"dog"},
    "donkey": {"horse"},
    "drum": {"drum"},
    "duck": {"duck"},
    "engine_idling": {"car", "truck", "motorcycle", "bus"},
    "frog": {"frog"},
    "horse": {"horse"},
    "piano": {"piano"},
    "pig": {"pig"},
    "rooster": {"chicken"},
    "sheep": {"sheep"},
    "siren": {"emergency_vehicle"},
    "tractor": {"tractor", "truck"},
    "train": {"train"},
    "trumpet": {"trumpet", "trombone"},
    "violin": {"violin", "cello"},
}
"""Folder of recordings → names that are right."""
UNNAMED = {"monkey", "elephant", "bear"}
"""Object classes whose AudioSet classes are too general for a name."""


@torch.inference_mode()
def best(model: AVSModel, stock: Stock, recording: Recording) -> tuple[str, float]:
    """Return the name of a recording and its score in 0..1."""
    wave = torch.from_numpy(stock.wave(recording))
    times = torch.arange(max(1, len(wave) // SAMPLE_RATE)) + 0.5
    encoder = cast("AudioEncoder", model.audio)
    scores = encoder.scores(encoder(log_mel_at(wave, times)[None]))[0].sigmoid().amax(0)
    found = {c.name: float(scores[list(c.audio)].max()) for c in object_classes() if c.name not in UNNAMED}
    name = max(found, key=lambda n: found[n])
    return name, found[name]


def measure(model: AVSModel, stock: Stock) -> dict[str, Any]:
    """Return the share of right names: of all, of those with a score of 0.5 or more, and of each folder."""
    rows = [(folder, r) for folder, recordings in stock.recordings.items() if folder in RIGHT for r in recordings]
    right: dict[str, list[bool]] = {}
    certain: list[bool] = []
    for folder, recording in track(rows, "naming", console=Console(stderr=True), transient=True):
        name, score = best(model, stock, recording)
        right.setdefault(folder, []).append(name in RIGHT[folder])
        if score >= 0.5:
            certain.append(name in RIGHT[folder])
    return {
        "recordings": len(rows),
        "right": float(np.mean([r for row in right.values() for r in row])),
        "certain_share": len(certain) / len(rows),
        "certain_right": float(np.mean(certain)),
        "folders": {folder: {"recordings": len(row), "right": float(np.mean(row))} for folder, row in right.items()},
    }


def main(argv: Sequence[str]) -> None:
    """Measure and write."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("stock", type=Path, help="folder made by collect_material.py")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--model", default="small", help="model with the audio encoder mobile")
    parser.add_argument("--part", default="research", help="part of the stock")
    words = parser.parse_args(argv)
    with mistakes_in_a_line():
        numbers = measure(avseg.load(words.model), open_stock(words.stock, words.part))
        command = shlex.join(["python", "benchmarks/sound_names.py", "STOCK", str(words.out)])
        config = {"model": words.model, "part": words.part}
        write_result(words.out, {**provenance(command), "config": config, "numbers": numbers})
    Console().print(f"{numbers['right']:.3f} of {numbers['recordings']} recordings")


if __name__ == "__main__":
    main(sys.argv[1:])
