"""Draw one curve over several training runs, one after the other: ``python benchmarks/curves.py OUT NAME RUN ...``.

NAME is a name of ``metrics.csv``, such as ``val/avsbench/j``; RUN is a folder of ``avseg train``.
"""

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure


def main(out: str, name: str, runs: list[str]) -> None:
    """Write the picture; a run without that name is passed over."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    start = 0
    for run in runs:
        with (Path(run) / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        points = [(start + int(row["step"]), float(row["value"])) for row in rows if row["name"] == name]
        axes.plot(*zip(*points, strict=True), marker="o", label=Path(run).name) if points else None
        start += max(int(row["step"]) for row in rows)
    axes.set(xlabel="optimizer steps", ylabel=name)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
