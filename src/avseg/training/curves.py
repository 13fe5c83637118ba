"""Training curves: ``metrics.csv`` (step, name, value) and TensorBoard, both exact after a resume."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class CurveLogger:
    """Writes named scalars per step.

    Args:
        folder: Folder of the run; created if missing.
        size: Bytes of ``metrics.csv`` to keep on resume; later rows of an interrupted run are truncated.
        step: First step of a resumed run; TensorBoard discards events from there on.
    """

    def __init__(self, folder: Path, size: int = 0, step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.csv"
        kept = size if path.exists() and path.stat().st_size >= size else 0
        self._file = path.open("a", newline="", encoding="utf-8")
        self._file.truncate(kept)
        self._rows = csv.writer(self._file)
        if not kept:
            self._rows.writerow(("step", "name", "value"))
        self._board = SummaryWriter(str(folder), purge_step=step or None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one point of each curve."""
        for name, value in values.items():
            self._rows.writerow((step, name, repr(value)))
            self._board.add_scalar(name, value, step)
        self._file.flush()

    def size(self) -> int:
        """Flush ``metrics.csv`` to disk and return its size in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        self._board.close()
