"""Measure live prediction: ``python benchmarks/live_latency.py OUT.json [--fps 1 2 4] [--clips 4]``.

- ``latency``: examples/portrait_and_cat.mp4 is delivered at its own speed. The latency of a sample is the time from the
  arrival of its picture until its masks are returned, in seconds, on this processor with one thread.
- ``timing``: clips with speech at known times (see onset_error.py), every sample predicted. ``onset`` is the time of
  the first marked sample minus the true onset, ``offset`` that of the last one minus the true offset, in seconds of the
  source.
- ``agreement``: mean IoU of the masks of the example with those of avseg.predict (timing window), over the frames that
  are marked in one of the two.
"""

import shlex
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avseg.checkpoints.store import load
from avseg.interface import AVSModel
from avseg.media import rle
from avseg.media.container import refuse
from avseg.media.live import ReceivedFeed, played_feed
from avseg.pipeline.predict import stream
from avseg.prediction.frame_stream import Options
from avseg.prediction.live_stream import LOOKAHEAD, LiveStream
from avseg.prediction.regions import Frame
from avseg.provenance import provenance, write_result
from onset_error import EXAMPLE, clips


def latency(model: AVSModel, fps: float, lookahead: float) -> dict[str, float]:
    """Return the latency of the samples of the example at its own speed."""
    feed = ReceivedFeed(played_feed(EXAMPLE))
    found = LiveStream(feed, model, Options(fps), refuse, lookahead=lookahead, late="drop")
    values = [(feed.now() or 0.0) - prediction.frame.time for prediction in found]
    quartiles = {"median": np.median(values), "p95": np.percentile(values, 95), "largest": max(values)}
    numbers = {name: round(float(value), 3) for name, value in quartiles.items()}
    return {"fps": fps, "lookahead": lookahead, "predicted": len(values), "left_out": found.dropped, **numbers}


def timing(model: AVSModel, lookahead: float, count: int) -> dict[str, float]:
    """Return the mean and the largest delay of onsets and offsets at 4 samples per second."""
    onsets, offsets = [], []
    with tempfile.TemporaryDirectory() as folder:
        for clip in clips(Path(folder), count, noise=False):
            with clip.video.open("rb") as pipe:
                marked = [frame.time for frame in stream(pipe, model, fps=4, lookahead=lookahead) if frame.regions]
            if marked:
                onsets.append(marked[0] - clip.start)
                offsets.append(marked[-1] - clip.end)
    found: dict[str, float] = {"fps": 4, "lookahead": lookahead, "clips": count, "missed": count - len(onsets)}
    for name, values in (("onset", onsets), ("offset", offsets)):
        found |= {f"{name}_mean": round(float(np.mean(values)), 3)}
        found |= {f"{name}_earliest": round(min(values), 3), f"{name}_latest": round(max(values), 3)}
    return found


def agreement(model: AVSModel, lookahead: float, context: int) -> dict[str, float]:
    """Return the mean IoU of live masks with those of a file."""
    with EXAMPLE.open("rb") as pipe:
        live = list(stream(pipe, model, fps=2, lookahead=lookahead, context=context))
    times = {frame.time for frame in live}
    file = [frame for frame in stream(EXAMPLE, model, fps=2, timing="window") if frame.time in times]
    pairs = [(_mask(a), _mask(b)) for a, b in zip(live, file, strict=True)]
    values = [(a & b).sum() / (a | b).sum() for a, b in pairs if (a | b).any()]
    return {"lookahead": lookahead, "context": context, "frames": len(values), "iou": round(float(np.mean(values)), 4)}


def _mask(frame: Frame) -> NDArray[np.bool_]:
    return rle.decode(frame.regions[0].rle) if frame.regions else np.zeros((360, 640), bool)


def main(argv: list[str]) -> None:
    """Measure and write."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--fps", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    given = parser.parse_args(argv)
    model = load("small", optimize="exact")
    numbers = {
        "latency": [latency(model, fps, ahead) for ahead in (0.0, LOOKAHEAD) for fps in given.fps],
        "timing": [timing(model, ahead, given.clips) for ahead in (0.0, LOOKAHEAD)],
        "agreement": [agreement(model, ahead, n) for ahead, n in ((LOOKAHEAD, 5), (LOOKAHEAD, 1), (0.0, 1))],
    }
    words = ["python", "benchmarks/live_latency.py", given.out.name, "--clips", str(given.clips)]
    command = "OMP_NUM_THREADS=1 " + shlex.join([*words, "--fps", *(f"{fps:g}" for fps in given.fps)])
    write_result(given.out, provenance(command) | {"config": {"model": "small"}, "numbers": numbers})


if __name__ == "__main__":
    main(sys.argv[1:])
