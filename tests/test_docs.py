"""Documentation that cannot rot: what it names exists, what it shows runs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

import avseg.data
import avseg.models
from avseg import build, list_models
from avseg.config import read_run
from avseg.data import AVSDataset, build_dataset
from avseg.errors import DataError
from avseg.metrics import protocols
from avseg.models import model_class
from avseg.testing import CHECKS, check_dataset, check_model

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


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


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for path, symbol in re.findall(r"`((?:src|tests)/[\w/]+\.py)(?::([\w.]+))?`", text):
        assert (ROOT / path).is_file(), path
        assert not symbol or symbol in set(names(ast.parse((ROOT / path).read_text()))), f"{path}:{symbol}"
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"
    assert not re.findall(r"@[A-Z_0-9]+@", text), f"{page.name} has gaps to fill"


@pytest.mark.parametrize("table", sorted(ROOT.glob("benchmarks/results/bench_*.md")), ids=lambda p: p.stem)
def test_the_results_page_has_the_tables_as_measured(table: Path) -> None:
    assert table.read_text(encoding="utf-8") in (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert table.with_suffix(".json").is_file()


@pytest.mark.parametrize("classes", [1, 4])
def test_the_metrics_page_has_every_protocol(classes: int) -> None:
    described = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    assert set(protocols(classes)) <= set(described)


@pytest.fixture
def dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model CONTRIBUTING shows, added as it says: by one file."""
    (tmp_path / "dot.py").write_text(block("CONTRIBUTING.md", "# src/avseg/models/dot.py"))
    monkeypatch.setattr(avseg.models, "__path__", [*avseg.models.__path__, str(tmp_path)])


@pytest.mark.usefixtures("dot")
@pytest.mark.parametrize("check", CHECKS)
def test_contributing_model_passes_every_check(check: str) -> None:
    assert "dot" in list_models()
    check_model(model_class("dot"), [check], channels=16)


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
