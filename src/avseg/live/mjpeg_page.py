"""Show pictures in a browser on this computer while they come: motion JPEG over HTTP, without further packages."""

import io
import json
import secrets
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import Self

from avseg.errors import ConfigError

_HOST = "127.0.0.1"
_QUALITY = 85
_BOUNDARY = "avseg"
_WAIT = 1.0
"""Seconds between two checks for the end of the page while no picture comes."""
_HTML = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>avseg live</title>
<style>
body { margin: 0; background: #16181d; color: #e8eaee; font: 15px/1.5 system-ui, sans-serif; }
img { display: block; width: 100%; height: calc(100vh - 3rem); object-fit: contain; background: #000; }
p { margin: 0; height: 3rem; line-height: 3rem; padding: 0 1rem; white-space: nowrap; overflow: hidden;
    text-overflow: ellipsis; font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) { p { white-space: normal; height: auto; line-height: 1.4; padding: .5rem 1rem; } }
</style>
<img src="pictures" alt="Live picture with masks">
<p id="status" role="status">waiting for the first picture</p>
<script>
const line = document.getElementById("status");
async function update() {
  try {
    const response = await fetch("status");
    const { text, ended } = await response.json();
    if (text) line.textContent = text;
    if (ended) return;
  } catch {
    line.textContent = "avseg live has ended";
    return;
  }
  setTimeout(update, 500);
}
update();
</script>
</html>
"""


class LivePage:
    """A page that shows the newest picture; use it in a ``with`` block.

    It is served to this computer only, at an address with a random part, which other users of the computer do not see.

    Args:
        port: Port to listen on; 0 takes a free one.

    Attributes:
        address: Address to open in a browser.

    Raises:
        ConfigError: When the port cannot be used.
    """

    def __init__(self, port: int) -> None:
        if not 0 <= port < 2**16:
            raise ConfigError(f"port must be a number from 0 to 65535, got {port}")
        self._changed = Condition()
        self._number, self._jpeg, self._text, self._ended = 0, b"", "", False
        token = secrets.token_urlsafe(16)
        try:
            self._server = ThreadingHTTPServer((_HOST, port), _handler(self, f"/{token}/"))
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"cannot listen on {_HOST} port {port} ({reason}): choose another --port") from error
        self._server.daemon_threads = True
        self.address = f"http://{_HOST}:{self._server.server_address[1]}/{token}/"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, name="avseg-page", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def show(self, image: NDArray[np.uint8], text: str) -> None:
        """Show a picture (H, W, 3) with a line of text below it."""
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=_QUALITY)
        with self._changed:
            self._number, self._jpeg, self._text = self._number + 1, file.getvalue(), text
            self._changed.notify_all()

    def picture_after(self, number: int) -> tuple[int, bytes] | None:
        """Wait for a picture with a higher number; return its number and JPEG, or None at the end."""
        with self._changed:
            while self._number <= number and not self._ended:
                self._changed.wait(_WAIT)
            return None if self._ended else (self._number, self._jpeg)

    def status(self) -> Mapping[str, Any]:
        """Return the line of text, and whether the page has ended."""
        return {"text": self._text, "ended": self._ended}


def _handler(page: LivePage, root: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Serve the page, its pictures and its status below ``root``."""

        def do_GET(self) -> None:
            found = {root: self._page, f"{root}pictures": self._pictures, f"{root}status": self._status}.get(self.path)
            if found is None:
                self.send_error(404)
                return
            try:
                found()
            except ConnectionError:  # the browser has closed the page
                self.close_connection = True

        def _page(self) -> None:
            self._send("text/html; charset=utf-8", _HTML.encode())

        def _status(self) -> None:
            self._send("application/json", json.dumps(page.status()).encode())

        def _pictures(self) -> None:
            self._head(f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            number = 0
            while (shown := page.picture_after(number)) is not None:
                number, jpeg = shown
                part = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(part.encode() + jpeg + b"\r\n")
            self.wfile.write(f"--{_BOUNDARY}--\r\n".encode())
            self.close_connection = True

        def _send(self, kind: str, body: bytes) -> None:
            self._head(kind, len(body))
            self.wfile.write(body)

        def _head(self, kind: str, length: int | None = None) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Cache-Control", "no-store")
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

    return Handler
