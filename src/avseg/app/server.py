"""``avseg app``: serve the page and the results."""

import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from avseg.app.sessions import Sessions
from avseg.checkpoints.store import load
from avseg.errors import ConfigError

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Hosts that other computers cannot reach."""
_PAGE_HEADERS = {"Content-Security-Policy": "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox"}
"""Headers of a result page: it cannot read what other pages of the server store in the browser."""
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def app_command(
    models: Sequence[str] = ("small",),
    host: str = "127.0.0.1",
    port: int = 7860,
    max_upload: int = 500,
    device: str = "cpu",
    open_browser: bool = False,
) -> None:
    """Open a page in the browser that segments the videos dropped into it.

    Args:
        models: Bundled names, folders or Hub ids of the models to choose from.
        host: Address to listen on. With the default, only this computer can reach the page; 0.0.0.0 opens it to the
            network, without a password.
        port: Port to listen on.
        max_upload: Largest video in MB.
        device: Device of the models: cpu, cuda, mps, or auto for the fastest one.
        open_browser: Open the page in the default browser.

    Raises:
        ConfigError: When the extra ``app`` is not installed, the port is in use, or a setting is invalid.
        CheckpointError: When a model cannot be loaded.
    """
    check_installed()
    if max_upload <= 0:
        raise ConfigError(f"max_upload must be a number of MB above 0, got {max_upload}")
    for model in models:
        load(model, device)
    with listening(host, port) as listener, temporary_folder() as folder:
        import uvicorn

        application = create(folder, models, host=host, max_upload=max_upload, device=device)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"avseg: open {address} (stop with Ctrl+C)", flush=True)
        if host not in LOCAL:
            print("avseg: other computers can reach this page, and it has no password", flush=True)
        if open_browser:
            import webbrowser

            webbrowser.open(address)
        settings = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=2)
        uvicorn.Server(settings).run(sockets=[listener])


def create(folder: Path, models: Sequence[str], *, host: str, max_upload: int, device: str = "cpu") -> Any:
    """Return the ASGI application.

    Args:
        folder: Existing, empty folder for all files of the users.
        models: Names or folders of the models to choose from.
        host: Address that is listened on; a local one is only served under its local names.
        max_upload: Largest video in MB.
        device: Device of the models.
    """
    # Gradio reads these when it builds the page: no file elsewhere, no connection to another server.
    os.environ.update(GRADIO_TEMP_DIR=str(folder / "gradio"), GRADIO_ANALYTICS_ENABLED="False")
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from avseg.app.layout import CSS, build

    sessions = Sessions(folder)
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host in LOCAL:  # a foreign web page whose name resolves to this computer is refused
        application.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL))
    application.add_api_route("/results/{token}/{path:path}", _result_route(sessions), methods=["GET", "HEAD"])
    fonts = ["system-ui", "sans-serif"]  # the default ones are loaded from Google
    theme = gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        application,
        build(sessions, models, device),
        path="/",
        max_file_size=f"{max_upload}mb",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        theme=theme,
        css=CSS,
    )


def check_installed() -> None:
    """Raise ConfigError unless the extra ``app`` is installed."""
    if find_spec("gradio") is None:
        raise ConfigError(
            "avseg app needs Gradio, which is not installed: pip install -e '.[app]' in the checkout of avseg"
        )


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens on an address.

    Raises:
        ConfigError: When the address cannot be used.
    """
    if not 0 < port < 2**16:
        raise ConfigError(f"port must be a number from 1 to 65535, got {port}")
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot listen on {host} port {port} ({reason}): choose another --port") from error
    with listener:
        yield listener


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is deleted at the end, readable by this user only."""
    with tempfile.TemporaryDirectory(prefix="avseg_app_", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _result_route(sessions: Sessions) -> Any:
    from starlette.responses import FileResponse, Response

    def find(token: str, path: str) -> Response:
        """Return a file of a result."""
        file = sessions.find(token, path)
        if file is None:
            return Response("There is no such result: it is deleted when its page is closed.", 404)
        return FileResponse(file, headers=_HEADERS | (_PAGE_HEADERS if file.suffix == ".html" else {}))

    return find
