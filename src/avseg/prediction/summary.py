"""One picture that tells a whole video: what sounded, where, how surely, and what was heard.

With uncertainty, it has two rows more: how uncertain each of its pictures is, and every picture is on average.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec
from numpy.typing import NDArray
from PIL import Image

from avseg.media.container import ignore
from avseg.media.sound import Sound, sound_blocks
from avseg.media.video import pictures
from avseg.mel import OFFSET, PATCH_SECONDS
from avseg.prediction.draw import Pixels, overlay, palette
from avseg.prediction.uncertainty import MAP, quantised

if TYPE_CHECKING:
    from avseg.prediction.result import Result

_WIDTH, _DOTS = 11.0, 110
"""Inches, and dots per inch."""
_TITLE = 0.15
"""Inches of a title over pictures that have others above them."""
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


def thumbnail(image: Pixels) -> Image.Image:
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
    rows = _timed(result)
    heights = [_WIDTH / len(indices) * result.size[0] / result.size[1]]
    heights += [heights[0] + _TITLE] * result.has_uncertainty + [height for height, _ in rows]
    total = sum(heights) + 1.1
    figure = Figure(figsize=(_WIDTH, total), dpi=_DOTS)
    margins = {"left": 0.07, "right": 0.985, "top": 1 - 0.3 / total, "bottom": 0.5 / total}
    grid = GridSpec(len(heights), 1, figure, height_ratios=heights, hspace=0.14, **margins)
    titles = [f"{result.times[index]:.1f} s" for index in indices]
    _gallery(figure, grid[0], [np.asarray(shown[index]) for index in indices], titles)
    if result.has_uncertainty:
        _maps(figure, grid[1], result, indices)
    for row, (_, draw) in enumerate(rows, len(heights) - len(rows)):
        axes, last = figure.add_subplot(grid[row]), row == len(heights) - 1
        draw(axes)
        axes.set_xlim(result.times[0], result.end)
        axes.tick_params(colors=_INK, labelsize=8, length=3, labelbottom=last)
        axes.spines[:].set_visible(False)
        for index in indices:
            axes.axvline(result.times[index], color=_FAINT, linewidth=0.6, linestyle=(0, (2, 3)))
    axes.set_xlabel("seconds", color=_INK, fontsize=8)
    png = BytesIO()
    figure.savefig(png, format="png")
    return Image.open(png).convert("RGB")


def _timed(result: "Result") -> list[tuple[float, Callable[[Axes], None]]]:
    """The rows on the time axis: inches of height, and what draws them."""
    names = [name for i, name in enumerate(result.class_names) if result.areas[:, i].any()]
    rows: list[tuple[float, Callable[[Axes], None]]] = [
        (1.5, partial(_spectrogram, result=result)),
        (0.9, partial(_curve, result=result, values=result.scores, what="score")),
        (0.25 + 0.22 * max(len(names), 1), partial(_intervals, result=result, names=names)),
    ]
    if result.has_uncertainty:
        curve = partial(_curve, result=result, values=result.mean_uncertainty, what=MAP)
        rows.insert(2, (0.9, curve))
    return rows


def _gallery(figure: Figure, place: SubplotSpec, shown: Sequence[Pixels], titles: Sequence[str]) -> list[Axes]:
    """Pictures side by side, (H, W, 3) or grey (H, W)."""
    cells, row = place.subgridspec(1, len(shown), wspace=0.03), []
    for column, (image, title) in enumerate(zip(shown, titles, strict=True)):
        axes = figure.add_subplot(cells[column])
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=8, color=_INK, pad=3)
        axes.set_axis_off()
        row.append(axes)
    return row


def _maps(figure: Figure, place: SubplotSpec, result: "Result", indices: Sequence[int]) -> None:
    """The uncertainty about the chosen pictures: grey, with the mean; left of it what the greys are."""
    maps = [np.asarray(thumbnail(quantised(result.uncertainty[index]))) for index in indices]
    row = _gallery(figure, place, maps, [f"{result.mean_uncertainty[index]:.2f}" for index in indices])
    for axes in row:
        axes.set_anchor("S")  # the title has the rest of the place
    scale = row[0].inset_axes((-0.09, 0.0, 0.05, 1.0))
    scale.imshow(np.linspace(0.0, 1.0, 64)[:, None], extent=(0, 1, 0, 1), aspect="auto", origin="lower", cmap="gray")
    scale.set_title(MAP, fontsize=8, color=_INK, pad=8)
    scale.set_xticks([])
    scale.set_yticks([0.0, 1.0])
    scale.tick_params(colors=_INK, labelsize=8, length=3)


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
    bands = torch.cat([sound.log_mel_at(float(time))[0] for time in centres]).numpy().T
    extent = (result.times[0], result.times[0] + count * max(length / count, PATCH_SECONDS), 0.0, 1.0)
    lowest = float(np.log(OFFSET))
    axes.imshow(bands, extent=extent, aspect="auto", origin="lower", cmap="magma", vmin=lowest, vmax=bands.max() + 1e-3)
    axes.set_yticks([0.0, 1.0], ["125 Hz", "7.5 kHz"])
    axes.set_ylabel("heard", color=_INK, fontsize=8)


def _curve(axes: Axes, result: "Result", values: NDArray[np.float64], what: str) -> None:
    times = np.append(result.times, result.end)
    steps = np.append(values, values[-1])
    axes.fill_between(times, steps, step="post", color=_INK, alpha=0.15, linewidth=0)
    axes.step(times, steps, where="post", color=_INK, linewidth=1.2)
    axes.set_ylim(0.0, 1.02)
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.set_ylabel(what, color=_INK, fontsize=8)


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
