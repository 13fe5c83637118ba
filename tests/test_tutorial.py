"""The tutorial and the Python page: their code blocks run from top to bottom in an empty folder."""

import re
import shlex
from pathlib import Path

import pytest

from avseg.cli import main

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[tuple[str, str]]:
    """Return language and text of the page's code blocks, in order."""
    return re.findall(r"^```(python|bash)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_tutorial_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for language, text in blocks("docs/tutorial.md"):
        if language == "python":
            exec(compile(text, "docs/tutorial.md", "exec"), {})
            continue
        for line in text.splitlines():
            command, *words = shlex.split(line)
            assert command == "avseg"
            assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "mine can be used: data: {name: videos, root: mine}" in printed
    assert "mine_prepared can be used: data: {name: folder, root: mine_prepared}" in printed
    assert printed.count("1 clips, 10 frames") == 2
    assert (tmp_path / "mine.png").stat().st_size > 1000
    assert (tmp_path / "portrait_and_cat_mine/overlay.mp4").stat().st_size > 1000


@pytest.mark.slow
def test_python_page_runs_from_top_to_bottom() -> None:
    variables: dict[str, object] = {}
    for _, text in blocks("docs/howto/python.md"):
        exec(compile(text, "docs/howto/python.md", "exec"), variables)


def test_own_data_page_has_every_part_of_the_layout() -> None:
    page = (ROOT / "docs/own_data.md").read_text()
    for name in ("videos/", "masks/", "classes.txt", "split.csv", "annotations.json", "--data.seconds"):
        assert name in page
