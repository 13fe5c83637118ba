"""Time fast paths against the plain forms of the same computation, on one thread of the CPU.

    python benchmarks/speed.py ROW OUT.json

Rows: pcmanet_resnet50, pcmanet_pvt_v2_b5, tpavi_resnet50, training, fmeasure, logmel, qsca, bf16, and cheap for the
last four in one file; onnx reads small.onnx in the working folder, written by ``avseg export small -o small.onnx``. The
row qsca also draws a chart, OUT.png.

The forms of a row alternate in one process. The clock is the CPU time of the process, so that other processes on the
machine change the times only through the caches. The first round is a warm-up; the ratio of a form is the median over
the other rounds of plain time / time of the form in the same round. Weights are random, and the plain forms are ours.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

import avseg
from avseg import build, log_mel, optimize
from avseg.costs import all_macs
from avseg.fast_paths import Mode
from avseg.interface import AVSModel, Clip
from avseg.metrics.functional import threshold_areas, thresholds
from avseg.models.pcmanet import PCMANet
from avseg.profile import noise
from avseg.provenance import provenance, write_result

Forms = Mapping[str, Callable[[], object]]
ROUNDS = 3
SHARE = 0.1
"""Share of uncertain pixels in the rows of gated decoding, near the keep ratio of trained models (Fig. 8)."""


def alternate(forms: Forms, rounds: int = ROUNDS) -> dict[str, Any]:
    """Time the forms in turn; return CPU seconds and the ratio of the first form to each."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds + 1):
        for name, form in forms.items():
            start = time.process_time()
            form()
            times[name].append(time.process_time() - start)
    plain = times[next(iter(forms))][1:]
    return {
        name: {
            "seconds": statistics.median(values[1:]),
            "times_as_fast": statistics.median(p / v for p, v in zip(plain, values[1:], strict=True)),
            "ratios": [p / v for p, v in zip(plain, values[1:], strict=True)],
        }
        for name, values in times.items()
    }


def ring(size: torch.Size, share: float) -> Tensor:
    """Return a mask (N, h, w) of the outline of a disk that covers a share of the pixels."""
    rows, columns = (torch.linspace(-1, 1, n) for n in size[-2:])
    distance = (torch.hypot(rows[:, None], columns) - 0.5).abs()
    return (distance <= distance.flatten().quantile(share)).expand(size[0], -1, -1)


def gated(model: AVSModel, modes: Sequence[Mode] = ("gated",)) -> AVSModel:
    """Return the model with gated decoding whose uncertain pixels are a ring."""
    fast = optimize(model, modes)
    fast._unsure = lambda outputs, size: ring(size, SHARE)  # type: ignore[assignment]
    return fast


def inference(name: str, visual: str, rounds: int = 2) -> dict[str, Any]:
    """Time the modes of a model and measure their differences from the plain model."""
    torch.manual_seed(0)
    plain = build(name, visual=visual, audio="none").eval()
    models = {"plain": plain, "exact": optimize(plain)}
    if isinstance(plain, PCMANet):
        models["gated"] = gated(plain)
    return {"clip": [5, 224, 224], **compared(models, noise(plain, 5, 224, 224), rounds)}


def onnx() -> dict[str, Any]:
    """Time the bundled model, its exact fast path and its exported file on a clip of the size of the file."""
    plain, exported = avseg.load("small"), avseg.load("small.onnx")
    models = {"plain": plain, "exact": optimize(plain), "onnx": exported}
    height, width = exported.card["export"]["size"]
    found = compared(models, noise(plain, 5, height, width), ROUNDS)
    return {"clip": [5, height, width], "versions": exported.card["export"]["versions"], **found}


