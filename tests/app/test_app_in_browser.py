"""``avseg app`` in Chromium; skipped where Gradio, playwright or Chromium is missing."""

import contextlib
import json
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

from avseg.app import runs, server
from avseg.pipeline.predict import Loaded
from avseg.pipeline.result import Result

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PATIENCE = 120_000
"""Milliseconds: several browsers and the server share the cores."""


@pytest.fixture
def address(tmp_path, monkeypatch, ear):
    """Start the app, with a model that depends only on the sound under two names; return its address and its folder."""
    pytest.importorskip("gradio")
    import uvicorn

    monkeypatch.setattr(runs, "ready", lambda name, device: Loaded(ear, name, device, None))
    folder = tmp_path / "app"
    folder.mkdir()
    application = server.create(folder, ["first", "<i>second</i>"], host="127.0.0.1", max_upload=1)
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/", folder
    running.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def visit(browser, address):
    """Open the app as a new user; a test fails if a page connects to another server."""
    with contextlib.ExitStack() as stack:
        requested = []

        def open_app(width=1280):
            context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.on(
                "request",
                lambda r: None if r.url.startswith((address[0], "data:", "blob:")) else requested.append(r.url),
            )
            page.goto(address[0], timeout=PATIENCE)
            page.wait_for_selector("#video input[type=file]", state="attached")
            return page

        yield open_app
    assert [url for url in requested if not url.startswith((address[0], "data:", "blob:"))] == []


@pytest.fixture
def video(make_video, make_beep):
    return make_video(
        "my clip.mp4", times=[k / 10 for k in range(20)], sound=make_beep(2.0, 0.0, 2.0), sound_codec="aac"
    )


def upload(page, path):
    page.set_input_files("#video input[type=file]", path)
    page.get_by_text(path.stem[:4]).first.wait_for()


def files(folder):
    # The app may delete folders meanwhile: os.walk leaves them out, rglob raises.
    walks = (os.walk(folder / part) for part in ("uploads", "results"))
    return [Path(parent, name) for walk in walks for parent, _, names in walk for name in names]


def eventually(condition):
    deadline = time.monotonic() + PATIENCE / 1000
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert condition()


def test_upload_play_toggle_download_and_leave(visit, address, video, tmp_path):
    page = visit()
    upload(page, video)
    page.get_by_label("<i>second</i>").check()
    page.get_by_role("button", name="Segment").click()
    page.wait_for_selector("#results iframe")
    assert page.locator("#results iframe").count() == 2
    assert page.locator("#results i").count() == 0  # names are escaped
    assert list((address[1] / "uploads").rglob("*.mp4")) == list((address[1] / "gradio").rglob("*.mp4")) == []

    view = page.frame_locator("#results iframe >> nth=0")
    mask = view.locator("#masks[data-mask]")
    mask.wait_for()
    view.get_by_role("button", name="Play").click()
    view.locator("#clock", has_text=re.compile(r"^(\S+) / \1 s$")).wait_for()  # the end
    assert mask.get_attribute("data-mask") == "19"
    view.get_by_role("button", name="Masks").click()
    view.locator("#masks[data-mask='-1']").wait_for(state="attached")

    with page.expect_download() as download:
        page.get_by_role("link", name="Download all files").first.click()
    download.value.save_as(tmp_path / "out.zip")
    assert download.value.suggested_filename == "my clip_1_first.zip"
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        archive.extractall(tmp_path / "out")
    downloaded = Result.load(tmp_path / "out" / "1_first")
    assert [interval.end for interval in downloaded.intervals] == [downloaded.end]
    assert (tmp_path / "out" / "1_first" / "overlay.mp4").is_file()

    link = page.locator("#results iframe").first.get_attribute("src")
    page.close()
    eventually(lambda: not files(address[1]))
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address[0] + link)


