"""Fig. 5: which pixels are not confident yet, stage by stage, and the queries they become.

``avseg figures confidence`` draws it for any model whose maps begin with ``mask/``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avseg.figures.cells import Colour, fit, highlight
from avseg.figures.files import check_figure
from avseg.figures.masks import put_answer, put_truth
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
from avseg.figures.scenes import Scene, Scenes, load_examples, need_maps

KIND = "mask/"
"""What the names of these maps begin with."""
ASKS: Colour = (213, 94, 0)
"""Vermilion: dark on white and bright on grey, for every kind of colour vision."""
_SURE: Colour = (255, 255, 255)
_NARROWEST, _WIDEST = 44.0, 84.0
"""Points of a cell."""


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
    """Draw the confidence masks of each stage and the queries they select (Fig. 5).

    Args:
        model: A bundled name, a folder that avseg train or convert wrote, or a Hub id.
        out: Picture to write: .png, .pdf, .svg or .jpg.
        data: ``name`` and fields of the data set's ``Config``, laid over those the model was trained on when it is the
            same data set.
        split: train, val or test.
        clips: How many clips, spread evenly over the split.
        pick: These clips instead, by number.
        dpi: Dots per inch.

    Raises:
        ConfigError: When a setting is wrong, the model has no such masks, or the picture cannot be written.
        CheckpointError: When the model cannot be loaded.
        DataError: When there is no data.
    """
    check_figure(out, dpi)
    scenes = load_examples([model], data, split=split, clips=clips, pick=pick)
    stages = need_maps(scenes, KIND, "PCMANet makes them with qsca and select on")
    layout = _Layout(scenes, stages)
    page = layout.page(dpi)
    top = EDGE
    for clip in scenes.clips:
        top = layout.draw(page, clip, top) + SPACE
    return page.save(out)


class _Layout:
    """Columns: frame; mask and queries of each stage; answer and truth. Rows: the frames of one clip after another."""

    def __init__(self, scenes: Scenes, stages: Sequence[str]) -> None:
        self.scenes, self.stages = scenes, stages
        self.times = GAP + max(width_of(t, SMALL) for clip in scenes.clips for t in clip.times) + GAP
        columns = 3 + 2 * len(stages)
        spaces = (len(stages) + 1) * (SPACE - GAP) + (columns - 1) * GAP
        self.wide = clamped((WIDTH - 2 * EDGE - self.times - spaces) / columns, _NARROWEST, _WIDEST)
        self.width = self.times + columns * self.wide + spaces
        groups = [1, *[2] * len(stages), 2]
        lefts = np.cumsum([self.times, *(count * (self.wide + GAP) - GAP + SPACE for count in groups)])
        self.lefts: list[float] = lefts[:-1].tolist()

    def page(self, dpi: int) -> Page:
        """A page with room for all clips."""
        heights = [self._head(clip) + len(clip.times) * self._row(clip) + SPACE for clip in self.scenes.clips]
        return Page(self.width + 2 * EDGE, sum(heights) - SPACE + 2 * EDGE, dpi)

    def draw(self, page: Page, clip: Scene, top: float) -> float:
        """One clip; returns where it ends."""
        page.write(shortened(clip.name, self.width), EDGE, top)
        page.legend(self.scenes.legend(clip), EDGE, top + LINE, self.width)
        top += self._head(clip)
        self._headings(page, clip, top - 2 * LINE)
        for k in range(len(clip.times)):
            self._draw_row(page, clip, k, top)
            top += self._row(clip)
        return top

    def _head(self, clip: Scene) -> float:
        return LINE + legend_height(self.scenes.legend(clip), self.width) + 2 * LINE

    def _tall(self, clip: Scene) -> float:
        return self.wide * clip.tallness

    def _row(self, clip: Scene) -> float:
        return self._tall(clip) + LINE

    def _headings(self, page: Page, clip: Scene, top: float) -> None:
        def head(words: str, left: float, line: int, cells: int = 1) -> None:
            middle = EDGE + left + (cells * (self.wide + GAP) - GAP) / 2
            page.write(words, middle, top + line * LINE, size=SMALL, align="center")

        head("frame", self.lefts[0], 1)
        for name, left in zip(self.stages, self.lefts[1:-1], strict=True):
            height, width = clip.answers[0].maps[name].shape[-2:]
            head(f"{name.removeprefix(KIND)}, {grid(height, width)}", left, 0, cells=2)
            page.rule(EDGE + left, top + LINE, 2 * self.wide + GAP)
            head("unsure", left, 1)
            head("queries", left + self.wide + GAP, 1)
        head("answer", self.lefts[-1], 1)
        head("truth", self.lefts[-1] + self.wide + GAP, 1)

    def _draw_row(self, page: Page, clip: Scene, k: int, top: float) -> None:
        tall, answer = self._tall(clip), clip.answers[0]
        size = page.pixels(self.wide, tall)

        def put(image: Image.Image, left: float) -> None:
            page.picture(image, EDGE + left, top, self.wide, tall)

        page.write(clip.times[k], EDGE + self.times - 2 * GAP, top + tall / 2 - LINE / 2, size=SMALL, align="right")
        put(fit(clip.frames[k], size), self.lefts[0])
        for name, left in zip(self.stages, self.lefts[1:-1], strict=True):
            asks = answer.maps[name][k].bool().any(0).numpy()
            put(Image.fromarray(np.where(asks[..., None], ASKS, _SURE).astype(np.uint8)), left)
            page.frame(EDGE + left, top, self.wide, tall)
            put(highlight(clip.frames[k], asks, size), left + self.wide + GAP)
            share = f"{100 * asks.mean():.1f} % ask"
            page.write(share, EDGE + left + self.wide + GAP / 2, top + tall, size=SMALL, ink=FAINT, align="center")
        left = EDGE + self.lefts[-1]
        put_answer(page, self.scenes, clip, k, left, top, self.wide)
        put_truth(page, self.scenes, clip, k, left + self.wide + GAP, top, self.wide)
