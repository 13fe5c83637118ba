"""Measure gated decoding and bfloat16 on a trained model: ``python benchmarks/gated_quality.py STOCK OUT.json``.

Clips are composed from the test part of a stock made by ``collect_material.py``, which is never trained on, at the size
of the training data of the model. Every clip is predicted by each form in turn: ``exact``, ``gated`` with several
thresholds c, ``bf16`` and both. For each form there are J of the AVSBench protocol in points, the mean difference from
``exact`` with its 95 % interval (paired bootstrap over clips), the share of the pixels of O_1 that are computed, and
the CPU time relative to ``exact``: the median over clips of the ratios within a clip. One thread; the clock is the CPU
time of the process. Writes OUT.json and a chart, OUT.png.
"""

import shlex
import statistics
import sys
import time
import warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

import avseg
from _common import mistakes_in_a_line
from avseg import optimize
from avseg.bench.statistics import paired_bootstrap
from avseg.data import Sample
from avseg.data.composed import ComposedClips
from avseg.interface import AVSModel
from avseg.metrics import AVSBench
from avseg.provenance import provenance, write_result

EXACT = "exact"
THRESHOLDS = (0.6, 0.8, 0.9, 0.95, 0.99, 0.999)
SEED, FRAMES = 20261124, 5
Shares = dict[str, list[float]]


def forms(model: AVSModel, shares: Shares) -> dict[str, AVSModel]:
    """Return the forms of a model by name; each call of a gated one adds its computed share to ``shares``."""
    confidence = model.config.confidence
    gated = {f"gated {c}": optimize(model, "gated", confidence=c) for c in sorted({*THRESHOLDS, confidence})}
    both = optimize(model, ("gated", "bf16"))
    for name, form in {**gated, "gated, bf16": both}.items():
        _count(form, shares.setdefault(name, []))
    return {EXACT: optimize(model), **gated, "bf16": optimize(model, "bf16"), "gated, bf16": both}


def _count(model: Any, shares: list[float]) -> None:
    unsure: Callable[[Mapping[int, Tensor], torch.Size], Tensor] = model._unsure

    def counted(outputs: Mapping[int, Tensor], size: torch.Size) -> Tensor:
        mask = unsure(outputs, size)
        shares.append(mask.float().mean().item())
        return mask

    model._unsure = counted


def j_of(model: AVSModel, sample: Sample) -> float:
    """Return J of one clip."""
    metric = AVSBench()
    metric.update(model(sample.clip), sample.target, sample.clip.valid)
    return metric.compute()["j"].item()


@torch.inference_mode()
def measure(models: Mapping[str, AVSModel], samples: Sequence[Sample]) -> dict[str, dict[str, list[float]]]:
    """Return form → J and CPU seconds of every clip, after a warm-up."""
    found: dict[str, dict[str, list[float]]] = {name: {"j": [], "seconds": []} for name in models}
    for model in models.values():
        model(samples[0].clip)
    for sample in track(samples, "clips", console=Console(stderr=True)):
        for name, model in models.items():
            start = time.process_time()
            score = j_of(model, sample)
            found[name]["seconds"].append(time.process_time() - start)
            found[name]["j"].append(score)
    return found


def rows_of(found: Mapping[str, Mapping[str, list[float]]], shares: Shares) -> dict[str, dict[str, Any]]:
    """Return one row of numbers per form."""
    exact = found[EXACT]
    return {
        name: {
            "j": 100 * statistics.mean(row["j"]),
            **_difference(row["j"], exact["j"]),
            "time": statistics.median(a / b for a, b in zip(row["seconds"], exact["seconds"], strict=True)),
            **({"computed": statistics.mean(shares[name])} if name in shares else {}),
        }
        for name, row in found.items()
    }


def _difference(ours: Sequence[float], exact: Sequence[float]) -> dict[str, float]:
    """Return the mean difference in points and its 95 % interval."""
    scores = [{f"{k:05d}": value for k, value in enumerate(row)} for row in (ours, exact)]
    found = paired_bootstrap(scores[:1], scores[1:])
    return {"difference": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}


