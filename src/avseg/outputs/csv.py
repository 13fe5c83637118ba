"""``intervals.csv`` and ``regions.csv``: the sounding intervals, and place and score of every region."""

import csv
from collections.abc import Sequence

from avseg.media import rle
from avseg.outputs._base import Output


class Csv(Output):
    """Two tables with a header, in UTF-8; times are seconds since the start of the file, lengths are pixels."""

    files = ("intervals.csv", "regions.csv")

    def finish(self) -> None:
        """Write both tables."""
        intervals = [
            (round(i.start, 3), round(i.end, 3), i.name, *(found or ("", "")))
            for i, found in zip(self.record.intervals, self.record.objects, strict=True)
        ]
        self._write("intervals.csv", ("start", "end", "class", "object", "object_score"), intervals)
        names = self.record.class_names
        regions = [
            (index, round(frame.time, 3), names[region.label], region.score, rle.area(region.rle), *rle.box(region.rle))
            for index, frame in enumerate(self.record.frames)
            for region in frame.regions
        ]
        columns = ("frame", "time", "class", "score", "area", "x", "y", "width", "height")
        self._write("regions.csv", columns, regions)

    def _write(self, name: str, columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
        with (self.folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows])
