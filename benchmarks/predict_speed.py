"""Measure the speed of ``avseg predict``: ``python benchmarks/predict_speed.py OUT.json [VIDEO ...] [--seconds 60]``.

Without a VIDEO, examples/portrait_and_cat.mp4 is scaled to 1280 × 720 and repeated. All default outputs are written.
Each video has a process of its own, which predicts a video of one second first: the start. Processor time counts all
threads: unlike the wall time, it depends little on other processes. Peak memory is that of the process; the resident
memory at shares of the wall time of the command is measured every half second. Writes OUT.json and, for two lengths or
more, a chart, OUT.png.
"""

import multiprocessing
import os
import resource
import shlex
import sys
import tempfile
import time
from argparse import ArgumentParser
from fractions import Fraction
from pathlib import Path
from threading import Event, Thread
from typing import Any

import av

from avseg.media.video import probe
from avseg.pipeline.predict import predict_command
from avseg.provenance import provenance, write_result

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "portrait_and_cat.mp4"
_SIZE = (720, 1280)
_RATE = 25
_EVERY = 0.5
"""Seconds between two measurements of the memory."""
CONFIG = {"model": "small", "fps": 1.0, "outputs": "default"}
SHARES = tuple(range(5, 101, 5))
"""Per cent of the wall time at which the memory is given."""


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


class Memory:
    """Resident memory of this process in MiB over time; use it in a ``with`` block."""

    def __enter__(self) -> "Memory":
        self.found: list[float] = []
        self._end = Event()
        self._thread = Thread(target=self._measure, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _measure(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE") / 2**20
        while not self._end.wait(_EVERY):
            self.found.append(int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * page)

    def at_shares(self) -> list[int]:
        """Return the memory at each of :data:`SHARES`."""
        last = len(self.found) - 1
        return [round(self.found[last * share // 100]) for share in SHARES] if self.found else []


def measured(video: Path, folder: Path) -> dict[str, Any]:
    """Return wall and processor seconds of one video with all default outputs, the memory over time, and its peak."""
    with Memory() as memory:
        wall, cpu = time.perf_counter(), time.process_time()
        predict_command(video, folder / f"{video.stem}_out")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": round(wall, 2), "cpu": round(cpu, 2), "peak_mib": round(peak), "mib": memory.at_shares()}


def in_turn(videos: list[Path], folder: Path) -> list[dict[str, Any]]:
    """Measure videos one after the other."""
    return [measured(video, folder) for video in videos]


def row(first: Path, video: Path, folder: Path) -> dict[str, Any]:
    """Return the figures of one video, in a process that has predicted another one first."""
    with multiprocessing.get_context("spawn").Pool(1) as pool, tempfile.TemporaryDirectory(dir=folder) as outputs:
        start, found = pool.apply(in_turn, ([first, video], Path(outputs)))
    info = probe(video)
    seconds = info.duration or 0.0
    speed = {"times_real_time": seconds / found["wall"], "cpu_per_second_of_video": found["cpu"] / seconds}
    rounded = {name: round(value, 3) for name, value in speed.items()}
    return {"video": video.name, "size": list(info.size), "seconds": seconds, "start": start, **found, **rounded}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the memory over the share of the run, and the peak and the processor time over the length of the video."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = sorted(rows, key=lambda row: row["seconds"])
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for row in rows:
        axes[0].plot(SHARES[-len(row["mib"]) :], row["mib"], label=f"{row['seconds']:.0f} s")
    axes[0].set(xlabel="wall time of the command, in %", ylabel="resident memory in MiB")
    axes[0].legend(title="length of the video", ncols=2)
    lengths = [row["seconds"] for row in rows]
    axes[1].semilogx(lengths, [row["peak_mib"] for row in rows], "o-")
    axes[1].set(ylabel="peak memory in MiB")
    axes[2].semilogx(lengths, [row["cpu_per_second_of_video"] for row in rows], "o-")
    axes[2].set(ylabel="processor seconds per second of video")
    for panel in axes[1:]:
        panel.set_xticks(lengths, [f"{length:.0f}" for length in lengths], minor=False)
        panel.minorticks_off()
        panel.set_xlabel("length of the video in s")
    for panel in axes:
        panel.set_ylim(0, 1.3 * panel.get_ylim()[1])
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


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
    code = provenance(command)  # of the code that runs
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        first = repeated(EXAMPLE, folder / "start.mp4", 1.0)
        made = [repeated(EXAMPLE, folder / f"example_{s:g}s.mp4", s) for s in lengths]
        rows: list[dict[str, Any]] = []
        for video in [*given.videos, *made]:  # written after each: long videos take long
            rows.append(row(first, video, folder))
            write_result(given.out, {**code, "config": CONFIG, "numbers": rows})
    if len(rows) > 1:
        draw(rows, given.out.with_suffix(".png"))


if __name__ == "__main__":
    main(sys.argv[1:])
