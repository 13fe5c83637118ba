"""Measure how time and memory grow with the work: ``python benchmarks/growth.py OUT.json OUT.png``.

PCMANet and TPAVI with ResNet-18 and random weights, on one thread, each of the exact fast path: over T at 112 × 112,
over the resolution of one frame, and over the number of classes. The exponent is the slope of log time over log size
between the last two points: 1 is linear; for the resolution, the size is the number of pixels. Memory is the peak of
the process above that before the model was built, one process per point, and includes that of imported packages. The
clock is the CPU time of the process, the fastest of three.
"""

import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from avseg import build, optimize
from avseg.profile import noise
from avseg.provenance import provenance, write_result

MODELS = ("pcmanet", "tpavi")
AXES: dict[str, tuple[tuple[int, ...], Callable[[int], tuple[int, int, int]]]] = {
    "frames": ((1, 2, 5, 10, 20, 40), lambda t: (t, 112, 1)),
    "resolution": ((112, 224, 448, 896), lambda size: (1, size, 1)),
    "classes": ((1, 2, 10, 24, 71), lambda k: (5, 112, k)),
}
"""Axis → its points, and the function from a point to T, H = W and K."""
ROUNDS = 3


@torch.no_grad()
def point(name: str, frames: int, size: int, classes: int) -> tuple[float, float]:
    """Return CPU seconds of a clip and the peak memory in MiB above that before the model."""
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = optimize(build(name, classes, visual="resnet18", audio="none").eval(), inplace=True)
    clip = noise(model, frames, size, size)
    model(clip)
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        model(clip)
        times.append(time.process_time() - start)
    return min(times), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def measure() -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return axis → model → times, memories and the exponent of the last step in the number of pixels, T or K."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for axis, (points, case) in AXES.items():
            for name in MODELS:
                rows = [pool.apply(point, (name, *case(value))) for value in points]
                sizes = [value**2 if axis == "resolution" else value for value in points]
                slope = math.log(rows[-1][0] / rows[-2][0]) / math.log(sizes[-1] / sizes[-2])
                found.setdefault(axis, {})[name] = {
                    "points": [*map(float, points)],
                    "seconds": [seconds for seconds, _ in rows],
                    "mib": [mib for _, mib in rows],
                    "exponent": [slope],
                }
    return found


def draw(found: dict[str, dict[str, dict[str, list[float]]]], path: Path) -> None:
    """Draw time and memory over each axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    labels = {
        "frames": "T, frames of 112 x 112",
        "resolution": "height = width, one frame",
        "classes": "classes, T = 5",
    }
    figure, axes = plt.subplots(2, len(found), figsize=(11, 6), layout="constrained", sharex="col")
    for column, (axis, rows) in enumerate(found.items()):
        for name, row in rows.items():
            axes[0, column].loglog(row["points"], row["seconds"], "o-", label=f"{name}, slope {row['exponent'][0]:.2f}")
            axes[1, column].loglog(row["points"], row["mib"], "o-", label=name)
        for panel in axes[:, column]:
            if axis == "classes":  # hardly grows: a logarithmic axis would show noise alone
                panel.set_yscale("linear")
                panel.set_ylim(0, 1.3 * panel.get_ylim()[1])
            panel.set_xticks(rows[MODELS[0]]["points"], [f"{p:g}" for p in rows[MODELS[0]]["points"]], minor=False)
            panel.minorticks_off()
            panel.grid(alpha=0.3)
        axes[0, column].legend()
        axes[1, column].set_xlabel(labels[axis])
    axes[0, 0].set_ylabel("CPU time in s")
    axes[1, 0].set_ylabel("peak memory in MiB")
    figure.savefig(path, dpi=100)


def main(out: str, picture: str) -> None:
    """Measure, draw and write."""
    report = provenance(f"OMP_NUM_THREADS=1 python benchmarks/growth.py {out} {picture}")
    found = measure()
    write_result(Path(out), {**report, "config": {"visual": "resnet18", "mode": "exact"}, "numbers": found})
    draw(found, Path(picture))


if __name__ == "__main__":
    main(*sys.argv[1:])
