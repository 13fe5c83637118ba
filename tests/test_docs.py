"""Documentation: paths, symbols and links exist, commands parse, examples run, tables are those that were measured."""

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.io import wavfile

import avseg.bench.plan
import avseg.config
import avseg.data
import avseg.flags
import avseg.models
import avseg.outputs
from avseg import build, list_models
from avseg.cli import main
from avseg.config import read_run
from avseg.data import AVSDataset, build_dataset
from avseg.errors import DataError
from avseg.flags import parse
from avseg.metrics import protocols
from avseg.models import model_class
from avseg.prediction.regions import Frame
from avseg.testing import CHECKS, check_dataset, check_model

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src/avseg"
BANNED_OPENINGS = {"What", "Who", "Of", "Where", "How", "Whether"}
ROOMS = sorted(path for path in SOURCES.iterdir() if path.suffix == ".py" or any(path.glob("*.py")))
BANNED_ENTRY = re.compile(r"^ *\w+: (?:What|Who|Of|Where|How)\b.*", re.MULTILINE)
"""An argument or attribute whose description begins with a question word."""
RECIPES = sorted(ROOT.glob("configs/*.yaml"))
CARDS = ("examples/README.md", "src/avseg/weights/*/README.md")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *(path for card in CARDS for path in ROOT.glob(card))])
CASES = [pytest.param(c, marks=pytest.mark.slow) if c in ("export", "overfits") else c for c in CHECKS]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def names(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """All classes, functions, methods, fields and constants of a module, dotted."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield prefix + node.name
            yield from names(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


def block(page: str, first_line: str) -> str:
    """The code block of a page that begins with this line."""
    blocks = re.findall(r"^```\w+\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (b for b in blocks if b.startswith(first_line + "\n"))
    return found


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of all docstrings, those of attributes and constants included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_docstrings_do_not_open_with_a_question_word(room: Path) -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in ([room] if room.is_file() else sorted(room.rglob("*.py")))
        for line, text in docstrings(ast.parse(path.read_text(encoding="utf-8")))
        if text.split()[0].rstrip(",:") in BANNED_OPENINGS or BANNED_ENTRY.search(text)
    ]
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_comments_of_recipes_begin_no_sentence_with_a_question_word(recipe: Path) -> None:
    lines = re.findall(r"^# ?(.*)$", recipe.read_text(encoding="utf-8"), re.MULTILINE)
    assert not re.findall(r"(?:^|[.:!?;] )(?:What|Who|Of|Where|How)\b.{0,40}", " ".join(lines))


def prose(page: Path) -> str:
    """Return the text of a page without its code blocks and inline code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`]*`", "`", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as MkDocs makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def commands(page: Path) -> list[str]:
    """Return the lines of a page's bash blocks; continued lines are joined."""
    found = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for text in found for line in text.replace("\\\n", " ").splitlines()]


def names_in_navigation(entry: object) -> Iterator[str]:
    """Yield the paths in a part of mkdocs.yml's navigation."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict | list):
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from names_in_navigation(part)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_page_names_existing_paths_symbols_and_anchors(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    symbols = cache(lambda path: {*names(ast.parse((ROOT / path).read_text()))})
    for path, symbol in re.findall(r"`((?:src|tests|benchmarks)/[\w/]+\.py)(?::([\w.]+))?`", text):
        assert (ROOT / path).is_file(), path
        assert not symbol or symbol in symbols(path), f"{path}:{symbol}"
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
        path = page.parent / target if target else page
        assert "://" in target or path.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {target}#{anchor}"
    assert not re.findall(r"@[A-Z_0-9]+@", text), f"{page.name} has gaps to fill"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_page_begins_no_sentence_with_a_question_word(page: Path) -> None:
    opening = r"(?:^[-*#>|\s]*|[.:!?] |\| |\*\*)(?:What|Who|Of|Where|How)\b.{0,40}"
    assert not re.findall(opening, prose(page), re.MULTILINE)


class ParsedError(Exception):
    """Raised in place of running a command whose words are valid."""


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """End each command after its words are parsed."""

    def stop(*arguments: Any, **options: Any) -> None:
        parse(*arguments, **options)
        raise ParsedError

    monkeypatch.chdir(ROOT)
    for module in (avseg.flags, avseg.config, avseg.bench.plan):  # imported above: a later import would keep ``stop``
        monkeypatch.setattr(module, "parse", stop)


@pytest.mark.usefixtures("parse_only")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_of_page_are_valid(page: Path) -> None:
    for line in commands(page):
        words: Sequence[str] = shlex.split(line.rpartition("&& ")[2], comments=True)
        if words[:1] == ["avseg"]:
            with pytest.raises(ParsedError):
                pytest.fail(f"{line}: exit code {main(words[1:])}")
        elif words[:1] == ["python"] and words[1] != "-m":
            assert (ROOT / words[1]).is_file(), line


def test_navigation_has_every_page_of_docs_and_no_other() -> None:
    listed = sorted(path for path in names_in_navigation(SITE["nav"]) if path != "api")
    outside = [path for path in listed if not (ROOT / "docs" / path).is_file()]
    assert all((ROOT / path).is_file() for path in outside), outside
    written = {str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md")}
    assert set(listed) - set(outside) == written
    assert len(listed) == len(set(listed))


def test_readme_is_short_and_has_two_setup_commands() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 100
    assert sum(line.startswith("pip install -e ") and "&&" in line for line in commands(readme)) == 2


@pytest.mark.parametrize("table", sorted(ROOT.glob("benchmarks/results/*.md")), ids=lambda p: p.stem)
def test_study_has_its_table_as_measured_and_links_its_json(table: Path) -> None:
    text = table.read_text(encoding="utf-8")
    (study,) = (page for page in ROOT.glob("docs/studies/*.md") if text in page.read_text(encoding="utf-8"))
    assert table.with_suffix(".json").is_file()
    assert f"(../../benchmarks/results/{table.stem}.json)" in study.read_text(encoding="utf-8")


@pytest.mark.parametrize("classes", [1, 4])
def test_the_metrics_page_has_every_protocol(classes: int) -> None:
    described = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    assert set(protocols(classes)) <= set(described)


@pytest.fixture
def dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model CONTRIBUTING shows, added as described there: by one file."""
    (tmp_path / "dot.py").write_text(block("CONTRIBUTING.md", "# src/avseg/models/dot.py"))
    monkeypatch.setattr(avseg.models, "__path__", [*avseg.models.__path__, str(tmp_path)])


@pytest.mark.usefixtures("dot")
@pytest.mark.parametrize("check", CASES)
def test_contributing_model_passes_every_check(check: str) -> None:
    assert "dot" in list_models()
    check_model(model_class("dot"), [check], channels=16, visual="pvt_v2_b0")


@pytest.mark.usefixtures("dot")
def test_the_config_of_contributing_parses(tmp_path: Path) -> None:
    text = block("CONTRIBUTING.md", "# avseg train --config configs/dot_resnet18_synthetic.yaml")
    (tmp_path / "dot.yaml").write_text(text)
    run = read_run(["--config", str(tmp_path / "dot.yaml")])
    assert run.model["name"] == "dot"
    assert build(**run.model).config.channels == 64


@pytest.fixture
def stills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data set CONTRIBUTING shows, and a clip of three seconds for it."""
    (tmp_path / "stills.py").write_text(block("CONTRIBUTING.md", "# src/avseg/data/stills.py"))
    monkeypatch.setattr(avseg.data, "__path__", [*avseg.data.__path__, str(tmp_path)])
    folder = tmp_path / "root" / "test" / "bell"
    folder.mkdir(parents=True)
    for k in range(3):
        Image.new("RGB", (40, 30), (200, 0, 0)).save(folder / f"{k}.png")
        mask = np.zeros((30, 40), np.uint8)
        mask[:10] = 255 * (k > 0)
        Image.fromarray(mask).save(folder / f"{k}_mask.png")
    noise = np.random.default_rng(0).integers(-3000, 3000, (3 * 44_100, 2)).astype(np.int16)
    wavfile.write(folder / "sound.wav", 44_100, noise)
    return tmp_path / "root"


def test_the_data_set_of_contributing_works(stills: Path) -> None:
    data: AVSDataset = build_dataset("stills", "test", root=str(stills))
    check_dataset(data)
    sample = data[0]
    assert (len(data), data.classes, sample.names) == (1, 1, ["bell"])
    assert sample.clip.frames.shape == (1, 3, 3, 30, 40)
    assert sample.clip.audio.shape == (1, 3, 1, 96, 64)
    assert sample.clip.audio.std() > 0.1
    assert sample.target.masks.sum((2, 3)).tolist() == [[0, 400, 400]]
    with pytest.raises(DataError, match=r"no clip in .*expected folders"):
        build_dataset("stills", "train", root=str(stills))


def test_the_output_of_contributing_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "times.py").write_text(block("CONTRIBUTING.md", "# src/avseg/outputs/times.py"))
    monkeypatch.setattr(avseg.outputs, "__path__", [*avseg.outputs.__path__, str(tmp_path)])
    frames = [Frame(0.25, ()), Frame(0.5, ())]
    result = avseg.Result(tmp_path / "a.mp4", (8, 8), ("background", "sounding"), frames, 0.75, "small", {})
    folder = result.save(tmp_path / "out", ["times"])
    assert [path.name for path in folder.iterdir()] == ["times.csv"]
    assert (folder / "times.csv").read_text().split() == ["time,score", "0.25,0.0", "0.5,0.0"]
