"""Fig. 5: pixels below the confidence threshold at each stage, and the queries selected from them.

``avseg figures confidence`` plots them for any model with maps named ``mask/...``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avseg.figures.cells import Colour, fit, highlight
from avseg.figures.files import check_figure
from avseg.figures.masks import put_prediction, put_truth
from avseg.figures.page import (
    EDGE,
    FAINT,
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

KIND = "mask/"
"""Prefix of the names of these maps."""
QUERY: Colour = (213, 94, 0)
"""Colour of selected pixels: vermilion, dark on white and bright on grey for every kind of colour vision."""
_CONFIDENT: Colour = (255, 255, 255)
_NARROWEST, _WIDEST = 44.0, 84.0
"""Smallest and largest width of a cell in points."""


def confidence(
    model: str,
    out: Path,
    data: Mapping[str, Any] | None = None,
    *,
    split: str = "test",
    clips: int = 1,
    pick: Sequence[int] | None = None,
    dpi: int = 200,
) -> Path:
    """Plot the confidence masks of each stage and the queries they select (Fig. 5).

    Args:
        model: A bundled name, a folder written by avseg train or convert, or a Hub id.
        out: Image file to write: .png, .pdf, .svg or .jpg.
        data: ``name`` and fields of the data set's ``Config``; they override those the model was trained on if it is
            the same data set.
        split: train, val or test.
        clips: Number of clips, spread evenly over the split.
        pick: Indices of the clips, instead of ``clips``.
        dpi: Dots per inch.

    Raises:
        ConfigError: When a setting is wrong, the model has no such masks, or the file cannot be written.
        CheckpointError: When the model cannot be loaded.
        DataError: When there is no data.
    """
    check_figure(out, dpi)
    examples = load_examples([model], data, split=split, clips=clips, pick=pick)
    stages = need_maps(examples, KIND, "PCMANet makes them with qsca and select on")
    layout = _Layout(examples, stages)
    page = layout.page(dpi)
    top = EDGE
    for clip in examples.clips:
        top = layout.draw(page, clip, top) + SPACE
    return page.save(out)


class _Layout:
    """Layout: columns frame, mask and queries of each stage, prediction, truth; rows the frames of all clips."""

    def __init__(self, examples: Examples, stages: Sequence[str]) -> None:
        self.examples, self.stages = examples, stages
        self.times = GAP + max(width_of(t, SMALL) for clip in examples.clips for t in clip.times) + GAP
        columns = 3 + 2 * len(stages)
        spaces = (len(stages) + 1) * (SPACE - GAP) + (columns - 1) * GAP
        self.wide = clamped((WIDTH - 2 * EDGE - self.times - spaces) / columns, _NARROWEST, _WIDEST)
        self.width = self.times + columns * self.wide + spaces
        groups = [1, *[2] * len(stages), 2]
        lefts = np.cumsum([self.times, *(count * (self.wide + GAP) - GAP + SPACE for count in groups)])
        self.lefts: list[float] = lefts[:-1].tolist()

    def page(self, dpi: int) -> Page:
        """Return an empty page for all clips."""
        heights = [self._head(clip) + len(clip.times) * self._row(clip) + SPACE for clip in self.examples.clips]
        return Page(self.width + 2 * EDGE, sum(heights) - SPACE + 2 * EDGE, dpi)

    def draw(self, page: Page, clip: Example, top: float) -> float:
        """Draw one clip; return its lower end."""
        page.write(shortened(clip.name, self.width), EDGE, top)
        page.legend(self.examples.legend(clip), EDGE, top + LINE, self.width)
        top += self._head(clip)
        self._headings(page, clip, top - 2 * LINE)
        for k in range(len(clip.times)):
            self._draw_row(page, clip, k, top)
            top += self._row(clip)
        return top

    def _head(self, clip: Example) -> float:
        return LINE + legend_height(self.examples.legend(clip), self.width) + 2 * LINE

    def _tall(self, clip: Example) -> float:
        return self.wide * clip.tallness

    def _row(self, clip: Example) -> float:
        return self._tall(clip) + LINE

    def _headings(self, page: Page, clip: Example, top: float) -> None:
        def head(words: str, left: float, line: int, cells: int = 1) -> None:
            middle = EDGE + left + (cells * (self.wide + GAP) - GAP) / 2
            page.write(words, middle, top + line * LINE, size=SMALL, align="center")

        head("frame", self.lefts[0], 1)
        for name, left in zip(self.stages, self.lefts[1:-1], strict=True):
            height, width = clip.predictions[0].maps[name].shape[-2:]
            head(f"{name.removeprefix(KIND)}, {grid(height, width)}", left, 0, cells=2)
            page.rule(EDGE + left, top + LINE, 2 * self.wide + GAP)
            head("uncertain", left, 1)
            head("queries", left + self.wide + GAP, 1)
        head("prediction", self.lefts[-1], 1)
        head("truth", self.lefts[-1] + self.wide + GAP, 1)

    def _draw_row(self, page: Page, clip: Example, k: int, top: float) -> None:
        tall, prediction = self._tall(clip), clip.predictions[0]
        size = page.pixels(self.wide, tall)

        def put(image: Image.Image, left: float) -> None:
            page.picture(image, EDGE + left, top, self.wide, tall)

        page.write(clip.times[k], EDGE + self.times - 2 * GAP, top + tall / 2 - LINE / 2, size=SMALL, align="right")
        put(fit(clip.frames[k], size), self.lefts[0])
        for name, left in zip(self.stages, self.lefts[1:-1], strict=True):
            queries = prediction.maps[name][k].bool().any(0).numpy()
            put(Image.fromarray(np.where(queries[..., None], QUERY, _CONFIDENT).astype(np.uint8)), left)
            page.frame(EDGE + left, top, self.wide, tall)
            put(highlight(clip.frames[k], queries, size), left + self.wide + GAP)
            share = f"{100 * queries.mean():.1f} % of pixels"
            page.write(share, EDGE + left + self.wide + GAP / 2, top + tall, size=SMALL, ink=FAINT, align="center")
        left = EDGE + self.lefts[-1]
        put_prediction(page, self.examples, clip, k, left, top, self.wide)
        put_truth(page, self.examples, clip, k, left + self.wide + GAP, top, self.wide)
