from io import StringIO

from rich.console import Console

import avseg.progress
from avseg.progress import seconds_bar


def test_terminal_shows_seconds(monkeypatch):
    screen = StringIO()
    monkeypatch.setattr(avseg.progress, "Console", lambda **_: Console(file=screen, force_terminal=True, width=80))
    with seconds_bar("listening", 10.0, shown=True) as reached:
        reached(4.2)
    assert "listening" in screen.getvalue()
    assert "4.2 of 10.0 s" in screen.getvalue()


def test_pipe_and_hidden_bar_show_nothing(monkeypatch):
    screen = StringIO()
    for terminal, shown in ((False, True), (True, False)):
        monkeypatch.setattr(
            avseg.progress, "Console", lambda t=terminal, **_: Console(file=screen, force_terminal=t, width=80)
        )
        with seconds_bar("drawing", None, shown=shown) as reached:
            reached(1.0)
    assert screen.getvalue() == ""
