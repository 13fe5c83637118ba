"""Fig. 7: frames, sound, truth and what each model makes of them, clip beside clip."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from avseg.figures.cells import fit, spectrogram
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
    legend_height,
    shortened,
    width_of,
)
from avseg.figures.scenes import Scene, Scenes, load_examples

_NARROWEST, _WIDEST = 33.0, 96.0
"""Points of a cell."""
_WIDEST_NAME = 90.0
"""Points that the name of a model may take; longer ones lose their middle."""


def panel(
    models: Sequence[str],
    out: Path,
    data: Mapping[str, Any] | None = None,
    *,
    split: str = "test",
    clips: int = 2,
    pick: Sequence[int] | None = None,
    dpi: int = 200,
) -> Path:
    """Draw frames, sound, truth and the answer of each model, with its score on each clip (Fig. 7).

    Args:
        models: Bundled names, folders that avseg train or convert wrote, or Hub ids.
        out: Picture to write: .png, .pdf, .svg or .jpg.
        data: ``name`` and fields of the data set's ``Config``, laid over those the first model was trained on when it
            is the same data set.
        split: train, val or test.
        clips: How many clips, spread evenly over the split.
        pick: These clips instead, by number.
        dpi: Dots per inch.

    Raises:
        ConfigError: When a setting is wrong, classes do not match, or the picture cannot be written.
        CheckpointError: When a model cannot be loaded.
        DataError: When there is no data.
    """
    check_figure(out, dpi)
    return _Layout(load_examples(models, data, split=split, clips=clips, pick=pick)).draw(dpi).save(out)


class _Row(NamedTuple):
    """One row of a clip.

    Attributes:
        name: Stands to its left.
        tall: Points.
        put: Draws frame k of a clip at (left, top).
    """

    name: str
    tall: float
    put: Callable[[Page, Scene, int, float, float], None]


class _Layout:
    """Bands of clips beside each other, as many as fit; names of rows to their left, scores to the right of each."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes
        self.models = [shortened(name, _WIDEST_NAME) for name in scenes.models]
        self.names = max(width_of(words) for words in ("frames", "sound", "truth", *self.models)) + SPACE
        self.longest = max(len(clip.times) for clip in scenes.clips)
        # Of a clip, all but its cells; the last one of a band has no clip to keep clear of.
        apart = self.longest * GAP + width_of(max("0.00", scenes.score, key=len), SMALL) + SPACE
        free = WIDTH - 2 * EDGE - self.names + SPACE
        self.abreast = int(clamped(free // (self.longest * _NARROWEST + apart), 1, len(scenes.clips)))
        self.wide = clamped((free / self.abreast - apart) / self.longest, _NARROWEST, _WIDEST)
        self.pitch = self.longest * self.wide + apart

    def draw(self, dpi: int) -> Page:
        """The page with all clips."""
        clips = self.scenes.clips
        bands = [clips[n : n + self.abreast] for n in range(0, len(clips), self.abreast)]
        heights = [self._head(band) + sum(row.tall + GAP for row in self._rows(band)) + LINE for band in bands]
        width = self.names + self.abreast * self.pitch - SPACE
        page = Page(width + 2 * EDGE, sum(heights) + (len(bands) - 1) * SPACE + 2 * EDGE, dpi)
        top = EDGE
        for band, tall in zip(bands, heights, strict=True):
            self._draw_band(page, band, top)
            top += tall + SPACE
        return page

    def _head(self, band: Sequence[Scene]) -> float:
        return LINE + max(legend_height(self.scenes.legend(clip), self.pitch - SPACE) for clip in band) + GAP

    def _rows(self, band: Sequence[Scene]) -> list[_Row]:
        tall = max(self.wide * max(clip.tallness for clip in band), 2 * LINE)
        rows = [_Row("frames", tall, self._put_frame), _Row("truth", tall, self._put_truth)]
        if any(clip.sound is not None for clip in band):
            rows.insert(1, _Row("sound", max(self.wide / 2, LINE), self._put_sound))
        return rows + [_Row(name, tall, partial(self._put_answer, n)) for n, name in enumerate(self.models)]

    def _draw_band(self, page: Page, band: Sequence[Scene], top: float) -> None:
        rows = self._rows(band)
        lefts = [EDGE + self.names + n * self.pitch for n in range(len(band))]
        for clip, left in zip(band, lefts, strict=True):
            page.write(shortened(clip.name, self.pitch - SPACE), left, top)
            page.legend(self.scenes.legend(clip), left, top + LINE, self.pitch - SPACE)
        top += self._head(band)
        for row in rows:
            page.write(row.name, EDGE, top + (row.tall - LINE) / 2)
            for clip, left in zip(band, lefts, strict=True):
                for k in range(len(clip.times)):
                    row.put(page, clip, k, left + k * (self.wide + GAP), top)
            top += row.tall + GAP
        for clip, left in zip(band, lefts, strict=True):
            self._draw_scores(page, clip, left + len(clip.times) * (self.wide + GAP), top, rows[-1].tall)
            for k, time in enumerate(clip.times):
                middle = left + k * (self.wide + GAP) + self.wide / 2
                page.write(time, middle, top - GAP, size=SMALL, ink=FAINT, align="center")

    def _draw_scores(self, page: Page, clip: Scene, left: float, bottom: float, tall: float) -> None:
        """What is scored, over its value, beside each of the rows of the models, which end at ``bottom``."""
        middle = bottom - len(clip.answers) * (tall + GAP) + tall / 2
        for answer in clip.answers:
            if answer.score is not None:
                page.write(self.scenes.score, left, middle - LINE, size=SMALL, ink=FAINT)
                page.write(f"{answer.score:.2f}", left, middle, size=SMALL)
            middle += tall + GAP

    def _put_frame(self, page: Page, clip: Scene, k: int, left: float, top: float) -> None:
        tall = self.wide * clip.tallness
        page.picture(fit(clip.frames[k], page.pixels(self.wide, tall)), left, top, self.wide, tall)

    def _put_sound(self, page: Page, clip: Scene, k: int, left: float, top: float) -> None:
        if clip.sound is not None:
            tall = self.wide / 2
            page.picture(spectrogram(clip.sound[k], page.pixels(self.wide, tall)), left, top, self.wide, tall)

    def _put_truth(self, page: Page, clip: Scene, k: int, left: float, top: float) -> None:
        put_truth(page, self.scenes, clip, k, left, top, self.wide)

    def _put_answer(self, model: int, page: Page, clip: Scene, k: int, left: float, top: float) -> None:
        put_answer(page, self.scenes, clip, k, left, top, self.wide, model)
