"""``page.html``: a self-contained page with the video, its masks, and a timeline of sound, scores and intervals.

The page holds the video once, without masks, as H.264 of at most :data:`LONGEST` pixels; a script draws the masks over
it. The video is part of the page up to :data:`EMBED_LIMIT` bytes; a larger one is the file ``page.mp4``, which must
stay in the folder of the page. The page loads nothing else, from this computer or the network: its content security
policy forbids it.
"""

import json
from base64 import b64encode
from contextlib import ExitStack
from fractions import Fraction
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import Self

from avseg.colours import palette
from avseg.media import rle
from avseg.media.video import probe
from avseg.media.writer import VideoWriter
from avseg.outputs._base import Output, OutputFrame, damage
from avseg.outputs._page_parts import facts, intervals, links, settings, timeline
from avseg.prediction.record import Record

LONGEST = 960
"""Longer side of the video and the masks in the page, in pixels; smaller videos keep their size."""
EMBED_LIMIT = 16 * 2**20
"""Largest video in bytes that is part of the page. As base64 it takes a third more; browsers accept 32 MB."""
MOST_MASKS = 10_000
"""Largest number of masks in the page; longer videos have only every n-th mask (n ≥ 2)."""
MOST_MAPS = 600
"""Largest number of uncertainty maps in the page."""
_VIDEO = "page.mp4"


class Page(Output):
    """The page."""

    files = ("page.html", _VIDEO)
    reads_video = True
    finishes_last = True

    def __init__(self, record: Record, folder: Path) -> None:
        super().__init__(record, folder)
        info = probe(record.source)
        self._size = page_size(record.size, info.pixel_aspect)
        self._has_sound = info.sample_rate is not None
        self._writer = VideoWriter(
            folder / _VIDEO, self._size, rate=info.rate, sound=record.source, complain=damage(record)
        )
        self._stack = ExitStack()
        self._mask_step = -(-len(record.frames) // MOST_MASKS)
        self._map_step = -(-len(record.frames) // MOST_MAPS)
        self._masks: list[tuple[float, list[tuple[int, str]]]] = []
        self._maps: list[tuple[float, str]] = []

    def __enter__(self) -> Self:
        self._stack.enter_context(self._writer)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        """Close the video, if :meth:`finish` has not."""
        self._stack.__exit__(kind, *(rest or (None, None)))

    def add(self, frame: OutputFrame) -> None:
        """Write one frame to the video, and keep its mask."""
        self._writer.write(_resized(frame.rgb, self._size, Image.Resampling.BILINEAR), frame.time)
        time = round(frame.time, 4)
        if frame.index % self._mask_step == 0:
            self._masks.append((time, _encoded(_resized(frame.labels, self._size, Image.Resampling.NEAREST))))
        found = self.record.frames[frame.index].uncertainty
        if found is not None and frame.index % self._map_step == 0:
            self._maps.append((time, b64encode(found.png).decode()))

    def finish(self) -> None:
        """Write the page."""
        self._stack.close()
        video = self.folder / _VIDEO
        source = _VIDEO
        if video.stat().st_size <= EMBED_LIMIT:
            source = f"data:video/mp4;base64,{b64encode(video.read_bytes()).decode()}"
            video.unlink()
        (self.folder / "page.html").write_text(self._html(source), encoding="utf-8")

    def _html(self, video: str) -> str:
        style, script = _part("page.css"), _part("page.js")
        record = self.record
        return Template(_part("page.html")).substitute(
            title=escape(record.source.name),
            policy=_policy(script),
            style=style,
            script=script,
            video=video,
            width=self._size[1],
            height=self._size[0],
            uncertainty="" if record.has_uncertainty else "hidden",
            facts=facts(record),
            timeline=timeline(record, has_sound=self._has_sound),
            intervals=intervals(record),
            links=links(self.written),
            settings=settings(record),
            data=_as_script(self._data()),
        )

    def _data(self) -> dict[str, Any]:
        """Return the data of the script; a mask is null if it equals the previous one."""
        masks = [mask for _, mask in self._masks]
        changed = [mask if k == 0 or mask != masks[k - 1] else None for k, mask in enumerate(masks)]
        return {
            "size": self._size,
            "start": float(self.record.times[0]),
            "end": self.record.end,
            "colours": palette(len(self.record.class_names)).tolist(),
            "times": [time for time, _ in self._masks],
            "masks": changed,
            "mapTimes": [time for time, _ in self._maps],
            "maps": [png for _, png in self._maps],
        }


def page_size(size: tuple[int, int], pixel_aspect: Fraction) -> tuple[int, int]:
    """Return (H, W) of the video in the page: square pixels, even, the longer side at most :data:`LONGEST`.

    Args:
        size: (H, W) of the video.
        pixel_aspect: Width over height of one of its pixels.
    """
    height, width = float(size[0]), float(size[1] * pixel_aspect)
    scale = min(1.0, LONGEST / max(height, width))
    even_height, even_width = (max(2, 2 * round(side * scale / 2)) for side in (height, width))
    return even_height, even_width


def _resized(image: NDArray[np.uint8], size: tuple[int, int], resampling: Image.Resampling) -> NDArray[np.uint8]:
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], resampling))


def _encoded(labels: NDArray[np.uint8]) -> list[tuple[int, str]]:
    """Return each label of a mask with its run lengths."""
    found = np.flatnonzero(np.bincount(labels.ravel(), minlength=1)[1:]) + 1
    return [(int(label), rle.encode(labels == label).counts.decode()) for label in found]


def _part(name: str) -> str:
    return files("avseg.outputs").joinpath("_page", name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Return a policy that allows only embedded images, embedded or adjacent video, and this script."""
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; media-src data: 'self' file:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _as_script(data: dict[str, Any]) -> str:
    """Return JSON that is safe inside a script element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
