"""``result.npz``: labels, probabilities, times, scores and intervals as arrays of NumPy."""

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from avseg.outputs._base import Output, OutputFrame
from avseg.prediction import grey_maps
from avseg.prediction.record import Record


class Npz(Output):
    """A compressed archive that ``numpy.load`` reads without pickle. Frames are written one by one.

    ``labels`` (N, H, W) uint8; ``probability`` (N, h, w) uint8, 255 is 1, at the size of the stored maps; ``times``,
    ``ends``, ``scores`` (N,); ``areas`` (N, K); ``intervals`` (M, 2) in seconds, ``interval_names`` and
    ``interval_objects`` (M,), empty without a name;
    ``class_names`` (K,).
    """

    files = ("result.npz",)

    def __init__(self, record: Record, folder: Path) -> None:
        super().__init__(record, folder)
        self._path = folder / "result.npz"

    def __enter__(self) -> Self:
        self._archive = ZipFile(self._path, "w", ZIP_DEFLATED, compresslevel=1)
        self._labels = self._archive.open("labels.npy", "w", force_zip64=True)
        shape = (len(self.record.frames), *self.record.size)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._labels, header)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the archive."""
        if not self._labels.closed:
            self._labels.close()
        self._archive.close()

    def add(self, frame: OutputFrame) -> None:
        """Write the labels of one frame."""
        self._labels.write(np.ascontiguousarray(frame.labels).tobytes())

    def finish(self) -> None:
        """Write all other arrays."""
        self._labels.close()
        record = self.record
        maps = [frame.probability for frame in record.frames if frame.probability is not None]
        arrays: dict[str, NDArray[np.generic]] = {
            "times": record.times,
            "ends": np.append(record.times[1:], record.end),
            "scores": record.scores,
            "areas": record.areas,
            "intervals": np.array([(i.start, i.end) for i in record.intervals], np.float64).reshape(-1, 2),
            "interval_names": np.array([i.name for i in record.intervals], np.str_),
            "interval_objects": np.array(["" if found is None else found.name for found in record.objects], np.str_),
            "class_names": np.array(record.class_names, np.str_),
        }
        if len(maps) == len(record.frames):
            arrays["probability"] = np.stack([grey_maps.levels(found) for found in maps])
        for name, array in arrays.items():
            with self._archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
