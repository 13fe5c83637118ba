import socket
from pathlib import Path

import pytest

from avseg.app import server
from avseg.cli import main
from avseg.errors import ConfigError


def test_missing_extra_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    assert main(["app"]) == 2
    printed = capsys.readouterr()
    remedy = "pip install -e '.[app]' in the checkout of avseg"
    assert printed.err == f"avseg: error: avseg app needs Gradio, which is not installed: {remedy}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_upload", "0"], "max_upload must be a number of MB above 0, got 0"),
        (["nonsense_model"], "no model 'nonsense_model'"),
        (["small", "--port", "99999"], "port must be a number from 1 to 65535, got 99999"),
    ],
)
def test_mistakes_are_reported_before_the_server_starts(words, message, monkeypatch, capsys):
    monkeypatch.setattr(server, "check_installed", lambda: None)
    assert main(["app", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_port_in_use_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"port {port} .* choose another --port"),
            server.listening("127.0.0.1", port),
        ):
            pass


def test_temporary_folder_is_private_and_deleted():
    with server.temporary_folder() as folder:
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "file").touch()
    assert not Path(folder).exists()
