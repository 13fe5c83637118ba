import dataclasses

import numpy as np
import pytest
from PIL import Image

from avseg.colours import palette
from avseg.media import rle
from avseg.media.video import pictures
from avseg.outputs._drawing import overlay
from avseg.outputs.summary import chosen, summary, thumbnail
from avseg.pipeline.result import Result
from avseg.prediction.regions import Frame, Region
from avseg.prediction.uncertainty import pack


def make(path, size, count, classes=2):
    mask = np.zeros(size, bool)
    mask[: size[0] // 2] = True
    regions = tuple(Region(k, 0.8, rle.encode(mask)) for k in range(1, classes))
    frames = [Frame(k / 5, regions if k % 4 else ()) for k in range(count)]
    names = ("background", *(f"class {k}" for k in range(1, classes)))
    return Result(path, size, names, frames, count / 5, "tiny", {})


@pytest.mark.parametrize(("size", "expected"), [((90, 160), 5), ((160, 90), 9), ((20, 400), 3)])
def test_as_many_pictures_as_fit(size, expected):
    picked = chosen(make("none", size, 50))
    assert len(picked) == expected
    assert picked == sorted(picked)
    assert picked[0] < 10
    assert picked[-1] > 40


def test_one_picture_is_enough(make_video):
    path = make_video(times=[0.0], size=(32, 48))
    result = make(path, (32, 48), 1)
    assert set(chosen(result)) == {0}
    assert summary(result).mode == "RGB"


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("audible", [True, False])
def test_summary_of_a_video(make_video, make_beep, classes, audible):
    sound = make_beep(4, 1, 2) if audible else None
    result = make(make_video(times=[k / 5 for k in range(20)], size=(64, 96), sound=sound), (64, 96), 20, classes)
    image = np.asarray(result.plot())
    assert image.shape[1] == 1210
    assert (image[:5] == 255).all()
    assert len(np.unique(image @ np.array([65536, 256, 1]))) > 50


def test_thumbnails_given_are_the_ones_read(make_video, make_beep):
    path = make_video("clip.mp4", times=[k / 5 for k in range(20)], size=(64, 96), sound=make_beep(4, 1, 2))
    result = make(path, (64, 96), 20)
    given = {
        index: thumbnail(overlay(picture.rgb(), result.labels[index], palette(2)))
        for index, picture in enumerate(pictures(path))
        if index in chosen(result)
    }
    np.testing.assert_array_equal(np.asarray(summary(result, given)), np.asarray(summary(result)))


def test_thumbnails_are_small():
    assert thumbnail(np.zeros((1080, 1920, 3), np.uint8)).size == (480, 270)
    assert isinstance(thumbnail(np.zeros((4, 4, 3), np.uint8)), Image.Image)


@pytest.mark.slow
def test_uncertainty_has_its_rows(make_video, make_beep):
    """Each map is one grey, black for 0 and white for 1: the row has it under its picture."""
    path = make_video(times=[k / 5 for k in range(20)], size=(64, 96), sound=make_beep(4, 1, 2))
    plain = make(path, (64, 96), 20)
    maps = [pack(np.full((4, 6), k / 19, np.float32)) for k in range(20)]
    doubted = dataclasses.replace(
        plain, frames=[f._replace(uncertainty=kept) for f, kept in zip(plain.frames, maps, strict=True)]
    )
    image, before = np.asarray(doubted.plot()).astype(int), np.asarray(plain.plot())
    shown = chosen(plain)
    inches = 11.0 / len(shown) * 64 / 96  # of one picture's height
    assert image.shape[0] - before.shape[0] == pytest.approx(110 * (inches + 0.15 + 0.9), abs=3)
    row = image[round(110 * (0.3 + inches + 0.3 + inches / 2))]
    middles = image.shape[1] * (0.07 + 0.915 * (np.arange(len(shown)) + 0.5) / len(shown))
    greys = row[np.round(middles).astype(int)]
    np.testing.assert_allclose(greys, [[255 * index / 19] * 3 for index in shown], atol=2)


def test_narrow_video_has_a_small_summary(make_video):
    path = make_video(size=(4000, 2), times=[0.0, 0.04], codec="ffv1", pix_fmt="bgr0")
    image = summary(make(path, (4000, 2), 2))
    assert image.width * image.height < 5_000_000


def test_class_names_are_no_formulas(make_video):
    path = make_video(codec="ffv1", pix_fmt="bgr0")
    assert summary(dataclasses.replace(make(path, (48, 64), 25), class_names=("background", "$x_$ {"))).width > 0
