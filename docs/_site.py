"""Hooks of MkDocs: files outside ``docs/``, one API page per package, and links for Sphinx roles in docstrings.

Pages link to files of the repository (``../benchmarks/results/x.json``), so that the links work in a checkout as well.
In the site these files have the path that they have in the repository, and ``docs/`` is its root.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINKED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CITATION.cff",
    "benchmarks/results/*.json",
    "benchmarks/results/*.png",
    "configs/*.yaml",
    "examples/README.md",
    "src/avseg/weights/*/README.md",
)
"""Files outside ``docs/`` that are part of the site."""
FIRST = ("avseg", "avseg.interface")
"""API pages that come before the others."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the API pages into the navigation, where it has ``API: api``."""
    for entry in config.nav or []:
        if entry == {"API": "api"}:
            entry["API"] = [{name: _page_path(name)} for name in _api()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the linked files and the API pages."""
    for pattern in LINKED:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for name, modules in _api().items():
        blocks = "\n\n".join(f"::: {module}" for module in modules)
        files.append(File.generated(config, _page_path(name), content=f"# {name}\n\n{blocks}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    uri = page.file.src_uri
    folder = posixpath.dirname(uri if _outside(uri) else f"docs/{uri}")

    def replaced(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        return f"]({posixpath.relpath(target.removeprefix('docs/'), posixpath.dirname(uri) or '.')}{match[2]})"

    return re.sub(r"\]\((?![a-z]+:|#)([^)#\s]+)((?:#[^)\s]*)?)\)", replaced, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Turn Sphinx roles into references where the object has a place in the API pages, into code elsewhere."""

    def replaced(match: re.Match[str]) -> str:
        name = match[1].lstrip("~")
        shown = name.rpartition(".")[2] if match[1].startswith("~") else name
        return f'<autoref optional identifier="{name}"><code>{shown}</code></autoref>'

    return re.sub(r":(?:class|func|meth|mod|data|attr|exc|obj):<code>([^<]+)</code>", replaced, html)


def _outside(uri: str) -> bool:
    return any(Path(uri).match(pattern) for pattern in LINKED)


def _api() -> dict[str, list[str]]:
    """Return the title of each API page and its modules: public modules of a package, or the names in ``avseg``."""
    package = ROOT / "src/avseg"
    names = re.search(r"^__all__ = \[(.*?)\]", (package / "__init__.py").read_text(encoding="utf-8"), re.M | re.S)
    public = re.findall(r'"(\w+)"', names[1] if names else "")
    pages = {"avseg": [f"avseg.{name}" for name in public if not (package / name).is_dir()]}
    for path in sorted(package.iterdir()):
        name = f"avseg.{path.stem}"
        if path.suffix == ".py" and not path.stem.startswith("_"):
            pages[name] = [name]
        elif (path / "__init__.py").is_file():
            pages[name] = [name, *(f"{name}.{found}" for found in _modules(path))]
    return {name: pages[name] for name in [*FIRST, *(other for other in pages if other not in FIRST)]}


def _modules(package: Path) -> list[str]:
    files = (path.relative_to(package).with_suffix("") for path in sorted(package.rglob("*.py")))
    return [".".join(file.parts) for file in files if not any(part.startswith("_") for part in file.parts)]


def _page_path(name: str) -> str:
    return f"api/{name.removeprefix('avseg.')}.md"
