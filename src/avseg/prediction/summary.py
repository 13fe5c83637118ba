"""One picture that tells a whole video: what sounded, where, how surely, and what was heard."""

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from numpy.typing import NDArray
from PIL import Image

from avseg.media.container import ignore
from avseg.media.sound import Sound, sound_blocks
from avseg.media.video import pictures
from avseg.mel import OFFSET, PATCH_SECONDS
from avseg.prediction.draw import overlay, palette

if TYPE_CHECKING:
    from avseg.prediction.result import Result

_WIDTH, _DOTS = 11.0, 110
"""Inches, and dots per inch."""
_INK, _FAINT = "#333333", "#9a9a9a"
_MOST_PATCHES = 256
"""Patches of 0.96 s a spectrogram is made of, at most: longer videos are listened to in places."""
_THUMBNAIL = 480
"""Pixels of the longer side."""


def chosen(result: "Result") -> list[int]:
    """Which pictures the summary shows: those on screen at even distances, as many as fit side by side."""
    count = int(np.clip(round(9.0 * result.size[0] / result.size[1]), 3, 9))
    moments = result.times[0] + (np.arange(count) + 0.5) / count * (result.end - result.times[0])
    indices = np.maximum(np.searchsorted(result.times, moments, side="right") - 1, 0)
    return [int(i) for i in indices]


def thumbnail(image: NDArray[np.uint8]) -> Image.Image:
    """A picture as small as the summary needs it."""
    small = Image.fromarray(image)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return small


def summary(result: "Result", thumbnails: Mapping[int, Image.Image] | None = None) -> Image.Image:
    """Overlays at even distances; below, on one time axis, the spectrogram, the score and the intervals.

    Args:
        result: What to tell.
        thumbnails: Overlaid pictures by number, all of :func:`chosen`; None reads them from the video.
    """
    indices = chosen(result)
    shown = thumbnails or {index: _read(result, index) for index in indices}
    names = [name for i, name in enumerate(result.class_names) if result.areas[:, i].any()]
    heights = [_WIDTH / len(indices) * result.size[0] / result.size[1], 1.5, 0.9, 0.25 + 0.22 * max(len(names), 1)]
    total = sum(heights) + 1.1
    figure = Figure(figsize=(_WIDTH, total), dpi=_DOTS)
    margins = {"left": 0.07, "right": 0.985, "top": 1 - 0.3 / total, "bottom": 0.5 / total}
    grid = GridSpec(4, 1, figure, height_ratios=heights, hspace=0.14, **margins)
    cells = grid[0].subgridspec(1, len(indices), wspace=0.03)
    for column, index in enumerate(indices):
        axes = figure.add_subplot(cells[column])
        axes.imshow(np.asarray(shown[index]))
        axes.set_title(f"{result.times[index]:.1f} s", fontsize=8, color=_INK, pad=3)
        axes.set_axis_off()
    sound, score, spans = (figure.add_subplot(grid[row]) for row in (1, 2, 3))
    _spectrogram(sound, result)
    _score(score, result)
    _intervals(spans, result, names)
    for axes in sound, score, spans:
        axes.set_xlim(result.times[0], result.end)
        axes.tick_params(colors=_INK, labelsize=8, length=3, labelbottom=axes is spans)
        axes.spines[:].set_visible(False)
        for index in indices:
            axes.axvline(result.times[index], color=_FAINT, linewidth=0.6, linestyle=(0, (2, 3)))
    spans.set_xlabel("seconds", color=_INK, fontsize=8)
    png = BytesIO()
    figure.savefig(png, format="png")
    return Image.open(png).convert("RGB")


def _read(result: "Result", index: int) -> Image.Image:
    time = result.times[index]
    for picture in pictures(result.source, ignore, after=time):
        if picture.time > time - 1e-6:
            break
    return thumbnail(overlay(picture.rgb(), result.labels[index], palette(len(result.class_names))))


def _spectrogram(axes: Axes, result: "Result") -> None:
    length = result.end - result.times[0]
    count = int(np.clip(np.ceil(length / PATCH_SECONDS), 1, _MOST_PATCHES))
    sound = Sound(sound_blocks(result.source, ignore))
    centres = result.times[0] + (np.arange(count) + 0.5) * max(length / count, PATCH_SECONDS)
    bands = torch.cat([sound.patch(float(time))[0] for time in centres]).numpy().T
    extent = (result.times[0], result.times[0] + count * max(length / count, PATCH_SECONDS), 0.0, 1.0)
    lowest = float(np.log(OFFSET))
    axes.imshow(bands, extent=extent, aspect="auto", origin="lower", cmap="magma", vmin=lowest, vmax=bands.max() + 1e-3)
    axes.set_yticks([0.0, 1.0], ["125 Hz", "7.5 kHz"])
    axes.set_ylabel("heard", color=_INK, fontsize=8)


def _score(axes: Axes, result: "Result") -> None:
    times = np.append(result.times, result.end)
    scores = np.append(result.scores, result.scores[-1])
    axes.fill_between(times, scores, step="post", color=_INK, alpha=0.15, linewidth=0)
    axes.step(times, scores, where="post", color=_INK, linewidth=1.2)
    axes.set_ylim(0.0, 1.02)
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.set_ylabel("score", color=_INK, fontsize=8)


def _intervals(axes: Axes, result: "Result", names: list[str]) -> None:
    colours = palette(len(result.class_names)) / 255.0
    for interval in result.intervals:
        axes.barh(
            names.index(interval.name),
            interval.end - interval.start,
            left=interval.start,
            height=0.7,
            color=colours[result.class_names.index(interval.name)],
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    if not result.intervals:
        axes.text(
            0.5, 0.5, "nothing sounds", transform=axes.transAxes, ha="center", va="center", color=_FAINT, fontsize=8
        )
