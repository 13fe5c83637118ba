"""Measure the speed of ``avseg predict``: ``python benchmarks/predict_speed.py OUT.json [VIDEO ...] [--seconds 60]``.

Without a VIDEO, examples/portrait_and_cat.mp4 is scaled to 1280 × 720 and repeated. All default outputs are written.
Each video has a process of its own, which predicts a video of one second first: the start. Processor time counts all
threads: unlike the wall time, it depends little on other processes. Peak memory is that of the process.
"""

import multiprocessing
import resource
import shlex
import sys
import tempfile
import time
from argparse import ArgumentParser
from fractions import Fraction
from pathlib import Path

import av

from avseg.media.video import probe
from avseg.pipeline.predict import predict_command
from avseg.provenance import provenance, write_result

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "portrait_and_cat.mp4"
_SIZE = (720, 1280)
_RATE = 25


def repeated(source: Path, target: Path, seconds: float) -> Path:
    """Write a video of 25 frames per second, scaled to 720p and repeated up to a length, with its sound."""
    with av.open(str(target), "w") as out:
        video = out.add_stream("libx264", _RATE, {"preset": "veryfast", "crf": "18"})
        video.height, video.width = _SIZE
        video.pix_fmt = "yuv420p"
        sound = out.add_stream("aac", rate=16_000, layout="mono")
        frames, samples = 0, 0
        while frames < seconds * _RATE:
            with av.open(str(source)) as container:
                for frame in container.decode(video=0, audio=0):
                    if isinstance(frame, av.AudioFrame):
                        frame.pts, frame.time_base = samples, Fraction(1, frame.sample_rate)
                        samples += frame.samples
                        out.mux(sound.encode(frame))
                    elif isinstance(frame, av.VideoFrame) and frames < seconds * _RATE:
                        shown = frame.reformat(_SIZE[1], _SIZE[0], "yuv420p")
                        shown.pts, shown.time_base = frames, Fraction(1, _RATE)
                        frames += 1
                        out.mux(video.encode(shown))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    return target


def measured(video: Path, folder: Path) -> dict[str, float]:
    """Return wall and processor seconds of one video with all default outputs, and the peak memory so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    predict_command(video, folder / f"{video.stem}_out")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": round(wall, 2), "cpu": round(cpu, 2), "peak_mib": round(peak)}


def in_turn(videos: list[Path], folder: Path) -> list[dict[str, float]]:
    """Measure videos one after the other."""
    return [measured(video, folder) for video in videos]


def row(first: Path, video: Path, folder: Path) -> dict[str, object]:
    """Return the figures of one video, in a process that has predicted another one first."""
    with multiprocessing.get_context("spawn").Pool(1) as pool, tempfile.TemporaryDirectory(dir=folder) as outputs:
        start, found = pool.apply(in_turn, ([first, video], Path(outputs)))
    info = probe(video)
    seconds = info.duration or 0.0
    speed = {"times_real_time": seconds / found["wall"], "cpu_per_second_of_video": found["cpu"] / seconds}
    rounded = {name: round(value, 3) for name, value in speed.items()}
    return {"video": video.name, "size": list(info.size), "seconds": seconds, "start": start, **found, **rounded}


def main(argv: list[str]) -> None:
    """Measure and write."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0], help="lengths of the repeated example")
    given = parser.parse_args(argv)
    lengths = [] if given.videos else given.seconds
    words = [*(v.name for v in given.videos), *(["--seconds", *(f"{s:g}" for s in lengths)] if lengths else [])]
    command = shlex.join(["python", "benchmarks/predict_speed.py", given.out.name, *words])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        first = repeated(EXAMPLE, folder / "start.mp4", 1.0)
        made = [repeated(EXAMPLE, folder / f"example_{s:g}s.mp4", s) for s in lengths]
        rows = [row(first, video, folder) for video in [*given.videos, *made]]
    report = provenance(command) | {
        "config": {"model": "small", "fps": 1.0, "outputs": "default"},
        "numbers": rows,
    }
    write_result(given.out, report)


if __name__ == "__main__":
    main(sys.argv[1:])
