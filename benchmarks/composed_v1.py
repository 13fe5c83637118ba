"""Measure models on the benchmark composed-v1: ``python benchmarks/composed_v1.py STOCK WORK OUT.json MODEL ...``.

The benchmark is fixed by ``composed_v1/files.csv`` (photographs, cut-outs and recordings of the test part of a stock,
with their hashes; none of them, nor another file of the same source, was used for training) and by
``composed_v1/settings.yaml`` (seeds). STOCK is a folder made by ``collect_material.py``. The listed files are linked
into WORK, which may be used again. Two sets of clips are scored:

- *clips*: 200 clips of five frames of all kinds, with the protocols and the wrong audio of ``avseg eval``;
- *pairs*: 200 frames of two photographs side by side. A frame counts as right when a larger share of the sounding
  object than of the other one is marked. The expected calibration error is measured on these frames too.

Writes OUT.json and a chart of J per class, OUT.png.
"""

import csv
import hashlib
import os
import shlex
import shutil
import sys
import warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from _common import mistakes_in_a_line
from avseg.checkpoints.store import load
from avseg.data.composed import ComposedClips
from avseg.errors import DataError
from avseg.evaluation.evaluate import evaluate
from avseg.interface import AVSModel
from avseg.metrics.calibration import Calibration
from avseg.provenance import provenance, write_result
from avseg.synthesis.soundtrack import SILENT, SOUNDING

HERE = Path(__file__).parent / "composed_v1"
LISTED = HERE / "files.csv"
_FEW = 8
"""Classes with fewer clips are left out of the chart."""


def gather(stock: Path, work: Path) -> None:
    """Link the listed files of a stock into ``work``, unless they are there.

    Raises:
        DataError: When a file is missing or is another file.
    """
    with LISTED.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in track(rows, "checking files", console=Console(stderr=True), transient=True):
        source, target = stock / row["file"], work / row["file"]
        if not source.is_file():
            raise DataError(f"no {source}: composed-v1 needs the stock that collect_material.py makes")
        if hashlib.sha256(source.read_bytes()).hexdigest() != row["sha256"]:
            raise DataError(f"{source} is another file than composed-v1 lists: make the stock again")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(source, target)
    extra = {str(p.relative_to(work)) for p in (work / "test").rglob("*") if p.is_file()} - {r["file"] for r in rows}
    if extra:
        raise DataError(f"{work} holds {min(extra)}, which composed-v1 does not list: give an empty folder")
    shutil.copyfile(stock / "classes.yaml", work / "classes.yaml")


def clips(model: AVSModel, work: Path, settings: Mapping[str, Any]) -> ComposedClips:
    """Return a set of clips at the size the model was trained on."""
    size = (model.card.get("data") or {}).get("size", 224)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has (recordings|pictures)")
        config = ComposedClips.Config(root=str(work), size=size, **settings)
        return ComposedClips(config, "test")


@torch.inference_mode()
def side_accuracy(model: AVSModel, data: ComposedClips) -> dict[str, float]:
    """Return the share of frames in which more of the sounding object than of the other one is marked.

    The expected calibration error of the probabilities is that of all pixels of all pairs.
    """
    right: list[bool] = []
    calibration = Calibration(model.classes)
    for index in track(range(len(data)), "pairs", console=Console(stderr=True), transient=True):
        scene, sample = data.compose(index), data[index]
        prediction = model(sample.clip)
        calibration.update(prediction.probabilities[0], sample.target.masks[0])
        states = scene.states[:, 0]
        sounding, silent = (np.flatnonzero(states == s) + 1 for s in (SOUNDING, SILENT))
        if len(sounding) != 1 or not len(silent):
            continue
        marked = prediction.masks[0, 0].numpy()
        shares = [marked[np.isin(scene.objects[0], numbers)] for numbers in (sounding, silent)]
        if all(len(share) for share in shares):
            right.append(bool(shares[0].mean() > shares[1].mean()))
    return {"frames": len(right), "right": float(np.mean(right)), "ece": calibration.probability_bins.ece}


def measure(name: str, work: Path) -> dict[str, Any]:
    """Return all numbers of a model."""
    model = load(name)
    settings = yaml.safe_load((HERE / "settings.yaml").read_text(encoding="utf-8"))
    report = evaluate(model, clips(model, work, settings["clips"]))
    del report["per_clip"]
    return {"clips": report, "pairs": side_accuracy(model, clips(model, work, settings["pairs"]))}


def table(numbers: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return one row per model."""
    shown = Table(
        "model", "J", "F", "J silence", "J noise", "J other clip", "frames marked without cause", "right side"
    )
    for name, found in numbers.items():
        report = found["clips"]
        scores = [report["scores"]["avsbench"][key] for key in ("j", "f")]
        scores += [report["negatives"][kind]["scores"]["avsbench"]["j"] for kind in ("silence", "noise", "swap")]
        scores += [report["scores"]["strict"]["false_frames"], found["pairs"]["right"]]
        shown.add_row(name, *(f"{score:.3f}" for score in scores))
    return shown


def chart(numbers: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw J per class as bars, one colour per model."""
    classes: dict[str, int] = {}
    for found in numbers.values():
        classes |= {c: v["clips"] for c, v in found["clips"].get("per_category", {}).items() if v["clips"] >= _FEW}
    names = sorted(classes, key=lambda c: -classes[c])
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(names) * max(1, len(numbers)) + 1.2), layout="constrained")
    height = 0.8 / len(numbers)
    for k, (model, found) in enumerate(numbers.items()):
        values = [found["clips"]["per_category"].get(c, {"j": 0.0})["j"] for c in names]
        axes.barh(np.arange(len(names)) + k * height, values, height, label=model)
    axes.set_yticks(np.arange(len(names)) + 0.4 - height / 2, [f"{c} ({classes[c]})" for c in names])
    axes.invert_yaxis()
    axes.set(
        xlabel="J (AVSBench protocol)", xlim=(0, 1), title="composed-v1: clips by sounding class (number of clips)"
    )
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("stock", type=Path, help="folder made by collect_material.py")
    parser.add_argument("work", type=Path, help="folder for the files of the benchmark")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("models", nargs="+", help="bundled names, folders or Hub ids")
    words = parser.parse_args(argv)
    with mistakes_in_a_line():
        gather(words.stock, words.work)
        numbers = {Path(name).name: measure(name, words.work) for name in words.models}
        command = shlex.join(["python", "benchmarks/composed_v1.py", "STOCK", "WORK", str(words.out), *numbers])
        config = yaml.safe_load((HERE / "settings.yaml").read_text(encoding="utf-8"))
        files = hashlib.sha256(LISTED.read_bytes()).hexdigest()
        write_result(
            words.out, {**provenance(command), "config": {**config, "files_sha256": files}, "numbers": numbers}
        )
    chart(numbers, words.out.with_suffix(".png"))
    Console().print(table(numbers))


if __name__ == "__main__":
    main(sys.argv[1:])
