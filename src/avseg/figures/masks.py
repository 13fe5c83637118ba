"""Cells of a page with ground truth and predictions."""

from avseg.figures.cells import highlight, overlay_labels
from avseg.figures.page import LINE, PAPER, SMALL, Page, shortened
from avseg.figures.scenes import Example, Examples


def put_truth(page: Page, examples: Examples, clip: Example, k: int, left: float, top: float, wide: float) -> None:
    """Draw frame ``k`` with its ground truth, or marked as unlabelled."""
    tall = wide * clip.tallness
    if clip.labelled[k]:
        page.picture(
            overlay_labels(clip.frames[k], clip.truth[k], page.pixels(wide, tall), examples.colour),
            left,
            top,
            wide,
            tall,
        )
        return
    nothing = clip.truth[k] < 0
    page.picture(highlight(clip.frames[k], nothing, page.pixels(wide, tall)), left, top, wide, tall)
    words = shortened("unlabelled", wide, SMALL)
    page.write(words, left + wide / 2, top + (tall - LINE) / 2, size=SMALL, ink=PAPER, align="center")


def put_prediction(
    page: Page, examples: Examples, clip: Example, k: int, left: float, top: float, wide: float, model: int = 0
) -> None:
    """Draw frame ``k`` with the prediction of a model."""
    tall = wide * clip.tallness
    labels = clip.predictions[model].labels[k]
    page.picture(
        overlay_labels(clip.frames[k], labels, page.pixels(wide, tall), examples.colour), left, top, wide, tall
    )
