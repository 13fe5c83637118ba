"""Write the screenshots of the documentation: page.png, app.png and live.jpg in docs/images.

    python examples/make_screenshots.py docs/images

It needs Chromium, playwright and the extra ``app``: ``pip install -e ".[app]" playwright``.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

import avseg
from avseg.app.server import create

VIDEO = Path(__file__).parent / "portrait_and_cat.mp4"
MOMENT = 5.0
"""Seconds; the cat meows."""
LIVE_MOMENT = 2.0
"""Seconds, in the live page; the person speaks."""
LONGEST_WAIT = 600_000
"""Milliseconds."""
WIDTH = 960
"""Width of the pictures in pixels; the pages are opened at 1280."""
COLOURS = 128


def main(folder: Path) -> None:
    """Write the screenshots to a folder."""
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as scratch:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.set_default_timeout(LONGEST_WAIT)
        result = avseg.predict(VIDEO).save(Path(scratch, "result"), ["page", "overlay", "masks", "json"])
        tab.goto((result / "page.html").as_uri())
        show(tab)
        write(tab.screenshot(full_page=True), folder / "page.png")
        with served(Path(scratch)) as address:
            tab.goto(address)
            tab.set_input_files("#video input[type=file]", VIDEO)
            tab.get_by_text(VIDEO.stem).first.wait_for()
            tab.get_by_role("button", name="Segment").click()
            tab.wait_for_selector("#results iframe")
            # A frame is painted while it is on the screen: a screenshot of more than the window leaves it blank.
            tab.set_viewport_size({"width": 1280, "height": 1600})
            show(tab.frames[-1])
            write(tab.screenshot(), folder / "app.png")
            tab.goto("about:blank")  # closes the connections to the server before it stops
        with live() as address:
            tab.set_viewport_size({"width": 1280, "height": 787})
            tab.goto(address)
            tab.wait_for_function(
                "(time) => parseFloat(document.getElementById('status').textContent) >= time", arg=LIVE_MOMENT
            )
            write(tab.screenshot(), folder / "live.jpg")
            tab.goto("about:blank")
        browser.close()


def show(page: Any) -> None:
    """Move the video of a page to the moment, and wait for its mask."""
    page.wait_for_function("() => document.getElementById('video').readyState >= 2")
    page.evaluate("(time) => { document.getElementById('video').currentTime = time; }", MOMENT)
    page.wait_for_function("() => Number(document.getElementById('masks').dataset.mask) > 100")
    page.wait_for_timeout(1000)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the app; yield its address."""
    application = create(folder, ["small"], host="127.0.0.1", max_upload=100)
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@contextmanager
def live() -> Iterator[str]:
    """Play the video in the live page; yield its address."""
    command = [sys.executable, "-m", "avseg", "live", str(VIDEO), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[2]
        process.terminate()


def write(png: bytes, path: Path) -> None:
    """Write a smaller picture, PNG with a palette or JPEG."""
    with Image.open(BytesIO(png)) as image:
        small = image.convert("RGB").resize(
            (WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS
        )
    (small if path.suffix == ".jpg" else small.quantize(COLOURS)).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
