"""``intervals.edl``: the sounding intervals as an edit decision list (CMX 3600)."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from avseg.errors import ConfigError
from avseg.media.video import probe
from avseg.outputs._base import Output
from avseg.prediction.record import Interval, Record, captioned

_MOST_EVENTS = 999
"""An event has a number of three digits."""


class Edl(Output):
    """One event with picture and sound for each stretch of time in which any class sounds.

    Timecodes count frames at the average rate of the video, without drop frames; 0 is the start of the file.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of the edit decision list.

        Attributes:
            placement: On the timeline of the edit, events are at their time in the source (``"source"``), or follow
                each other without gaps (``"joined"``).
        """

        placement: Literal["source", "joined"] = "source"

    files = ("intervals.edl",)

    def __init__(self, record: Record, folder: Path, config: Config) -> None:
        super().__init__(record, folder)
        self._joined = config.placement == "joined"
        self._rate = probe(record.source).rate

    def finish(self) -> None:
        """Write the file.

        Raises:
            ConfigError: When there are more events than the format can number.
        """
        events = _union(captioned(self.record))
        if len(events) > _MOST_EVENTS:
            raise ConfigError(
                f"the video has {len(events)} sounding stretches, an edit decision list holds {_MOST_EVENTS}: "
                "use csv or srt"
            )
        lines, position = [f"TITLE: {self.record.source.stem}", "FCM: NON-DROP FRAME", ""], 0
        for number, (start, end, names) in enumerate(events, 1):
            first = round(start * self._rate)
            length = max(1, round(end * self._rate) - first)
            placed = position if self._joined else first
            codes = " ".join(self._timecode(n) for n in (first, first + length, placed, placed + length))
            lines.append(f"{number:03d}  AX       B     C        {codes}")
            lines += [f"* FROM CLIP NAME: {self.record.source.name}", f"* COMMENT: {', '.join(names)}"]
            position += length
        (self.folder / "intervals.edl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _timecode(self, frame: int) -> str:
        """Return hours:minutes:seconds:frames of a frame number."""
        per_second = max(1, round(Fraction(self._rate)))
        seconds, rest = divmod(frame, per_second)
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{rest:02d}"


def _union(intervals: list[Interval]) -> list[tuple[float, float, list[str]]]:
    """Return the stretches that intervals cover, with their captions: an EDL has one video track."""
    found: list[tuple[float, float, list[str]]] = []
    for start, end, name in sorted(intervals):
        if found and start <= found[-1][1]:
            before, until, names = found.pop()
            found.append((before, max(until, end), names if name in names else [*names, name]))
        else:
            found.append((start, end, [name]))
    return found
