"""The page about your own data: what it shows is done, block by block, in an empty folder."""

import re
import shlex
from pathlib import Path

import pytest

from avseg.cli import main

ROOT = Path(__file__).parents[1]


def blocks() -> list[tuple[str, str]]:
    """Language and text of the page's code, in order."""
    return re.findall(
        r"^```(python|bash)\n(.*?)^```", (ROOT / "docs/own_data.md").read_text(), re.MULTILINE | re.DOTALL
    )


def test_the_page_works_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for language, text in blocks():
        if language == "python":
            exec(compile(text, "docs/own_data.md", "exec"), {})
            continue
        for line in text.splitlines():
            command, *words = shlex.split(line)
            assert command == "avseg"
            assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "mine can be used: data: {name: videos, root: mine}" in printed
    assert "mine_prepared can be used: data: {name: folder, root: mine_prepared}" in printed
    assert printed.count("1 clips, 3 frames") == 2
    assert (tmp_path / "mine.png").stat().st_size > 1000


def test_every_layout_has_its_place_on_the_page() -> None:
    page = (ROOT / "docs/own_data.md").read_text()
    for name in ("videos/", "masks/", "classes.txt", "split.csv", "annotations.json", "--data.seconds"):
        assert name in page
