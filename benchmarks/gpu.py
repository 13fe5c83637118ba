"""Measure models on a GPU: ``python benchmarks/gpu.py OUT.json``.

Each model runs eagerly, compiled with CUDA graphs, and both under bfloat16 autocast, on clips of five 224 x 224 frames:
latency with one clip, and throughput with the best batch size of 1, 2, 4, 8, 16, 32.
"""

import shlex
import statistics
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from _common import mistakes_in_a_line
from avseg import build
from avseg.errors import ConfigError
from avseg.interface import Clip
from avseg.profile import noise
from avseg.provenance import provenance, write_result

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "pcmanet, ResNet-50": ("pcmanet", {"visual": "resnet50", "gather": False}),
    "pcmanet, PVT-v2-b5": ("pcmanet", {"visual": "pvt_v2_b5", "gather": False}),
    "tpavi, ResNet-50": ("tpavi", {"visual": "resnet50"}),
    "cpm, ResNet-50": ("cpm", {"visual": "resnet50"}),
    "ama_ue, PVT-v2-b5": ("ama_ue", {"visual": "pvt_v2_b5"}),
}
FORMS = ("eager", "compiled", "eager bf16", "compiled bf16")
BATCHES = (1, 2, 4, 8, 16, 32)
FRAMES, SIZE = 5, 224
_WARM_UP = 3


def require_gpu() -> torch.device:
    """Return the GPU.

    Raises:
        ConfigError: When torch finds none.
    """
    if not torch.cuda.is_available():
        raise ConfigError("torch finds no CUDA GPU: run this on a machine with one and a CUDA build of torch")
    return torch.device("cuda")


def milliseconds(model: Any, clip: Clip, bf16: bool, runs: int) -> float:
    """Return the median time of one call, the GPU idle before and after it."""
    times = []
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16) if bf16 else nullcontext():
        for _ in range(runs + _WARM_UP):
            torch.cuda.synchronize()
            start = time.perf_counter()
            model(clip)
            torch.cuda.synchronize()
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[_WARM_UP:])


def repeated(clip: Clip, times: int) -> Clip:
    """Return a batch of copies of a clip (B = 1)."""
    return Clip(*(x.repeat(times, *[1] * (x.ndim - 1)) for x in (clip.frames, clip.audio)))


def measure(name: str, settings: dict[str, Any], form: str, device: torch.device, runs: int) -> dict[str, float]:
    """Return latency in ms, clips per second and the batch size of the latter; batches that do not fit are left out."""
    torch.compiler.reset()
    model = build(name, **settings).to(device).eval()
    clip = noise(model, FRAMES, SIZE, SIZE)
    call = torch.compile(model, mode="reduce-overhead") if form.startswith("compiled") else model
    rates: dict[int, float] = {}
    latency = 0.0
    for batch in BATCHES:
        try:
            spent = milliseconds(call, repeated(clip, batch), form.endswith("bf16"), runs)
        except torch.cuda.OutOfMemoryError:
            break
        rates[batch] = 1000 * batch / spent
        latency = latency or spent
    if not rates:
        raise ConfigError(f"{name} does not fit into the memory of the GPU: choose a larger one")
    best = max(rates, key=lambda batch: rates[batch])
    return {"latency_ms": latency, "clips_per_second": rates[best], "batch": best}


def main(argv: Sequence[str]) -> None:
    """Measure and write."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--runs", type=int, default=20, help="timed calls for each form and batch size")
    words = parser.parse_args(argv)
    with mistakes_in_a_line():
        device = require_gpu()
        numbers = {
            label: {form: measure(name, settings, form, device, words.runs) for form in FORMS}
            for label, (name, settings) in MODELS.items()
        }
        command = shlex.join(["python", "benchmarks/gpu.py", str(words.out)])
        config = {"clip": {"frames": FRAMES, "size": SIZE}, "runs": words.runs, "batches": list(BATCHES)}
        write_result(words.out, {**provenance(command, device), "config": config, "numbers": numbers})
    Console().print(numbers)


if __name__ == "__main__":
    main(sys.argv[1:])
