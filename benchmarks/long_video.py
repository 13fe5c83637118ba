"""Predict generated videos of several lengths: time, size of the outputs, and memory.

python benchmarks/long_video.py [--minutes 0.17 1 20] [--rate 10] [-o benchmarks/results/long_video.json]

Each video is written, predicted and saved in a process of its own, whose largest resident memory is measured.
"""

import argparse
import json
import os
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from avseg.checkpoints.store import load
from avseg.interface import AVSModel, Clip
from avseg.pipeline.predict import predict
from avseg.provenance import provenance, write_result

SIZE, SOUND_RATE = (180, 320), 16_000
"""Height and width, and samples of sound per second of the generated video."""


def generate(path: Path, minutes: float, rate: int) -> Path:
    """Write a video of a moving rectangle, with a tone in every other second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        video.height, video.width = SIZE
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for second in range(round(60 * minutes)):
            for image in _images(second, rate):
                container.mux(video.encode(av.VideoFrame.from_ndarray(image)))
            frame = av.AudioFrame.from_ndarray(_tone(second)[None], format="s16", layout="mono")
            frame.sample_rate, frame.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
            frame.pts = second * SOUND_RATE
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def _images(second: int, rate: int) -> Iterator[NDArray[np.uint8]]:
    for k in range(rate):
        image = np.full((*SIZE, 3), 90, np.uint8)
        left = (7 * (second * rate + k)) % (SIZE[1] - 60)
        image[60:120, left : left + 60] = (200, 60, 40)
        yield image


def _tone(second: int) -> NDArray[np.int16]:
    wave = 9_000 * np.sin(2 * np.pi * 440 / SOUND_RATE * np.arange(SOUND_RATE)) * (second % 2)
    return np.asarray(wave).astype(np.int16)


def measure(minutes: float, rate: int) -> dict[str, Any]:
    """Return times in seconds, sizes in bytes, and memory in MiB."""
    model = load("small")
    memory: list[float] = []

    def note(module: AVSModel, inputs: tuple[Clip, ...], output: object) -> None:
        memory.append(_resident())

    model.register_forward_hook(note)
    with tempfile.TemporaryDirectory() as temporary:
        video = generate(Path(temporary, "video.mp4"), minutes, rate)
        started = time.perf_counter()
        result = predict(video, model)
        predicted = time.perf_counter() - started
        folder = result.save(Path(temporary, "out"), "overlay,masks,summary,json")
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {
            "minutes": minutes,
            "rate": rate,
            "frames": len(result.frames),
            "size": list(SIZE),
            "predict_seconds": round(predicted, 1),
            "save_seconds": round(time.perf_counter() - started - predicted, 1),
            "memory_mib": {f"{share} %": round(memory[(len(memory) - 1) * share // 100]) for share in (10, 50, 100)},
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "input_bytes": video.stat().st_size,
            "files": len(files),
            "output_bytes": {
                name: sum(f.stat().st_size for f in files if f.relative_to(folder).parts[0] == name)
                for name in sorted({f.relative_to(folder).parts[0] for f in files})
            },
        }


def _resident() -> float:
    """Return the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the numbers of each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.17, 1.0, 20.0], help="lengths of the videos")
    parser.add_argument("--rate", type=int, default=10, help="frames per second")
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write")
    given = parser.parse_args(argv)
    numbers = []
    for minutes in given.minutes:
        with get_context("spawn").Pool(1) as process:
            numbers.append(process.apply(measure, (minutes, given.rate)))
        sys.stdout.write(json.dumps(numbers[-1], indent=2) + "\n")
    if given.out is not None:
        words = shlex.join(["python", "benchmarks/long_video.py", *(argv if argv is not None else sys.argv[1:])])
        write_result(given.out, provenance(words) | {"numbers": numbers})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
