"""Fig. 7: frames, spectrograms, ground truth and the prediction of each model, clips side by side."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from avseg.figures.cells import fit, spectrogram
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
    legend_height,
    shortened,
    width_of,
)
from avseg.figures.scenes import Example, Examples, load_examples

_NARROWEST, _WIDEST = 33.0, 96.0
"""Smallest and largest width of a cell in points."""
_WIDEST_NAME = 90.0
"""Largest width of a model's name in points; longer names are shortened in the middle."""


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
    """Plot frames, spectrograms, ground truth and the prediction of each model, with its score per clip (Fig. 7).

    Args:
        models: Bundled names, folders written by avseg train or convert, or Hub ids.
        out: Image file to write: .png, .pdf, .svg or .jpg.
        data: ``name`` and fields of the data set's ``Config``; they override those the first model was trained on if it
            is the same data set.
        split: train, val or test.
        clips: Number of clips, spread evenly over the split.
        pick: Indices of the clips, instead of ``clips``.
        dpi: Dots per inch.

    Raises:
        ConfigError: When a setting is wrong, classes do not match, or the file cannot be written.
        CheckpointError: When a model cannot be loaded.
        DataError: When there is no data.
    """
    check_figure(out, dpi)
    return _Layout(load_examples(models, data, split=split, clips=clips, pick=pick)).draw(dpi).save(out)


class _Row(NamedTuple):
    """One row of a clip.

    Attributes:
        name: Label at its left.
        tall: Height in points.
        put: Draws frame k of a clip at (left, top).
    """

    name: str
    tall: float
    put: Callable[[Page, Example, int, float, float], None]


class _Layout:
    """Layout: bands of as many clips side by side as fit, row labels at the left, scores at the right of each clip."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self.models = [shortened(name, _WIDEST_NAME) for name in examples.models]
        self.names = max(width_of(words) for words in ("frames", "sound", "truth", *self.models)) + SPACE
        self.longest = max(len(clip.times) for clip in examples.clips)
        # Width of a clip without its cells; the last clip of a band needs no gap.
        apart = self.longest * GAP + width_of(max("0.00", examples.score, key=len), SMALL) + SPACE
        free = WIDTH - 2 * EDGE - self.names + SPACE
        self.abreast = int(clamped(free // (self.longest * _NARROWEST + apart), 1, len(examples.clips)))
        self.wide = clamped((free / self.abreast - apart) / self.longest, _NARROWEST, _WIDEST)
        self.pitch = self.longest * self.wide + apart

    def draw(self, dpi: int) -> Page:
        """Return the page with all clips."""
        clips = self.examples.clips
        bands = [clips[n : n + self.abreast] for n in range(0, len(clips), self.abreast)]
        heights = [self._head(band) + sum(row.tall + GAP for row in self._rows(band)) + LINE for band in bands]
        width = self.names + self.abreast * self.pitch - SPACE
        page = Page(width + 2 * EDGE, sum(heights) + (len(bands) - 1) * SPACE + 2 * EDGE, dpi)
        top = EDGE
        for band, tall in zip(bands, heights, strict=True):
            self._draw_band(page, band, top)
            top += tall + SPACE
        return page

    def _head(self, band: Sequence[Example]) -> float:
        return LINE + max(legend_height(self.examples.legend(clip), self.pitch - SPACE) for clip in band) + GAP

    def _rows(self, band: Sequence[Example]) -> list[_Row]:
        tall = max(self.wide * max(clip.tallness for clip in band), 2 * LINE)
        rows = [_Row("frames", tall, self._put_frame), _Row("truth", tall, self._put_truth)]
        if any(clip.sound is not None for clip in band):
            rows.insert(1, _Row("sound", max(self.wide / 2, LINE), self._put_sound))
        return rows + [_Row(name, tall, partial(self._put_prediction, n)) for n, name in enumerate(self.models)]

    def _draw_band(self, page: Page, band: Sequence[Example], top: float) -> None:
        rows = self._rows(band)
        lefts = [EDGE + self.names + n * self.pitch for n in range(len(band))]
        for clip, left in zip(band, lefts, strict=True):
            page.write(shortened(clip.name, self.pitch - SPACE), left, top)
            page.legend(self.examples.legend(clip), left, top + LINE, self.pitch - SPACE)
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

    def _draw_scores(self, page: Page, clip: Example, left: float, bottom: float, tall: float) -> None:
        """Draw name and value of the score at each of the models' rows, which end at ``bottom``."""
        middle = bottom - len(clip.predictions) * (tall + GAP) + tall / 2
        for prediction in clip.predictions:
            if prediction.score is not None:
                page.write(self.examples.score, left, middle - LINE, size=SMALL, ink=FAINT)
                page.write(f"{prediction.score:.2f}", left, middle, size=SMALL)
            middle += tall + GAP

    def _put_frame(self, page: Page, clip: Example, k: int, left: float, top: float) -> None:
        tall = self.wide * clip.tallness
        page.picture(fit(clip.frames[k], page.pixels(self.wide, tall)), left, top, self.wide, tall)

    def _put_sound(self, page: Page, clip: Example, k: int, left: float, top: float) -> None:
        if clip.sound is not None:
            tall = self.wide / 2
            page.picture(spectrogram(clip.sound[k], page.pixels(self.wide, tall)), left, top, self.wide, tall)

    def _put_truth(self, page: Page, clip: Example, k: int, left: float, top: float) -> None:
        put_truth(page, self.examples, clip, k, left, top, self.wide)

    def _put_prediction(self, model: int, page: Page, clip: Example, k: int, left: float, top: float) -> None:
        put_prediction(page, self.examples, clip, k, left, top, self.wide, model)
