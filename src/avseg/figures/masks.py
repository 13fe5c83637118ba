"""What should be marked and what is, as cells of a page."""

from avseg.figures.cells import highlight, overlay_labels
from avseg.figures.page import LINE, PAPER, SMALL, Page, shortened
from avseg.figures.scenes import Scene, Scenes


def put_truth(page: Page, scenes: Scenes, clip: Scene, k: int, left: float, top: float, wide: float) -> None:
    """Frame ``k`` under its labels; one that has none says so."""
    tall = wide * clip.tallness
    if clip.labelled[k]:
        page.picture(
            overlay_labels(clip.frames[k], clip.truth[k], page.pixels(wide, tall), scenes.colour), left, top, wide, tall
        )
        return
    nothing = clip.truth[k] < 0
    page.picture(highlight(clip.frames[k], nothing, page.pixels(wide, tall)), left, top, wide, tall)
    words = shortened("unlabelled", wide, SMALL)
    page.write(words, left + wide / 2, top + (tall - LINE) / 2, size=SMALL, ink=PAPER, align="center")


def put_answer(
    page: Page, scenes: Scenes, clip: Scene, k: int, left: float, top: float, wide: float, model: int = 0
) -> None:
    """Frame ``k`` under what a model marks."""
    tall = wide * clip.tallness
    labels = clip.answers[model].labels[k]
    page.picture(overlay_labels(clip.frames[k], labels, page.pixels(wide, tall), scenes.colour), left, top, wide, tall)
