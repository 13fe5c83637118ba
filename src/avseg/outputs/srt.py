"""``intervals.srt``: the sounding intervals as subtitles, one for each, with the name of object or class."""

from avseg.outputs._base import Output
from avseg.prediction.record import captioned


class Srt(Output):
    """SubRip subtitles, which players and editing programs show over the video."""

    files = ("intervals.srt",)

    def finish(self) -> None:
        """Write the file."""
        cues = [
            f"{number}\n{_clock(interval.start)} --> {_clock(interval.end)}\n{interval.name}\n"
            for number, interval in enumerate(captioned(self.record), 1)
        ]
        (self.folder / "intervals.srt").write_text("\n".join(cues), encoding="utf-8")


def _clock(seconds: float) -> str:
    """Return hours:minutes:seconds,milliseconds."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{milliseconds:03d}"
