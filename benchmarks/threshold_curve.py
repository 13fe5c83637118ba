"""Score a model at several thresholds on held-out photographs: ``python benchmarks/threshold_curve.py STOCK OUT.json``.

Photographs and real recordings of the parts ``research`` and ``test`` of a stock, which are never trained on, are
paired by class (``_photo_clips.py``). Each photograph is shown with a recording of its class, with one of another class
that it does not show, and with a background sound (rain, wind, traffic …). For each threshold there are

- the mean IoU over the frames in which the recording sounds;
- the same with the recording of another class, where a lower IoU is better;
- the share of frames with a background sound of which more than a thousandth is marked.

The same numbers are given at the default threshold for values of ``peak_gate``: frames without a pixel above it have no
mask. Writes OUT.json and a chart, OUT.png. The photographs are not moving pictures, and most show one object.
"""

import sys
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

from _common import mistakes_in_a_line
from _photo_clips import PARTS, PhotoClip, measure_photo_clips, photo_clips, recordings, sounding, still_clip
from avseg.interface import IGNORE, AVSModel
from avseg.synthesis.stock import open_stock
from object_names import RIGHT

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
PEAKS = (0.0, 0.6, 0.7, 0.8, 0.9)
SHOWN, PEAK = 0.5, 0.8
"""Threshold and peak gate of the scores of each class: the defaults of ``avseg predict`` with ``small``."""
Masks = dict[str, list[NDArray[np.bool_]]]
_MARKED = 0.001
_BACKGROUND = ("rain", "wind", "waves", "stream", "fire", "thunder", "crowd", "traffic")


@torch.inference_mode()
def probabilities(model: AVSModel, clip: PhotoClip, wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (T, H, W) probabilities of a photograph with some recording."""
    found: NDArray[np.float32] = model(still_clip(model, clip.planes, wave)).probabilities[0, :, 0].numpy()
    return found


def masks_of(maps: NDArray[np.float32]) -> Masks:
    """Return the masks (T, H, W) at each threshold without a gate, and with each gate at the default threshold."""
    peaks = maps.max((1, 2), keepdims=True)
    return {
        "thresholds": [maps > t for t in THRESHOLDS],
        "gates": [(maps > SHOWN) & (peaks > peak) for peak in PEAKS],
    }


def ious(masks: Masks, clip: PhotoClip, frames: NDArray[np.bool_]) -> dict[str, list[float]]:
    """Return the mean IoU of masks over the chosen frames."""
    height, width = masks["gates"][0].shape[1:]
    labels = np.asarray(Image.fromarray(clip.planes[..., 3]).resize((width, height), Image.Resampling.NEAREST))
    truth, scored = labels == clip.number, labels != IGNORE

    def score(mask: NDArray[np.bool_]) -> float:
        shown = mask[frames] & scored
        union = np.maximum((shown | truth).sum((1, 2)), 1)
        return float(((shown & truth).sum((1, 2)) / union).mean())

    return {kind: [score(mask) for mask in row] for kind, row in masks.items()}


def measure(model: AVSModel, stock: Path, most: int) -> dict[str, Any]:
    """Return the three numbers at each threshold and with each gate, and the IoU of each class."""
    clips = photo_clips(stock, list(RIGHT), most)
    background = recordings([open_stock(stock, part) for part in PARTS], _BACKGROUND)
    rows: dict[str, list[dict[str, list[float]]]] = {"iou": [], "iou_other_class": [], "marked_background": []}
    for index, clip in enumerate(track(clips, "photographs", console=Console(stderr=True))):
        rng = np.random.default_rng(index)
        shown = set(np.unique(clip.planes[..., 3]).tolist())
        others = [other.wave for other in clips if other.number not in shown]
        rows["iou"].append(ious(masks_of(probabilities(model, clip, clip.wave)), clip, sounding(clip.wave)))
        other = others[int(rng.integers(len(others)))]
        rows["iou_other_class"].append(ious(masks_of(probabilities(model, clip, other)), clip, sounding(other)))
        masks = masks_of(probabilities(model, clip, background[int(rng.integers(len(background)))]))
        marked = {kind: [float((m.mean((1, 2)) > _MARKED).mean()) for m in row] for kind, row in masks.items()}
        rows["marked_background"].append(marked)
    at = PEAKS.index(PEAK)
    names = dict.fromkeys(clip.name for clip in clips)
    scores = [(clip.name, row["gates"][at]) for clip, row in zip(clips, rows["iou"], strict=True)]
    classes = {name: [score for other, score in scores if other == name] for name in names}
    return {
        "clips": len(clips),
        "thresholds": {"values": list(THRESHOLDS), **_means(rows, "thresholds")},
        "gates": {"values": list(PEAKS), **_means(rows, "gates")},
        "classes": {name: {"clips": len(row), "iou": float(np.mean(row))} for name, row in classes.items()},
    }


def _means(rows: dict[str, list[dict[str, list[float]]]], kind: str) -> dict[str, list[float]]:
    return {key: np.mean([row[kind] for row in found], 0).tolist() for key, found in rows.items()}


def draw(numbers: dict[str, Any], out: Path) -> None:
    """Draw the three numbers over the threshold and over the gate."""
    figure, both = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    for axes, kind, name, at in zip(
        both, ("thresholds", "gates"), ("threshold", "peak_gate"), (SHOWN, PEAK), strict=True
    ):
        for key, label in (
            ("iou", "IoU"),
            ("iou_other_class", "IoU, sound of another class"),
            ("marked_background", "frames marked, background sound"),
        ):
            axes.plot(numbers[kind]["values"], numbers[kind][key], marker="o", label=label)
        axes.axvline(at, color="0.7", linestyle="--", zorder=0)
        axes.set(xlabel=name, ylim=(0, 1), xticks=numbers[kind]["values"])
    both[0].legend(frameon=False, loc="lower left", fontsize=8)
    figure.savefig(out, dpi=150)


def main(argv: Sequence[str]) -> None:
    """Measure, write and draw."""
    numbers, out = measure_photo_clips("threshold_curve", __doc__, measure, argv)
    with mistakes_in_a_line():
        draw(numbers, out.with_suffix(".png"))
    Console().print(f"IoU {numbers['gates']['iou'][PEAKS.index(PEAK)]:.3f} over {numbers['clips']} clips")


if __name__ == "__main__":
    main(sys.argv[1:])
