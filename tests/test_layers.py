"""Imports between the packages of avseg form a tower: none of them needs itself through another one."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"


def modules() -> dict[str, Path]:
    """Return dotted name → file."""
    names = {path: ".".join(path.relative_to(SRC).with_suffix("").parts) for path in SRC.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Yield the functions and methods of a module."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def body_lines(function: ast.FunctionDef) -> int:
    """Return the number of lines of a function without its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module imports, at its head, in functions or for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Return module → modules of avseg that it imports."""
    found = modules()
    names = {name: list(imports(ast.parse(path.read_text(encoding="utf-8")))) for name, path in found.items()}
    return {
        name: {full if full in found else full.rpartition(".")[0] for full in used} & (found.keys() - {name})
        for name, used in names.items()
    }


def room(module: str) -> str:
    """Return the package or file directly in ``avseg`` that holds a module."""
    return ".".join(module.split(".")[1:2])


def check_tower(needs: dict[str, set[str]]) -> None:
    """Raise CycleError unless modules, and the packages that hold them, form a tower."""
    tuple(TopologicalSorter(needs).static_order())
    rooms: dict[str, set[str]] = {}
    for module, used in needs.items():
        here = room(module)
        rooms.setdefault(here, set()).update({room(other) for other in used} - {here})
    tuple(TopologicalSorter(rooms).static_order())


@pytest.fixture(scope="module")
def needs() -> dict[str, set[str]]:
    return graph()


def test_imports_form_a_tower(needs: dict[str, set[str]]) -> None:
    assert len(needs) > 150
    check_tower(needs)


@pytest.mark.parametrize("folder", ["src", "benchmarks"])
def test_files_and_functions_are_short(folder: str) -> None:
    for path in (SRC.parent / folder).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 500, path
        for function in functions(ast.parse(text)):
            assert body_lines(function) <= 50, (path, function.name)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("avseg.interface", "avseg.models.tpavi"),
        ("avseg.outputs.json", "avseg.pipeline.result"),
        ("avseg.media.video", "avseg.data"),
    ],
)
def test_an_upward_import_is_found(needs: dict[str, set[str]], lower: str, upper: str) -> None:
    with pytest.raises(CycleError):
        check_tower(needs | {lower: needs[lower] | {upper}})