def compared(models: Mapping[str, AVSModel], clip: Clip, rounds: int) -> dict[str, Any]:
    """Time models on a clip and measure the differences of their logits from those of the first, ``plain``."""
    outputs: dict[str, Tensor] = {}

    def call(label: str) -> Callable[[], None]:
        def run() -> None:
            outputs[label] = models[label](clip).logits

        return run

    found = alternate({label: call(label) for label in models}, rounds)
    differences = {
        f"largest_difference_of_{label}": (outputs[label] - outputs["plain"]).abs().max().item()
        for label in ("exact", "onnx")
        if label in outputs
    }
    return {"forms": found, **differences}


def bf16() -> dict[str, Any]:
    """Time bfloat16 against float32 for one 96 × 96 frame."""
    plain = build("pcmanet", visual="resnet18", audio="none").eval()
    fast, clip = optimize(plain, "bf16"), noise(plain, 1, 96, 96)
    native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return {
        "clip": [1, 96, 96],
        "native": native,
        "forms": alternate({"plain": lambda: plain(clip), "bf16": lambda: fast(clip)}),
    }


def training() -> dict[str, Any]:
    """Time a training step of PCMANet with ResNet-50 at batch 2, in two memory formats."""

    def step(model: AVSModel, clip: Clip) -> None:
        with torch.enable_grad():
            logits = model(clip).logits
            binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)).backward()
        model.zero_grad()

    plain = build("pcmanet", audio="none").train()
    last = build("pcmanet", audio="none").train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    one = noise(plain, 1, 96, 96)
    clip = Clip(one.frames.expand(2, -1, -1, -1, -1).contiguous(), one.audio.expand(2, -1, -1).contiguous())
    forms = {"plain": lambda: step(plain, clip), "channels_last": lambda: step(last, clip)}
    return {"batch": [2, 1, 96, 96], "forms": alternate(forms)}


def qsca() -> dict[str, Any]:
    """Time QSCA of stage 1 at several keep ratios, and count its operations."""
    model = build("pcmanet", audio="none").eval()
    block = model.get_submodule("qsca.1")
    maps, audio = torch.randn(5, 256, 56, 56), torch.randn(1, 5, 256)
    valid = torch.ones(1, 5, dtype=torch.bool)
    shares = (1.0, 0.75, 0.5, 0.25, 0.1)
    masks = {
        share: (torch.arange(56 * 56) < share * 56 * 56).view(1, 1, 56, 56).expand(5, -1, -1, -1) for share in shares
    }
    counts = {}
    for share, mask in masks.items():
        with all_macs() as macs:
            block(maps, audio, mask, valid)
            counts[share] = macs()
    times = alternate({f"{s}": lambda m=m: block(maps, audio, m, valid) for s, m in masks.items()})  # type: ignore[misc]
    return {"tokens": 5 * 56 * 56, "macs": {f"{s}": c for s, c in counts.items()}, "forms": times}


def fmeasure() -> dict[str, Any]:
    """Time the areas of 255 thresholds of 4 frames against a loop over frames and thresholds."""
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(4, 224, 224, generator=generator)
    labels = (torch.rand(4, 224, 224, generator=generator) > 0.5).long()

    def plain() -> Tensor:
        found = []
        for p, truth in zip(probability, labels.float(), strict=True):
            for threshold in thresholds():
                predicted = (p >= threshold).float()
                found.append(torch.stack([(predicted * truth).sum(), predicted.sum()]))
        return torch.stack(found).view(4, -1, 2)

    areas = threshold_areas(probability, labels)
    equal = torch.equal(plain().double(), torch.stack([areas.both, areas.predicted], -1))
    return {
        "frames": [4, 224, 224],
        "equal": equal,
        "forms": alternate({"plain": plain, "avseg": lambda: threshold_areas(probability, labels)}),
    }


