"""Measure errors of onset and offset: ``python benchmarks/onset_error.py OUT.json [--clips 4] [--fps 1 2 4]``.

The speech of examples/portrait_and_cat.mp4, cut where it is 35 dB below its loudest 30 ms, is placed at random times
over the frames of that video, with and without white noise 20 dB below it. Every clip is predicted with the model's
window alone and with refined timing. An error is the time of the interval minus the true time, in seconds.
"""

import shlex
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from _video import write_video
from avseg.checkpoints.store import load
from avseg.interface import AVSModel
from avseg.media.sound import sound_until
from avseg.media.video import pictures
from avseg.mel import SAMPLE_RATE
from avseg.pipeline.predict import predict
from avseg.prediction.frame_stream import Timing
from avseg.provenance import provenance, write_result

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "portrait_and_cat.mp4"
_SECONDS, _RATE, _SIZE = 5.0, 25, (180, 320)
_SPEECH = (0.9, 3.1)
"""Part of the example that has its speech and silence around it, in seconds."""
_MARGIN = round(0.7 * SAMPLE_RATE)
_HOP = 160
_CUT_DB, _NOISE_DB = -35.0, -20.0


class Placed(NamedTuple):
    """One clip: its video, and the true start and end of its sound in seconds."""

    video: Path
    start: float
    end: float


def speech() -> NDArray[np.float32]:
    """Return the speech of the example, without the silence around it."""
    wave = sound_until(EXAMPLE, _SPEECH[1]).numpy()[round(_SPEECH[0] * SAMPLE_RATE) :]
    power = np.convolve(wave.astype(np.float64) ** 2, np.full(3 * _HOP, 1 / (3 * _HOP)), "same")
    loud = np.flatnonzero(power > power.max() * 10 ** (_CUT_DB / 10))
    return np.asarray(wave[loud[0] : loud[-1] + 1], np.float32)


def clips(folder: Path, count: int, noise: bool) -> Iterator[Placed]:
    """Write clips with the speech at random times."""
    rng, wave = np.random.default_rng(7), speech()
    for number in range(count):
        track = np.zeros(round(_SECONDS * SAMPLE_RATE), np.float32)
        first = int(rng.integers(_MARGIN, len(track) - len(wave) - _MARGIN))
        track[first : first + len(wave)] += wave
        level = float(np.sqrt(np.mean(wave**2))) * 10 ** (_NOISE_DB / 20)
        track += (level if noise else 1e-5) * rng.standard_normal(len(track)).astype(np.float32)
        path = folder / f"{'noisy' if noise else 'clean'}{number}.mkv"
        write_video(path, _frames(), track, rate=_RATE, size=_SIZE, codec="libx264", pix_fmt="yuv420p")
        yield Placed(path, first / SAMPLE_RATE, (first + len(wave)) / SAMPLE_RATE)


def _frames() -> Iterator[av.VideoFrame]:
    """Yield the first frames of the example."""
    for _, picture in zip(range(round(_SECONDS * _RATE)), pictures(EXAMPLE), strict=False):
        yield picture.frame.reformat(_SIZE[1], _SIZE[0], "yuv420p")


def errors(found: list[Placed], model: AVSModel, fps: float, timing: Timing) -> dict[str, object]:
    """Return mean and largest absolute errors over clips, those without an interval, and the steadiness of masks."""
    starts, ends, overlaps, spans, missed = [], [], [], [], 0
    for clip in found:
        result = predict(clip.video, model, fps=fps, timing=timing)
        hits = [i for i in result.intervals if i.start < clip.end and i.end > clip.start]
        if not hits:
            missed += 1
            continue
        starts.append(hits[0].start - clip.start)
        ends.append(hits[-1].end - clip.end)
        spans.append(len(hits))
        overlaps += _overlaps(result.masks[:])
    numbers = {"onset": starts, "offset": ends}
    summary: dict[str, object] = {"clips": len(found), "missed": missed}
    for name, values in numbers.items():
        summary[f"{name}_mean"] = round(float(np.mean(values)), 3)
        summary[f"{name}_mean_absolute"] = round(float(np.abs(values).mean()), 3)
        summary[f"{name}_largest"] = round(float(np.abs(values).max()), 3)
    consecutive = {"mean": round(float(np.mean(overlaps)), 4), "lowest": round(float(np.min(overlaps)), 4)}
    return {**summary, "intervals_per_sound": float(np.mean(spans)), "iou_of_consecutive_masks": consecutive}


def _overlaps(masks: NDArray[np.bool_]) -> list[float]:
    """Return the IoU of consecutive masks that are both not empty."""
    pairs = [(a, b) for a, b in pairwise(masks) if a.any() and b.any()]
    return [float((a & b).sum() / (a | b).sum()) for a, b in pairs]


def main(argv: list[str]) -> None:
    """Measure and write."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--fps", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    given = parser.parse_args(argv)
    model, rows = load("small"), []
    with tempfile.TemporaryDirectory() as folder:
        for noise in (False, True):
            found = list(clips(Path(folder), given.clips, noise))
            for fps in given.fps:
                for timing in ("window", "refined"):
                    measured = errors(found, model, fps, timing)
                    rows.append({"noise_db": _NOISE_DB if noise else None, "fps": fps, "timing": timing, **measured})
                    sys.stderr.write(f"{rows[-1]}\n")
    words = ["python", "benchmarks/onset_error.py", given.out.name, "--clips", str(given.clips)]
    command = shlex.join([*words, "--fps", *(f"{fps:g}" for fps in given.fps)])
    write_result(given.out, provenance(command) | {"config": {"model": "small"}, "numbers": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
