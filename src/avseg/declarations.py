"""Classes and functions without their code, read from the source files of avseg.

The command line needs names, types, defaults and docstrings of settings. It reads them here, because importing the
modules that define them takes seconds (torch).
"""

import ast
import copy
from collections.abc import Collection, Iterator
from functools import cache
from importlib import import_module
from importlib.abc import InspectLoader
from typing import Any

from avseg.errors import ConfigError
from avseg.registry import locate

_ROOT = __name__.partition(".")[0]


def declared(path: str, skip: Collection[str] = ()) -> Any:
    """Return a class or function of avseg with its signature and docstrings; the bodies of functions are empty.

    Only the definitions to which the signature refers are evaluated, not the whole module.

    Args:
        path: ``avseg.module:name`` or ``avseg.module:Class.Inner``.
        skip: Parameters of a function whose types are left out.

    Raises:
        ConfigError: When there is no such definition.
    """
    module, _, qualified = path.partition(":")
    name, *inner = qualified.split(".")
    node = _definitions(module).get(name)
    for nested in inner:
        members = node.body if isinstance(node, ast.ClassDef) else []
        node = next((m for m in members if isinstance(m, ast.ClassDef) and m.name == nested), None)
    if node is None:
        raise ConfigError(f"{module} has no definition of {qualified}")
    return _evaluate(module, (inner or [name])[-1], _without_code(node, skip))


def main_class(module: str) -> str:
    """Return the name of the one class that a module of :mod:`avseg.models` or :mod:`avseg.data` registers.

    Raises:
        ConfigError: When not exactly one public class of the module has a ``Config``.
    """
    found = classes_with_config(module)
    if len(found) != 1:
        raise ConfigError(f"{module} must define one class with a Config, got {', '.join(found) or 'none'}")
    return found[0]


def classes_with_config(module: str) -> list[str]:
    """Return the names of the classes of a module that have a ``Config``."""
    classes = [node for node in _definitions(module).values() if isinstance(node, ast.ClassDef)]
    return [c.name for c in classes if any(isinstance(m, ast.ClassDef) and m.name == "Config" for m in c.body)]


def docstring(module: str, name: str) -> str:
    """Return the docstring of a class or function; an empty string if it has none."""
    node = _definitions(module)[name]
    return (ast.get_docstring(node) or "") if isinstance(node, ast.ClassDef | ast.FunctionDef) else ""


def constant(module: str, class_name: str, name: str) -> Any:
    """Return a literal in the body of a class, such as ``paper``; None if the class has no such literal."""
    node = _definitions(module)[class_name]
    for member in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(member, ast.AnnAssign) and ast.unparse(member.target) == name and member.value is not None:
            return ast.literal_eval(member.value)
    return None


def _definitions(module: str) -> dict[str, ast.stmt]:
    """Return name → statement that binds it, for the names at the top level of a module."""
    spec = locate(module)
    source = spec.loader.get_source(module) if spec is not None and isinstance(spec.loader, InspectLoader) else None
    if source is None:
        raise ConfigError(f"there is no source of {module}: install avseg with its .py files")
    return _parsed(source)


@cache
def _parsed(source: str) -> dict[str, ast.stmt]:
    return {name: node for node in _statements(ast.parse(source).body) for name in _bound(node)}


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements, with those inside ``if``, such as imports under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements(node.body)
        else:
            yield node


def _bound(node: ast.stmt) -> list[str]:
    """Return the names that a statement binds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _without_code(node: ast.stmt, skip: Collection[str] = ()) -> ast.stmt:
    """Return a definition with the docstring as the only statement of a function, and without methods of a class."""
    if isinstance(node, ast.ClassDef):
        members = [m for m in node.body if not isinstance(m, ast.FunctionDef)] or [ast.Pass()]
        return ast.ClassDef(node.name, node.bases, node.keywords, members, node.decorator_list)
    if isinstance(node, ast.FunctionDef):
        arguments = copy.deepcopy(node.args)
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if argument.arg in skip:
                argument.annotation = None
        body: list[ast.stmt] = [ast.Pass()]
        if ast.get_docstring(node) is not None:
            body = node.body[:1]
        return ast.FunctionDef(node.name, arguments, body, [])
    return node


def _evaluate(module: str, name: str, node: ast.stmt) -> Any:
    """Execute one statement with the definitions to which it refers, and return the value of ``name``."""
    used = {found.id for found in ast.walk(node) if isinstance(found, ast.Name)} - {name}
    # jsonargparse imports the module of a definition with its parents, and looks for the name in each of them. The
    # module must therefore not be one of avseg, whose public names import torch.
    namespace: dict[str, Any] = {"__name__": "builtins"}
    namespace |= {other: _resolve(module, other) for other in used & _definitions(module).keys()}
    tree = ast.fix_missing_locations(ast.Module([node], []))
    exec(compile(tree, f"<declaration in {module}>", "exec", dont_inherit=True), namespace)
    return namespace[name]


def _resolve(module: str, name: str) -> Any:
    """Return the value of a name at the top level of a module: from its source in avseg, imported elsewhere."""
    if module.partition(".")[0] != _ROOT:
        return getattr(import_module(module), name)
    node = _definitions(module)[name]
    if isinstance(node, ast.Import):
        return import_module(next(a.name for a in node.names if name in (a.asname, a.name.partition(".")[0])))
    if isinstance(node, ast.ImportFrom) and node.module is not None:
        return _resolve(node.module, next(a.name for a in node.names if name in (a.asname, a.name)))
    return _evaluate(module, name, _without_code(node))