def logmel() -> dict[str, Any]:
    """Time the log-mel patches of 10 s against the definition in NumPy, with the filters computed at each call."""
    waveform = np.random.default_rng(0).normal(size=160_000) * 0.1

    def plain() -> NDArray[np.float64]:
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
        frames = np.stack([waveform[k : k + 400] for k in range(0, len(waveform) - 399, 160)]) * window
        magnitude = np.abs(np.fft.rfft(frames, 512))
        filters = np.zeros((257, 64))
        mel = 1127 * np.log(1 + np.linspace(0, 8000, 257) / 700)
        edges = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
        for band in range(64):
            left, centre, right = edges[band : band + 3]
            filters[:, band] = np.maximum(
                0, np.minimum((mel - left) / (centre - left), (right - mel) / (right - centre))
            )
        filters[0] = 0
        return np.asarray(np.log(magnitude @ filters + 0.01))

    ours = log_mel(waveform, 16_000).flatten(0, 2)
    difference = np.abs(plain()[: len(ours)] - ours.numpy()).max()
    forms: Forms = {"plain": plain, "avseg": lambda: log_mel(waveform, 16_000)}
    return {"seconds_of_sound": 10, "largest_difference": float(difference), "forms": alternate(forms, 7)}


def qsca_macs(share: float, tokens: int, frames: int = 5, channels: int = 256) -> float:
    """Return the operations of QSCA as a function of the keep ratio, Eq. (6), without those of the audio embeddings.

    Embedding and output projection of all tokens, and query projection and attention of the selected ones.
    """
    return tokens * (2 * channels**2 + share * (channels**2 + 2 * frames * channels))


def draw_qsca(numbers: Mapping[str, Any], path: Path) -> None:
    """Draw operations and time of QSCA over the keep ratio, with :func:`qsca_macs`; that of the time is scaled."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    macs = {float(share): count / 1e9 for share, count in numbers["macs"].items()}
    seconds = {float(share): 1e3 * row["seconds"] for share, row in numbers["forms"].items()}
    line = [qsca_macs(share, numbers["tokens"]) / 1e9 for share in (0.0, 1.0)]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for panel, found, scale, unit in (
        (axes[0], macs, 1.0, "multiply-accumulates in G"),
        (axes[1], seconds, seconds[1.0] / line[1], "CPU time in ms"),
    ):
        panel.plot([0, 1], [scale * value for value in line], "--", color="0.5", label="Eq. (6)")
        panel.plot(list(found), list(found.values()), "o-", label="counted" if panel is axes[0] else "measured")
        panel.set(xlabel="keep ratio", title=unit, xlim=(0, 1.05), ylim=(0, 1.15 * max(found.values())))
        panel.legend(loc="lower right")
        panel.grid(alpha=0.3)
    axes[1].get_legend().get_texts()[0].set_text("Eq. (6), scaled to the time at 1")
    figure.savefig(path, dpi=110)


ROWS: dict[str, Callable[[], dict[str, Any]]] = {
    "pcmanet_resnet50": lambda: inference("pcmanet", "resnet50", ROUNDS),
    "pcmanet_pvt_v2_b5": lambda: inference("pcmanet", "pvt_v2_b5"),
    "tpavi_resnet50": lambda: inference("tpavi", "resnet50"),
    "bf16": bf16,
    "training": training,
    "qsca": qsca,
    "fmeasure": fmeasure,
    "logmel": logmel,
    "onnx": onnx,
}
CHEAP = ("fmeasure", "logmel", "qsca", "bf16")
ROWS["cheap"] = lambda: {row: ROWS[row]() for row in CHEAP}


@torch.no_grad()
def main(row: str, out: str) -> None:
    """Measure one row and write it."""
    torch.set_num_threads(1)
    report = provenance(f"OMP_NUM_THREADS=1 python benchmarks/speed.py {row} {out}")  # of the code that runs
    start = time.perf_counter()
    numbers = ROWS[row]()
    config = {"row": row, "clock": "CPU time of the process", "threads": 1, "wall_seconds": time.perf_counter() - start}
    write_result(Path(out), {**report, "config": config, "numbers": numbers})
    if row == "qsca":
        draw_qsca(numbers, Path(out).with_suffix(".png"))


if __name__ == "__main__":
    main(*sys.argv[1:])
