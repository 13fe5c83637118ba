"""Find models, data sets and outputs by name, in this package and in others.

A class of this package has the name of its file: ``models/pcmanet.py`` is ``"pcmanet"``. Another installed package adds
classes by entry points whose group is the package that they extend (``avseg.models``, ``avseg.data``,
``avseg.outputs``)::

    [project.entry-points."avseg.models"]
    my_model = "my_package.module:Class"

A class that is not registered is named ``my_package.module:Class``.
"""

import dataclasses
import inspect
import pkgutil
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Generic, TypeVar

from avseg.errors import ConfigError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes of one kind.

    Args:
        package: Package with one class per module; also the group of the entry points.
        noun: Word for a class in error messages, such as ``"model"``.
        base: Base class.
        configured: True if a class must hold a dataclass ``Config`` with its settings.
    """

    def __init__(self, package: str, noun: str, base: type[T], *, configured: bool = False) -> None:
        self.package, self.noun, self.base, self.configured = package, noun, base, configured

    def own(self) -> list[str]:
        """Return the names of the classes in the package itself, sorted."""
        return own_names(self.package)

    def names(self) -> list[str]:
        """Return all names: those of the package itself, then those of other packages. Imports none of them."""
        return all_names(self.package)

    def find(self, name: str) -> type[T]:
        """Return the class of a name. A name of the package itself precedes an entry point of the same name.

        Args:
            name: One of :meth:`names`, or ``my_package.module:Class``.

        Raises:
            ConfigError: When there is no such class, or it cannot be imported.
        """
        if name in self.own():
            return self._only_class(import_module(f"{self.package}.{name}"))
        if is_class_path(name):
            advice = "install its package, or add its folder to PYTHONPATH"
            return self._load(EntryPoint(name, name, self.package), f"the {self.noun} {name}", advice)
        points = {point.value: point for point in entry_points(group=self.package) if point.name == name}
        if not points:
            raise ConfigError(f"unknown {self.noun} {name!r}. {did_you_mean(name, self.names())}")
        if len(points) > 1:
            one, other = (_distribution(point) for point in list(points.values())[:2])
            raise ConfigError(f"{one} and {other} both register the {self.noun} {name!r}: uninstall one of them")
        (point,) = points.values()
        source = _distribution(point)
        return self._load(point, f"the {self.noun} {name!r} of {source}", f"update or uninstall {source}")

    def _only_class(self, module: ModuleType) -> type[T]:
        (found,) = (
            c
            for _, c in inspect.getmembers(module, inspect.isclass)
            if issubclass(c, self.base) and c.__module__ == module.__name__
        )
        return found

    def _load(self, point: EntryPoint, what: str, advice: str) -> type[T]:
        try:
            found: Any = point.load()
        except Exception as error:  # the import of a foreign module can raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(f"cannot import {what} ({reason}): {advice}") from error
        if not (inspect.isclass(found) and issubclass(found, self.base)):
            raise ConfigError(f"{what} is no subclass of {self.base.__module__}.{self.base.__name__}: {advice}")
        if self.configured and not dataclasses.is_dataclass(vars(found).get("Config")):
            raise ConfigError(f"{what} has no dataclass Config, which holds its settings: {advice}")
        return found


def name_of(found: type, package: str) -> str:
    """Return the name with which the registry of ``package`` finds a class."""
    if found.__module__.startswith(f"{package}."):
        return found.__module__.rpartition(".")[2]
    path = f"{found.__module__}:{found.__qualname__}"
    registered = {point.name for point in entry_points(group=package) if point.value == path}
    return min(registered - set(own_names(package)), default=path)


def is_class_path(name: str) -> bool:
    """Return whether a name has the form ``my_package.module:Class``."""
    module, _, found = name.partition(":")
    return found.isidentifier() and all(part.isidentifier() for part in module.split("."))


def own_names(package: str) -> list[str]:
    """Return the names of the classes in a package, sorted. Does not import the package."""
    modules = pkgutil.iter_modules(_search_paths(package))
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def all_names(package: str) -> list[str]:
    """Return :func:`own_names` of a package, then the names that other packages register in it. Imports nothing."""
    own = own_names(package)
    return own + sorted({point.name for point in entry_points(group=package)} - set(own))


def locate(module: str) -> ModuleSpec | None:
    """Return the spec of a module, None if there is no such module. Unlike importlib, does not import its package."""
    package = module.rpartition(".")[0]
    return PathFinder.find_spec(module, _search_paths(package) if package else None)


def _search_paths(package: str) -> list[str]:
    """Return the folders of a package."""
    if package in sys.modules:
        return list(sys.modules[package].__path__)
    spec = locate(package)
    return [] if spec is None else list(spec.submodule_search_locations or ())


def _distribution(point: EntryPoint) -> str:
    """Return the name of the installed package that has an entry point."""
    return f"the package {point.dist.name}" if point.dist is not None else f"the package of {point.module}"
