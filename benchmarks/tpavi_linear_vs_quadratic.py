"""Compare time and memory of TPAVI's two forms and of PCMANet.

    python benchmarks/tpavi_linear_vs_quadratic.py OUT.json

One clip of five 224 x 224 frames with audio embeddings; the models are timed in turn, so that other load affects all of
them equally. Memory is the peak while a model runs, including its weights.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from avseg import build
from avseg.costs import all_macs, memory
from avseg.interface import AVSModel, Clip
from avseg.profile import noise
from avseg.provenance import provenance

RUNS = 7
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "tpavi, quadratic": ("tpavi", {"form": "quadratic"}),
    "tpavi, linear": ("tpavi", {}),
    "pcmanet": ("pcmanet", {}),
}


def seconds(model: AVSModel, clip: Clip) -> float:
    """Time one call."""
    start = time.perf_counter()
    model(clip)
    return time.perf_counter() - start


def counted(model: AVSModel, clip: Clip) -> dict[str, float]:
    """Return all multiply-accumulates, and the peak memory in bytes."""
    with all_macs() as macs:
        model(clip)
        total = macs()
    with memory(model, clip) as gauge:
        model(clip)
        return {"macs": total, "peak_memory": gauge.peak()}


@torch.no_grad()
def measure(visual: str) -> dict[str, dict[str, float]]:
    """Return median seconds, operations and memory of each model."""
    models = {label: build(name, visual=visual, audio="none", **kw).eval() for label, (name, kw) in MODELS.items()}
    clip = noise(models["pcmanet"], 5, 224, 224)
    times: dict[str, list[float]] = {label: [] for label in models}
    for _ in range(RUNS):
        for label, model in models.items():
            times[label].append(seconds(model, clip))
    return {
        label: {"seconds_median": statistics.median(times[label]), **counted(model, clip)}
        for label, model in models.items()
    }


def main(out: str) -> None:
    """Measure and write."""
    report = provenance(f"python benchmarks/tpavi_linear_vs_quadratic.py {out}") | {
        "config": {"clip": {"frames": 5, "height": 224, "width": 224}, "runs": RUNS},
        "numbers": {visual: measure(visual) for visual in ("resnet50", "pvt_v2_b5")},
    }
    Path(out).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