def test_progress_is_shown_and_two_users_get_their_own_results(visit, address, make_video, make_beep, monkeypatch):
    going, finish = threading.Event(), threading.Event()
    ready = runs.ready

    def slowly(name, device):
        going.set()
        finish.wait(PATIENCE / 1000)
        return ready(name, device)

    monkeypatch.setattr(runs, "ready", slowly)
    pages = [visit(), visit(390)]
    for page, name in zip(pages, ("anns clip.mp4", "bobs clip.mp4"), strict=True):
        upload(page, make_video(name, sound=make_beep(1.0, 0.0, 1.0), sound_codec="aac"))
        page.get_by_role("button", name="Segment").click()
        going.wait(PATIENCE / 1000)
    pages[0].get_by_text("first: predicting").first.wait_for()
    pages[1].get_by_text("queue").first.wait_for()
    finish.set()
    for page, name in zip(pages, ("anns clip.mp4", "bobs clip.mp4"), strict=True):
        page.wait_for_selector("#results iframe")
        page.frame_locator("#results iframe").get_by_role("heading", name=name).wait_for()
    assert pages[1].evaluate("() => document.documentElement.scrollWidth") <= 390
    pages[0].close()
    eventually(lambda: len(list((address[1] / "results").iterdir())) == 1)
    assert pages[1].frame_locator("#results iframe").locator("#video").evaluate("(video) => video.readyState") >= 2


def test_broken_too_large_and_missing_files_are_reported(visit, address, tmp_path):
    page = visit()
    page.get_by_role("button", name="Segment").click()
    page.get_by_text("there is no video: upload one first").wait_for()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    upload(page, broken)
    page.get_by_role("button", name="Segment").click()
    alert = page.locator("#results [role=alert]", has_text="broken.mp4")
    alert.wait_for()
    assert not files(address[1])
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(1_100_000))
    page.set_input_files("#video input[type=file]", large)
    page.get_by_text("maximum allowed size").first.wait_for()
    assert not list((address[1] / "gradio").rglob("*.mp4"))


def test_stop_ends_a_run(visit, address, video, monkeypatch):
    going, stopped = threading.Event(), threading.Event()
    predict_file = runs.predict_file

    def slowly(path, loaded, options, reached):
        going.set()
        stopped.wait(PATIENCE / 1000)
        return predict_file(path, loaded, options, reached)

    monkeypatch.setattr(runs, "predict_file", slowly)
    page = visit()
    upload(page, video)
    page.get_by_role("button", name="Segment").click()
    going.wait(PATIENCE / 1000)
    page.get_by_role("button", name="Stop").click()
    eventually(lambda: not list((address[1] / "results").iterdir()))
    stopped.set()
    page.get_by_text("stopped: upload the video again").wait_for()
    assert not files(address[1])


def test_results_are_sandboxed_and_local_names_only(address):
    request = urllib.request.Request(address[0], headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address[0] + "results/guess/page.html")


def test_settings_of_the_chosen_outputs(visit, video, tmp_path):
    page = visit()
    assert page.locator("#redact-settings").count() == 0
    page.locator("#outputs").get_by_label("redact", exact=True).check()
    page.locator("#outputs").get_by_label("alpha", exact=True).check()
    page.locator("#redact-settings").get_by_text("Settings of redact").click()
    page.locator("#redact-mode input").click()
    page.get_by_role("option", name="black").click()
    page.locator("#redact-padding input").fill("-1")
    page.locator("#alpha-settings").get_by_text("Settings of alpha").click()
    page.locator("#alpha-codec input").click()
    page.get_by_role("option", name="vp9").click()
    upload(page, video)
    page.get_by_role("button", name="Segment").click()
    page.locator("#results [role=alert]", has_text="padding").wait_for()
    page.locator("#redact-padding input").fill("0.25")
    page.get_by_role("button", name="Segment").click()  # the upload is kept
    page.wait_for_selector("#results iframe")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all files").first.click()
    download.value.save_as(tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert {"1_first/alpha.webm", "1_first/redact.mp4"} <= set(archive.namelist())
        audit = json.loads(archive.read("1_first/redact.json"))
    assert (audit["settings"]["mode"], audit["settings"]["padding"]) == ("black", 0.25)


@pytest.mark.parametrize("width", [1280, 390])
def test_settings_fit_into_the_window(width, visit, tmp_path):
    page = visit(width)
    page.locator("#outputs").get_by_label("redact", exact=True).check()
    page.locator("#redact-settings").get_by_text("Settings of redact").click()
    page.locator("#redact-mode").wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
