"""Fig. 9: attention maps of each group of channels and stage, on one colour scale.

``avseg figures attention`` plots them for any model with maps named ``attention/...``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.errors import ConfigError
from avseg.figures.cells import fit
from avseg.figures.files import check_figure
from avseg.figures.masks import put_prediction, put_truth
from avseg.figures.page import (
    EDGE,
    GAP,
    LINE,
    SMALL,
    SPACE,
    WIDTH,
    Page,
    clamped,
    grid,
    legend_height,
    shortened,
    width_of,
)
from avseg.figures.scenes import Example, Examples, load_examples, need_maps

KIND = "attention/"
"""Prefix of the names of these maps."""
_NARROWEST, _WIDEST = 28.0, 72.0
"""Smallest and largest width of a cell in points."""
_INPUTS = ("frame", "truth", "prediction")
_BAR = 8.0
"""Width of the colour bar in points."""


def attention(
    model: str,
    out: Path,
    data: Mapping[str, Any] | None = None,
    *,
    split: str = "test",
    clips: int = 1,
    pick: Sequence[int] | None = None,
    frame: int | None = None,
    dpi: int = 200,
) -> Path:
    """Plot the attention maps of every group and stage for a frame of each clip (Fig. 9).

    Args:
        model: A bundled name, a folder written by avseg train or convert, or a Hub id.
        out: Image file to write: .png, .pdf, .svg or .jpg.
        data: ``name`` and fields of the data set's ``Config``; they override those the model was trained on if it is
            the same data set.
        split: train, val or test.
        clips: Number of clips, spread evenly over the split.
        pick: Indices of the clips, instead of ``clips``.
        frame: Index of the frame in its clip; null for the frame with the largest sounding area.
        dpi: Dots per inch.

    Raises:
        ConfigError: When a setting is wrong, the model has no such maps, or the file cannot be written.
        CheckpointError: When the model cannot be loaded.
        DataError: When there is no data.
    """
    check_figure(out, dpi)
    examples = load_examples([model], data, split=split, clips=clips, pick=pick)
    stages = need_maps(examples, KIND, "PCMANet makes them with avga on")
    shown = replace(examples, clips=[clip.only(_frame_of(clip, frame)) for clip in examples.clips])
    return _Layout(shown, stages).draw(dpi).save(out)


def _frame_of(clip: Example, frame: int | None) -> int:
    if frame is None:
        marked = (clip.truth != 0) & clip.labelled[:, None, None]
        return int(marked.sum((1, 2)).argmax())
    if not 0 <= frame < len(clip.frames):
        raise ConfigError(f"frame {frame} does not exist, clip {clip.name!r} has 0 … {len(clip.frames) - 1}")
    return frame


class Scale:
    """Colour scale shared by all maps of a figure.

    Args:
        maps: All maps. If any value is negative, the scale is symmetric and zero is white.
    """

    def __init__(self, maps: Sequence[NDArray[np.float32]]) -> None:
        low, high = min(0.0, *(float(m.min()) for m in maps)), max(0.0, *(float(m.max()) for m in maps))
        far = max(high, -low) or 1.0
        self._low, self._high = (-far, far) if low < 0 else (0.0, far)
        self._colours = matplotlib.colormaps["PuOr_r" if low < 0 else "viridis"]

    @property
    def ticks(self) -> list[str]:
        """Return the values at top, middle and bottom of the colour bar."""
        return [f"{value:.2g}" for value in (self._high, (self._low + self._high) / 2, self._low)]

    def paint(self, values: NDArray[np.float32]) -> Image.Image:
        """Convert (h, w) values to an image of h x w pixels."""
        coloured = self._colours((values - self._low) / (self._high - self._low))
        return Image.fromarray((coloured[..., :3] * 255).round().astype(np.uint8))

    def bar(self) -> Image.Image:
        """Return the colour bar, the highest value at the top."""
        return self.paint(np.linspace(self._high, self._low, 256, dtype=np.float32)[:, None])


class _Layout:
    """Layout: for each clip a column of frame and masks, and a grid of maps with stages as rows, groups as columns."""

    def __init__(self, examples: Examples, stages: Sequence[str]) -> None:
        self.examples, self.stages = examples, stages
        maps = [(name, _maps(clip, name)) for clip in examples.clips for name in stages]
        titles = [words for name, values in maps for words in _title(name, values)]
        self.groups = max(len(values) for _, values in maps)
        self.scale = Scale([values for _, values in maps])
        self.inputs = max(width_of(words, SMALL) for words in _INPUTS) + GAP
        labels = max(width_of(words, SMALL) for words in titles) + GAP
        bar = SPACE + _BAR + GAP + max(width_of(words, SMALL) for words in self.scale.ticks)
        fixed = self.inputs + SPACE + labels + (self.groups - 1) * GAP + bar
        self.wide = clamped((WIDTH - 2 * EDGE - fixed) / (self.groups + 1), _NARROWEST, _WIDEST)
        self.left = EDGE + self.inputs + self.wide + SPACE + labels
        self.width = fixed + (self.groups + 1) * self.wide

    def draw(self, dpi: int) -> Page:
        """Return the page with all clips."""
        blocks = [self._head(clip) + self._body(clip) for clip in self.examples.clips]
        page = Page(self.width + 2 * EDGE, sum(blocks) + (len(blocks) - 1) * SPACE + 2 * EDGE, dpi)
        top = EDGE
        for clip, tall in zip(self.examples.clips, blocks, strict=True):
            page.write(shortened(f"{clip.name}, {clip.times[0]}", self.width), EDGE, top)
            page.legend(self.examples.legend(clip), EDGE, top + LINE, self.width)
            self._draw_inputs(page, clip, top + self._head(clip))
            self._draw_maps(page, clip, top + self._head(clip))
            top += tall + SPACE
        return page

    def _head(self, clip: Example) -> float:
        return 2 * LINE + legend_height(self.examples.legend(clip), self.width)

    def _row(self, clip: Example) -> float:
        """Return the row height: a cell, or two lines of text."""
        return max(self.wide * clip.tallness, 2 * LINE) + GAP

    def _body(self, clip: Example) -> float:
        return max(len(self.stages), len(_INPUTS)) * self._row(clip) - GAP

    def _draw_inputs(self, page: Page, clip: Example, top: float) -> None:
        tall = self.wide * clip.tallness
        left, row = EDGE + self.inputs, self._row(clip)
        for line, words in enumerate(_INPUTS):
            page.write(words, left - GAP, top + line * row + (tall - LINE) / 2, size=SMALL, align="right")
        page.picture(fit(clip.frames[0], page.pixels(self.wide, tall)), left, top, self.wide, tall)
        put_truth(page, self.examples, clip, 0, left, top + row, self.wide)
        put_prediction(page, self.examples, clip, 0, left, top + 2 * row, self.wide)

    def _draw_maps(self, page: Page, clip: Example, top: float) -> None:
        tall = self.wide * clip.tallness
        for group in range(self.groups):
            middle = self.left + group * (self.wide + GAP) + self.wide / 2
            words = f"group {group + 1}" if self.groups > 1 else ""
            page.write(words, middle, top - LINE, size=SMALL, align="center")
        for row, name in enumerate(self.stages):
            values, y = _maps(clip, name), top + row * self._row(clip)
            for line, words in enumerate(_title(name, values)):
                page.write(words, self.left - GAP, y + tall / 2 + (line - 1) * LINE, size=SMALL, align="right")
            for group, one in enumerate(values):
                page.picture(self.scale.paint(one), self.left + group * (self.wide + GAP), y, self.wide, tall)
        self._draw_bar(page, top, len(self.stages) * self._row(clip) - GAP)

    def _draw_bar(self, page: Page, top: float, tall: float) -> None:
        left = self.left + self.groups * (self.wide + GAP) - GAP + SPACE
        page.picture(self.scale.bar(), left, top, _BAR, tall)
        for words, share in zip(self.scale.ticks, (0.0, 0.5, 1.0), strict=True):
            page.write(words, left + _BAR + GAP, top + share * (tall - LINE), size=SMALL)


def _maps(clip: Example, name: str) -> NDArray[np.float32]:
    """Return the maps of one stage for a clip of one frame, (G, h, w)."""
    values: NDArray[np.float32] = clip.predictions[0].maps[name][0].numpy()
    return values


def _title(name: str, values: NDArray[np.float32]) -> tuple[str, str]:
    """Return the two-line label of a row of maps (G, h, w)."""
    return name.removeprefix(KIND), grid(*values.shape[1:])
