"""Score a model at several thresholds on held-out photographs: ``python benchmarks/threshold_curve.py STOCK OUT.json``.

Photographs and real recordings of the parts ``research`` and ``test`` of a stock, which are never trained on, are
paired by class (``_photo_clips.py``). Each photograph is shown with a recording of its class, with one of another class
that it does not show, and with a background sound (rain, wind, traffic …). For each threshold there are

- the mean IoU over the frames in which the recording sounds;
- the same with the recording of another class, where a lower IoU is better;
- the share of frames with a background sound of which more than a thousandth is marked.

Writes OUT.json and a chart, OUT.png. The photographs are not moving pictures, and most show one object.
"""

import shlex
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

import avseg
from _common import mistakes_in_a_line
from _photo_clips import PARTS, PhotoClip, photo_clips, recordings, sounding, still_clip
from avseg.interface import IGNORE, AVSModel
from avseg.provenance import provenance, write_result
from avseg.synthesis.stock import open_stock
from object_names import RIGHT

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SHOWN = 0.5
"""Threshold of the scores of each class: the default of ``avseg predict``."""
_MARKED = 0.001
_BACKGROUND = ("rain", "wind", "waves", "stream", "fire", "thunder", "crowd", "traffic")


@torch.inference_mode()
def probabilities(model: AVSModel, clip: PhotoClip, wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (T, H, W) probabilities of a photograph with some recording."""
    found: NDArray[np.float32] = model(still_clip(model, clip.planes, wave)).probabilities[0, :, 0].numpy()
    return found


def ious(maps: NDArray[np.float32], clip: PhotoClip, frames: NDArray[np.bool_]) -> list[float]:
    """Return the mean IoU over the chosen frames at each threshold."""
    size = maps.shape[2], maps.shape[1]
    labels = np.asarray(Image.fromarray(clip.planes[..., 3]).resize(size, Image.Resampling.NEAREST))
    truth, scored = labels == clip.number, labels != IGNORE
    found = []
    for threshold in THRESHOLDS:
        masks = (maps[frames] > threshold) & scored
        union = (masks | truth).sum((1, 2))
        found.append(float(((masks & truth).sum((1, 2)) / np.maximum(union, 1)).mean()))
    return found


def measure(model: AVSModel, stock: Path, most: int) -> dict[str, Any]:
    """Return the three numbers at each threshold, and the IoU of each class."""
    clips = photo_clips(stock, list(RIGHT), most)
    background = recordings([open_stock(stock, part) for part in PARTS], _BACKGROUND)
    right, wrong, marked = [], [], []
    for index, clip in enumerate(track(clips, "photographs", console=Console(stderr=True))):
        rng = np.random.default_rng(index)
        shown = set(np.unique(clip.planes[..., 3]).tolist())
        others = [other.wave for other in clips if other.number not in shown]
        right.append(ious(probabilities(model, clip, clip.wave), clip, sounding(clip.wave)))
        other = others[int(rng.integers(len(others)))]
        wrong.append(ious(probabilities(model, clip, other), clip, sounding(other)))
        maps = probabilities(model, clip, background[int(rng.integers(len(background)))])
        marked.append([float(((maps > t).mean((1, 2)) > _MARKED).mean()) for t in THRESHOLDS])
    at = THRESHOLDS.index(SHOWN)
    names = dict.fromkeys(clip.name for clip in clips)
    rows = {name: [row[at] for row, clip in zip(right, clips, strict=True) if clip.name == name] for name in names}
    return {
        "clips": len(clips),
        "thresholds": list(THRESHOLDS),
        "iou": np.mean(right, 0).tolist(),
        "iou_other_class": np.mean(wrong, 0).tolist(),
        "marked_background": np.mean(marked, 0).tolist(),
        "classes": {name: {"clips": len(row), "iou": float(np.mean(row))} for name, row in rows.items()},
    }


def draw(numbers: dict[str, Any], out: Path) -> None:
    """Draw the three numbers over the threshold."""
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for key, label in (
        ("iou", "IoU"),
        ("iou_other_class", "IoU, sound of another class"),
        ("marked_background", "frames marked, background sound"),
    ):
        axes.plot(numbers["thresholds"], numbers[key], marker="o", label=label)
    axes.axvline(SHOWN, color="0.7", linestyle="--", zorder=0)
    axes.set(xlabel="threshold", ylim=(0, 1), xticks=numbers["thresholds"])
    axes.legend(frameon=False)
    figure.savefig(out, dpi=150)


def main(argv: Sequence[str]) -> None:
    """Measure, write and draw."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("stock", type=Path, help="folder made by collect_material.py")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--model", default="small", help="model of one class")
    parser.add_argument("--most", type=int, default=20, help="largest number of clips of a class")
    words = parser.parse_args(argv)
    with mistakes_in_a_line():
        numbers = measure(avseg.load(words.model), words.stock, words.most)
        command = shlex.join(["python", "benchmarks/threshold_curve.py", "STOCK", str(words.out)])
        config = {"model": words.model, "parts": list(PARTS), "most": words.most}
        write_result(words.out, {**provenance(command), "config": config, "numbers": numbers})
        draw(numbers, words.out.with_suffix(".png"))
    Console().print(f"IoU {numbers['iou'][THRESHOLDS.index(SHOWN)]:.3f} over {numbers['clips']} clips")


if __name__ == "__main__":
    main(sys.argv[1:])
