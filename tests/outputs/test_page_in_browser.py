"""The page in Chromium; skipped where Chromium or playwright is missing."""

import dataclasses

import numpy as np
import pytest

from avseg.colours import colour
from avseg.media import rle
from avseg.pipeline.result import Result
from avseg.prediction.regions import Frame, Region
from avseg.prediction.uncertainty import pack

pytestmark = pytest.mark.slow

SIZE = (120, 180)
TIMES = [0.5, 0.6, 0.7, 1.2, 1.6, 2.0]
SEEK = "(time) => { document.getElementById('video').currentTime = time; }"
MASK = """(index) => document.getElementById('masks').dataset.mask === String(index)"""
PIXELS = """() => {
    const canvas = document.getElementById("masks");
    return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
}"""
BRIGHTNESS = """() => {
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    context.drawImage(document.getElementById("video"), 0, 0, canvas.width, canvas.height);
    return context.getImageData(50, 50, 1, 1).data[0];
}"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def result(make_video, make_beep):
    """The k-th frame has k columns of blocks; the first frame is shown at 0.5 s."""
    path = make_video("clip.mkv", times=TIMES, size=SIZE, sound=make_beep(2.5, 0.4, 0.8))
    mask = np.zeros((len(TIMES), *SIZE), bool)
    for k in range(len(TIMES)):
        mask[k, 10:110, 5 : 5 + 25 * k] = True
    frames = [
        Frame(time, (Region(1, 0.8, rle.encode(one)),) if one.any() else ())
        for time, one in zip(TIMES, mask, strict=True)
    ]
    return Result(path, SIZE, ("background", "sounding"), frames, 2.4, "tiny", {"damaged": "error"})


@pytest.fixture
def opened(browser):
    """Open a page; a test fails if the page logs an error or requests anything but itself and its video."""
    problems = []

    def open_page(folder, width=1280, height=900):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: None if _own(request.url) else problems.append(request.url))
        page.goto((folder / "page.html").as_uri())
        page.wait_for_function("() => document.getElementById('video').readyState >= 2")
        return page

    yield open_page
    assert problems == []


def _own(url):
    return url.startswith(("data:", "blob:")) or url.endswith(("/page.html", "/page.mp4"))


def pixels(page):
    return np.array(page.evaluate(PIXELS), np.uint8).reshape(*SIZE, 4)


@pytest.mark.parametrize("limit", [0, 2**24])
def test_mask_on_the_screen_is_that_of_the_frame(result, opened, tmp_path, monkeypatch, limit):
    monkeypatch.setattr("avseg.outputs.page.EMBED_LIMIT", limit)
    page = opened(result.save(tmp_path / "out", ["page"]))
    for index, time in ((1, 0.62), (3, 1.4), (5, 2.1), (2, 0.7)):
        page.evaluate(SEEK, time)
        page.wait_for_function(MASK, arg=index)
        shown = pixels(page)
        inside = result.masks[index]
        tinted = (np.abs(shown[..., :3].astype(int) - colour(1)) < 4).all(-1) & (shown[..., 3] == 115)
        assert not (tinted & ~inside).any()
        assert (shown[..., 3] > 0)[inside].all()
        assert tinted.sum() > 0.7 * inside.sum()  # all but the contour
        if limit:  # the script may not read pixels of another file
            assert page.evaluate(BRIGHTNESS) == pytest.approx(20 + 5 * index, abs=2)  # see conftest.grey


def test_buttons_and_keys(result, opened, tmp_path):
    page = opened(result.save(tmp_path / "out", ["page"]))
    assert page.locator("#video").get_attribute("controls") is None
    page.evaluate(SEEK, 1.4)
    page.wait_for_function(MASK, arg=3)
    page.get_by_role("button", name="Masks").click()
    page.wait_for_function(MASK, arg=-1)
    assert not pixels(page).any()
    page.keyboard.press("m")
    page.wait_for_function(MASK, arg=3)
    assert page.get_by_role("button", name="Masks").get_attribute("aria-pressed") == "true"
    slider = page.get_by_role("slider", name="Position in the video")
    slider.focus()
    page.keyboard.press("ArrowLeft")  # a second
    page.wait_for_function("() => document.getElementById('video').currentTime < 0.6")
    page.get_by_role("button", name="0.60 s").click()
    page.wait_for_function(MASK, arg=1)
    assert slider.get_attribute("aria-valuetext") == "0.6 seconds"
    page.get_by_role("button", name="Mute").click()
    assert page.evaluate("document.getElementById('video').muted")


def test_video_plays_with_its_masks_to_the_end(result, opened, tmp_path):
    page = opened(result.save(tmp_path / "out", ["page"]))
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => document.getElementById('video').ended", timeout=120_000)
    page.wait_for_function(MASK, arg=len(TIMES) - 1)
    assert page.get_by_role("button", name="Play").is_visible()  # it was "Pause" meanwhile
    assert page.evaluate("document.getElementById('video').webkitAudioDecodedByteCount") > 0


def test_uncertainty_is_striped(result, opened, tmp_path):
    sure_left = np.repeat(np.float32([[0, 0, 1, 1]]), 3, 0)
    frames = [Frame(frame.time, (), pack(sure_left)) for frame in result.frames]
    page = opened(dataclasses.replace(result, frames=frames).save(tmp_path / "out", ["page"]))
    assert not pixels(page).any()
    page.get_by_role("button", name="Uncertainty").click()
    page.wait_for_function(f"() => ({PIXELS})().some((value) => value > 0)")
    shown = pixels(page)
    assert not shown[:, :40, 3].any()
    assert (shown[:, 140:, 3] == 153).all()  # 0.6 of 255
    assert set(np.unique(shown[:, 140:, 0])) == {28, 255}


@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_the_width(result, opened, tmp_path, width):
    long_name = dataclasses.replace(result, class_names=("background", "a class with a very long name " * 4))
    page = opened(long_name.save(tmp_path / "out", ["page", "masks", "json"]), width)
    assert page.evaluate(OVERFLOW) <= 0
    plot, cursor = (page.locator(name).first.bounding_box() for name in (".plot", ".cursor"))
    assert (cursor["x"], cursor["width"]) == pytest.approx((plot["x"], plot["width"]), abs=1)