def draw(rows: Mapping[str, Mapping[str, float]], confidence: float, path: Path) -> None:
    """Draw the difference of J, the computed share and the CPU time over c."""
    gated = {float(name.split()[1]): row for name, row in rows.items() if name.startswith("gated ")}
    places = range(len(gated))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    means, lows, highs = ([row[key] for row in gated.values()] for key in ("difference", "low", "high"))
    bars = [[m - low for m, low in zip(means, lows, strict=True)], [h - m for m, h in zip(means, highs, strict=True)]]
    axes[0].errorbar(places, means, bars, marker="o", capsize=3, label="gated, float32")
    both = rows["gated, bf16"]
    at = [*gated].index(confidence)
    ends = [[both["difference"] - both["low"]], [both["high"] - both["difference"]]]
    axes[0].errorbar([at + 0.15], [both["difference"]], ends, marker="s", capsize=3, label="gated, bf16")
    axes[0].axhline(0, color="0.7", zorder=0)
    axes[0].set(title="J minus J of exact, in points", ylim=_around([*lows, *highs, both["low"], both["high"]]))
    axes[0].legend(frameon=False)
    axes[1].plot(places, [100 * row["computed"] for row in gated.values()], marker="o")
    axes[1].set(title="computed pixels of O_1, in %", ylim=(0, None))
    axes[2].plot(places, [100 * row["time"] for row in gated.values()], marker="o", label="gated, float32")
    axes[2].plot([at], [100 * both["time"]], "s", label="gated, bf16")
    axes[2].axhline(100, color="0.7", zorder=0)
    axes[2].set(title="CPU time, in % of exact", ylim=(0, None))
    axes[2].legend(frameon=False)
    for panel in axes:
        panel.set(xticks=places, xticklabels=[f"{c:g}" for c in gated], xlabel="threshold c of the gate")
        panel.axvline(at, color="0.85", linestyle="--", zorder=0)
    figure.savefig(path, dpi=110)


def _around(values: Sequence[float]) -> tuple[float, float]:
    bound = 1.15 * max(0.3, *map(abs, values))
    return -bound, bound


def main(argv: Sequence[str]) -> None:
    """Measure, write and draw."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("stock", type=Path, help="folder made by collect_material.py")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--clips", type=int, default=200)
    words = parser.parse_args(argv)
    torch.set_num_threads(1)
    command = shlex.join(
        ["python", "benchmarks/gated_quality.py", "STOCK", str(words.out), "--clips", str(words.clips)]
    )
    report = provenance(f"OMP_NUM_THREADS=1 {command}")  # of the code that runs
    with mistakes_in_a_line():
        model = avseg.load("small")
        rows = rows_of(*scored(model, composed_clips(model, words.stock, words.clips)))
        config = {"model": "small", "data": "composed", "seed": SEED, "clips": words.clips, "frames": FRAMES}
        write_result(words.out, {**report, "config": {**config, "clock": "CPU time"}, "numbers": rows})
        draw(rows, model.config.confidence, words.out.with_suffix(".png"))


def scored(model: AVSModel, samples: Sequence[Sample]) -> tuple[dict[str, dict[str, list[float]]], Shares]:
    """Return the scores of all forms, and the computed shares of the gated ones."""
    shares: Shares = {}
    models = forms(model, shares)
    found = measure(models, samples)
    return found, {name: row[1:] for name, row in shares.items()}  # without the warm-up


def composed_clips(model: AVSModel, stock: Path, count: int, part: Literal["val", "test"] = "test") -> list[Sample]:
    """Return composed clips of a part of a stock, at the size of the model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has (recordings|pictures)")
        size = model.card["data"]["size"]
        config = ComposedClips.Config(root=str(stock), size=size, seed=SEED, val=count, test=count, frames=FRAMES)
        data = ComposedClips(config, part)
    return [data[k] for k in track(range(count), "composing", console=Console(stderr=True))]


if __name__ == "__main__":
    main(sys.argv[1:])
