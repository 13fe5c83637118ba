"""Result of :func:`avseg.predict`: the recorded data, and the methods that plot, save, load and convert it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from avseg.outputs import choose_outputs, json, new_result, write
from avseg.prediction.record import Interval, Masks, Record

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Interval", "Masks", "Result"]


class Result(Record):
    """The sounding objects of a video; attributes are those of :class:`~avseg.prediction.record.Record`."""

    def plot(self) -> Image.Image:
        """Return one image of the whole video: overlays, spectrogram, score and intervals. Reads the video again.

        Raises:
            MediaError: When the video cannot be read.
        """
        from avseg.outputs.summary import summary  # matplotlib takes half a second to import

        return summary(self)

    def save(
        self,
        folder: str | Path,
        outputs: str | Iterable[str] | Mapping[str, Mapping[str, Any]] | None = None,
        *,
        overwrite: bool = False,
        progress: bool = False,
    ) -> Path:
        """Write the result to a folder, completely or not at all.

        The default outputs are overlay.mp4 (with the sound), masks/NNNNNN.png, summary.png and result.json; with
        uncertainty, also uncertainty/NNNNNN.png. The video is read again for the first and the third.

        Args:
            folder: The folder to create.
            outputs: Names of outputs, such as ``["masks", "json"]``, or names and settings, such as
                ``{"redact": {"mode": "pixelate"}, "json": {}}``; see :func:`avseg.outputs.list_outputs`.
            overwrite: Replace an earlier result. A folder is never replaced if it holds any other file, or images that
                its result.json does not list.
            progress: Show a progress bar.

        Returns:
            The folder.

        Raises:
            ConfigError: When an output or a setting does not exist, or the folder must not be replaced.
            MediaError: When the folder cannot be written, or the video cannot be read.
        """
        names = choose_outputs(outputs, uncertainty=self.has_uncertainty)
        with new_result(Path(folder), names, overwrite=overwrite, video=self.source) as partial:
            write(self, partial, names, progress=progress)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a saved result.

        Args:
            folder: A folder with result.json, the output ``json``.

        Raises:
            MediaError: When the folder has no result.json, or it is not valid JSON.
        """
        return json.load(folder, cls)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of result.json as plain values."""
        return json.to_dict(self)

    def to_coco(self) -> dict[str, Any]:
        """Return the masks as a COCO data set, see :func:`avseg.outputs.coco.to_coco`."""
        from avseg.outputs.coco import to_coco  # imports contourpy

        return to_coco(self)
