"""Measure the speed of ``avseg predict`` in real time: ``python benchmarks/predict_speed.py OUT.json VIDEO ...``.

Writing all results is included; the start-up time, a few seconds, is measured separately.
"""

import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from avseg.media.video import probe
from avseg.prediction.predict import predict_command
from avseg.provenance import provenance


def factor(video: Path) -> dict[str, object]:
    """Return seconds of video per second of computation, without and with start-up of Python and the model."""
    info = probe(video)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        predict_command(video, Path(folder) / "here")
        work = time.perf_counter() - started
        words = [sys.executable, "-m", "avseg", "predict", str(video), "-o", f"{folder}/apart"]
        subprocess.run(words, check=True)
        process = time.perf_counter() - started - work
    seconds = info.duration or 0.0
    numbers = {"seconds": seconds, "work": work, "factor": seconds / work, "process": process}
    return {"video": video.name, "size": list(info.size), **numbers}


def main(out: str, videos: list[str]) -> None:
    """Measure and write."""
    command = shlex.join(["python", "benchmarks/predict_speed.py", out, *(Path(v).name for v in videos)])
    report = provenance(command) | {
        "config": {"model": "small", "fps": 1.0},
        "numbers": [factor(Path(v)) for v in videos],
    }
    Path(out).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
