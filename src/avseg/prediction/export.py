"""A result as files: the overlay with its sound, a mask per picture, a summary, and everything as JSON.

With uncertainty, the overlay has a veil and a legend of it, and there is a grey picture of it per picture.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.files import replacing_folder
from avseg.media.container import ignore, refuse
from avseg.media.video import pictures, probe
from avseg.media.writer import VideoWriter
from avseg.prediction.draw import add_legend, add_names, add_strip, overlay, palette, strip, strip_height, veiled
from avseg.prediction.uncertainty import quantised
from avseg.progress import seconds_bar

if TYPE_CHECKING:
    from avseg.prediction.result import Result

CONTENTS = ("overlay.mp4", "masks", "summary.png", "result.json")
"""What is always written."""
MAY_HOLD = (*CONTENTS, "uncertainty")
"""What there is in a folder of results at most."""
PATTERNS = ("overlay.mp4", "masks/*.png", "summary.png", "result.json", "uncertainty/*.png")


def save(result: "Result", folder: Path, *, overwrite: bool = False, progress: bool = False) -> Path:
    """See :meth:`avseg.prediction.result.Result.save`."""
    with replacing_folder(folder, PATTERNS, overwrite=overwrite) as partial:
        write(result, partial, progress=progress)
    return folder


def write(result: "Result", folder: Path, *, progress: bool = False) -> None:
    """Write all files of a result into an empty folder that is there."""
    from avseg.prediction.summary import chosen, summary, thumbnail  # matplotlib takes half a second to import

    video, masks, overview, data, grey = (folder / name for name in MAY_HOLD)
    masks.mkdir()
    doubts: Iterable[NDArray[np.float32] | None] = [None] * len(result.frames)
    if result.has_uncertainty:
        grey.mkdir()
        doubts = result.uncertainty
    info = probe(result.source)
    complain = ignore if result.options.get("damaged") == "skip" else refuse
    colours = palette(len(result.class_names))
    line = _time_line(result, colours)
    length = result.end - result.times[0]
    wanted, thumbnails = set(chosen(result)), {}
    with (
        VideoWriter(
            video,
            result.size,
            rate=info.rate,
            pixel_aspect=info.pixel_aspect,
            sound=result.source,
            complain=complain,
        ) as writer,
        seconds_bar("drawing", result.end, shown=progress) as reached,
    ):
        shown = zip(pictures(result.source, complain), result.frames, result.labels, doubts, strict=True)
        for index, (picture, frame, labels, doubt) in enumerate(shown):
            rgb = picture.rgb()
            if index in wanted:
                thumbnails[index] = thumbnail(overlay(rgb, labels, colours))  # too small for a veil
            image = overlay(rgb if doubt is None else veiled(rgb, doubt), labels, colours)
            if doubt is not None:
                add_legend(image, len(line))
                Image.fromarray(quantised(doubt)).save(grey / f"{index:06d}.png", compress_level=1)
            add_strip(image, line, (frame.time - result.times[0]) / length)
            if len(colours) > 2:
                add_names(image, [r.label for r in frame.regions], result.class_names, colours)
            writer.write(image, frame.time)
            _mask_image(labels, colours).save(masks / f"{index:06d}.png", compress_level=1)
            reached(frame.time)
    summary(result, thumbnails).save(overview)
    data.write_text(json.dumps(result.to_dict(), ensure_ascii=False), encoding="utf-8")


def _mask_image(labels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Image.Image:
    """One bit, black and white, for one class; class numbers with a palette for several."""
    if len(colours) == 2:
        return Image.fromarray(labels > 0)
    image = Image.fromarray(labels, "P")
    image.putpalette(colours.tobytes())
    return image


def _time_line(result: "Result", colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    largest = result.areas.argmax(1)
    return strip(result.size[1], strip_height(result.size), result.times, result.end, result.scores, colours[largest])
