"""``summary.png``: one image of a whole video, with overlays, spectrogram, scores and intervals on one time axis."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from avseg.colours import palette
from avseg.media.container import ignore
from avseg.media.sound import Sound, sound_blocks
from avseg.media.video import pictures
from avseg.mel import OFFSET, PATCH_SECONDS
from avseg.outputs._base import Output, OutputFrame
from avseg.outputs._drawing import Pixels, overlay
from avseg.prediction.grey_maps import quantised
from avseg.prediction.record import Record
from avseg.prediction.uncertainty import MAP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

_WIDTH, _DOTS = 11.0, 110
"""Width in inches, and dots per inch."""
_TALLEST = 8.0
"""Largest height in inches of a row of images; narrower videos get narrower images."""
_TITLE = 0.15
"""Height in inches of the titles of a row of images below another row."""
_INK, _FAINT = "#333333", "#9a9a9a"
_MOST_PATCHES = 256
"""Largest number of patches of 0.96 s in a spectrogram; of longer videos, evenly spaced patches are shown."""
_THUMBNAIL = 480
"""Longer side of a thumbnail in pixels."""


class Summary(Output):
    """The summary. With uncertainty, it has two more rows: its maps and its mean over time."""

    files = ("summary.png",)
    reads_video = True

    def __init__(self, record: Record, folder: Path) -> None:
        super().__init__(record, folder)
        self._chosen = set(chosen(record))
        self._thumbnails: dict[int, Image.Image] = {}

    def add(self, frame: OutputFrame) -> None:
        """Keep a thumbnail of the chosen frames."""
        if frame.index in self._chosen:
            image = overlay(frame.rgb, frame.labels, palette(len(self.record.class_names)))
            self._thumbnails[frame.index] = thumbnail(image)

    def finish(self) -> None:
        """Write the file."""
        summary(self.record, self._thumbnails).save(self.folder / "summary.png")


def chosen(record: Record) -> list[int]:
    """Return the indices of the frames to show: evenly spaced in time, as many as fit side by side."""
    count = int(np.clip(round(9.0 * record.size[0] / record.size[1]), 3, 9))
    times = record.times[0] + (np.arange(count) + 0.5) / count * (record.end - record.times[0])
    indices = np.maximum(np.searchsorted(record.times, times, side="right") - 1, 0)
    return [int(i) for i in indices]


def thumbnail(image: Pixels) -> Image.Image:
    """Return an image reduced to the size of a thumbnail."""
    small = Image.fromarray(image)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return small


def summary(record: Record, thumbnails: Mapping[int, Image.Image] | None = None) -> Image.Image:
    """Plot overlays at even distances and below, on one time axis, the spectrogram, the scores and the intervals.

    Args:
        record: The prediction.
        thumbnails: Index → overlay of the frames of :func:`chosen`; None reads them from the video.

    Returns:
        An RGB image.

    Raises:
        MediaError: When the video cannot be read.
    """
    indices = chosen(record)
    shown = thumbnails or {index: _read(record, index) for index in indices}
    rows = _timed(record)
    heights = [min(_WIDTH / len(indices) * record.size[0] / record.size[1], _TALLEST)]
    heights += [heights[0] + _TITLE] * record.has_uncertainty + [height for height, _ in rows]
    total = sum(heights) + 1.1
    # imported here, because a prediction without a summary needs no matplotlib, which takes half a second
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

    figure = Figure(figsize=(_WIDTH, total), dpi=_DOTS)
    margins = {"left": 0.07, "right": 0.985, "top": 1 - 0.3 / total, "bottom": 0.5 / total}
    grid = GridSpec(len(heights), 1, figure, height_ratios=heights, hspace=0.14, **margins)
    titles = [f"{record.times[index]:.1f} s" for index in indices]
    _gallery(figure, grid[0], [np.asarray(shown[index]) for index in indices], titles)
    if record.has_uncertainty:
        _maps(figure, grid[1], record, indices)
    for row, (_, plot) in enumerate(rows, len(heights) - len(rows)):
        axes, last = figure.add_subplot(grid[row]), row == len(heights) - 1
        plot(axes)
        axes.set_xlim(record.times[0], record.end)
        axes.tick_params(colors=_INK, labelsize=8, length=3, labelbottom=last)
        axes.spines[:].set_visible(False)
        for index in indices:
            axes.axvline(record.times[index], color=_FAINT, linewidth=0.6, linestyle=(0, (2, 3)))
    axes.set_xlabel("seconds", color=_INK, fontsize=8)
    png = BytesIO()
    figure.savefig(png, format="png")
    return Image.open(png).convert("RGB")


def _timed(record: Record) -> "list[tuple[float, Callable[[Axes], None]]]":
    """Return the rows on the time axis: height in inches, and the function that plots them."""
    names = [name for i, name in enumerate(record.class_names) if record.areas[:, i].any()]
    rows: list[tuple[float, Callable[[Axes], None]]] = [
        (1.5, partial(_spectrogram, record=record)),
        (0.9, partial(_curve, record=record, values=record.scores, label="score")),
        (0.25 + 0.22 * max(len(names), 1), partial(_intervals, record=record, names=names)),
    ]
    if record.has_uncertainty:
        curve = partial(_curve, record=record, values=record.mean_uncertainty, label=MAP)
        rows.insert(2, (0.9, curve))
    return rows


def _gallery(figure: "Figure", place: "SubplotSpec", shown: Sequence[Pixels], titles: Sequence[str]) -> "list[Axes]":
    """Show images side by side, (H, W, 3) or grey (H, W)."""
    cells, row = place.subgridspec(1, len(shown), wspace=0.03), []
    for column, (image, title) in enumerate(zip(shown, titles, strict=True)):
        axes = figure.add_subplot(cells[column])
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=8, color=_INK, pad=3)
        axes.set_axis_off()
        row.append(axes)
    return row


def _maps(figure: "Figure", place: "SubplotSpec", record: Record, indices: Sequence[int]) -> None:
    """Show the uncertainty of the chosen frames in grey, with its mean, and a scale at the left."""
    maps = [np.asarray(thumbnail(quantised(record.uncertainty[index]))) for index in indices]
    row = _gallery(figure, place, maps, [f"{record.mean_uncertainty[index]:.2f}" for index in indices])
    for axes in row:
        axes.set_anchor("S")  # leaves room for the title
    scale = row[0].inset_axes((-0.09, 0.0, 0.05, 1.0))
    scale.imshow(np.linspace(0.0, 1.0, 64)[:, None], extent=(0, 1, 0, 1), aspect="auto", origin="lower", cmap="gray")
    scale.set_title(MAP, fontsize=8, color=_INK, pad=8)
    scale.set_xticks([])
    scale.set_yticks([0.0, 1.0])
    scale.tick_params(colors=_INK, labelsize=8, length=3)


def _read(record: Record, index: int) -> Image.Image:
    time = record.times[index]
    for picture in pictures(record.source, ignore, after=time):
        if picture.time > time - 1e-6:
            break
    return thumbnail(overlay(picture.rgb(), record.labels[index], palette(len(record.class_names))))


def _spectrogram(axes: "Axes", record: Record) -> None:
    length = record.end - record.times[0]
    count = int(np.clip(np.ceil(length / PATCH_SECONDS), 1, _MOST_PATCHES))
    sound = Sound(sound_blocks(record.source, ignore))
    centres = record.times[0] + (np.arange(count) + 0.5) * max(length / count, PATCH_SECONDS)
    bands = torch.cat([sound.log_mel_at(float(time))[0] for time in centres]).numpy().T
    extent = (record.times[0], record.times[0] + count * max(length / count, PATCH_SECONDS), 0.0, 1.0)
    lowest = float(np.log(OFFSET))
    axes.imshow(bands, extent=extent, aspect="auto", origin="lower", cmap="magma", vmin=lowest, vmax=bands.max() + 1e-3)
    axes.set_yticks([0.0, 1.0], ["125 Hz", "7.5 kHz"])
    axes.set_ylabel("sound", color=_INK, fontsize=8)


def _curve(axes: "Axes", record: Record, values: NDArray[np.float64], label: str) -> None:
    times = np.append(record.times, record.end)
    steps = np.append(values, values[-1])
    axes.fill_between(times, steps, step="post", color=_INK, alpha=0.15, linewidth=0)
    axes.step(times, steps, where="post", color=_INK, linewidth=1.2)
    axes.set_ylim(0.0, 1.02)
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.set_ylabel(label, color=_INK, fontsize=8)


def _intervals(axes: "Axes", record: Record, names: list[str]) -> None:
    colours = palette(len(record.class_names)) / 255.0
    for interval, caption in zip(record.intervals, record.captions, strict=True):
        if caption != interval.name:
            row = names.index(interval.name)
            axes.text(
                interval.start, row, f" {caption}", va="center", fontsize=7, color="w", clip_on=True, parse_math=False
            )
        axes.barh(
            names.index(interval.name),
            interval.end - interval.start,
            left=interval.start,
            height=0.7,
            color=colours[record.class_names.index(interval.name)],
        )
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    if not record.intervals:
        axes.text(
            0.5, 0.5, "no sounding object", transform=axes.transAxes, ha="center", va="center", color=_FAINT, fontsize=8
        )
