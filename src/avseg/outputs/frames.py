"""``frames/000000.png`` …: the frames of the video, the images to which the annotations of other outputs refer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from avseg.outputs._base import Output, OutputFrame, numbered
from avseg.prediction.record import Record

Format = Literal["png", "jpg"]


class Frames(Output):
    """One image per frame, upright: PNG without loss, or JPEG of quality 95."""

    @dataclass(frozen=True)
    class Config:
        """Settings of the frames.

        Attributes:
            format: ``"png"`` or ``"jpg"``; coco and labelme have the same setting.
        """

        format: Format = "png"

    files = (*numbered("frames"), *numbered("frames", "jpg"))
    reads_video = True

    def __init__(self, record: Record, folder: Path, config: Config) -> None:
        super().__init__(record, folder)
        self._format = config.format
        (folder / "frames").mkdir()

    def add(self, frame: OutputFrame) -> None:
        """Write one frame."""
        path = self.folder / "frames" / f"{frame.index:06d}.{self._format}"
        Image.fromarray(frame.rgb).save(path, quality=95, compress_level=1)
