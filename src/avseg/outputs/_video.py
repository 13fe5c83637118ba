"""Base of the outputs that write a video with the sound of the source."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from avseg.media.video import probe
from avseg.media.writer import H264, Encoding, VideoWriter
from avseg.outputs._base import Output, damage
from avseg.prediction.record import Record


class VideoOutput(Output):
    """A video with the time stamps, the pixel aspect ratio and the sound of the source.

    Args:
        record: The prediction.
        path: The file to write.
        extra_rows: Rows below each frame.
        encoding: Codecs and container.
        muted: Stretches of silence, see :class:`~avseg.media.writer.VideoWriter`.
    """

    reads_video = True

    def __init__(
        self,
        record: Record,
        path: Path,
        *,
        extra_rows: int = 0,
        encoding: Encoding = H264,
        muted: Sequence[tuple[float, float]] = (),
    ) -> None:
        super().__init__(record, path.parent)
        info = probe(record.source)
        self._writer = VideoWriter(
            path,
            (record.size[0] + extra_rows, record.size[1]),
            rate=info.rate,
            pixel_aspect=info.pixel_aspect,
            sound=record.source,
            complain=damage(record),
            encoding=encoding,
            muted=muted,
        )

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Close the video."""
        self._writer.__exit__(kind, *rest)

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Write one frame, see :meth:`avseg.media.writer.VideoWriter.write`."""
        self._writer.write(image, time)
