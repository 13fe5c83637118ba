"""``uncertainty/000000.png`` …: the uncertainty of every pixel of every frame."""

from pathlib import Path

from PIL import Image

from avseg.outputs._base import Output, OutputFrame, numbered
from avseg.prediction.grey_maps import quantised
from avseg.prediction.record import Record


class Uncertainty(Output):
    """One 8-bit grey PNG per frame, at the size of the video: 0 is certain, 255 uncertain."""

    files = numbered("uncertainty")

    def __init__(self, record: Record, folder: Path) -> None:
        super().__init__(record, folder)
        (folder / "uncertainty").mkdir()

    def add(self, frame: OutputFrame) -> None:
        """Write the uncertainty of one frame."""
        if frame.uncertainty is not None:
            image = Image.fromarray(quantised(frame.uncertainty))
            image.save(self.folder / "uncertainty" / f"{frame.index:06d}.png", compress_level=1)
