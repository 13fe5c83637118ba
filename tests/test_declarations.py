"""Signatures read from source files are equal to those of the imported classes and functions."""

import dataclasses
import inspect
from pkgutil import resolve_name
from typing import Any, get_type_hints

import pytest

from avseg.config import dataset_config, model_config
from avseg.data import dataset_class, list_datasets
from avseg.declarations import constant, declared, docstring, main_class
from avseg.errors import ConfigError
from avseg.models import list_models, model_class
from avseg.prediction.frame_stream import Options

CONFIGS = [(model_config, model_class, name) for name in list_models()]
CONFIGS += [(dataset_config, dataset_class, name) for name in list_datasets()]
FUNCTIONS = [
    ("avseg.pipeline.predict:predict_command", ("options",)),
    ("avseg.evaluation.evaluate:evaluate_checkpoint", ()),
    ("avseg.profile:profile", ("model",)),
    ("avseg.checkpoints.release:convert", ()),
]


def fields(config: type) -> list[tuple[str, Any, Any]]:
    """Return name, type and default of all fields of a dataclass."""
    hints = get_type_hints(config)
    return [(f.name, hints[f.name], (f.default, f.default_factory)) for f in dataclasses.fields(config)]


@pytest.mark.parametrize(("read", "find", "name"), CONFIGS, ids=[name for *_, name in CONFIGS])
def test_settings_are_equal_to_those_of_the_class(read: Any, find: Any, name: str) -> None:
    config = find(name).Config
    assert fields(read(name)) == fields(config)
    assert inspect.getdoc(read(name)) == inspect.getdoc(config)


def test_options_of_predict_are_equal_to_the_class() -> None:
    read = declared("avseg.prediction.frame_stream:Options")
    assert fields(read) == fields(Options)
    assert inspect.getdoc(read) == inspect.getdoc(Options)


@pytest.mark.parametrize(("path", "skip"), FUNCTIONS)
def test_signature_is_equal_to_that_of_the_function(path: str, skip: tuple[str, ...]) -> None:
    function, read = resolve_name(path), declared(path, skip)
    expected = [p for p in inspect.signature(function).parameters.values() if p.name not in skip]
    assert [p for p in inspect.signature(read).parameters.values() if p.name not in skip] == expected
    assert read.__doc__ == function.__doc__


def test_skipped_parameters_have_no_type() -> None:
    read = declared("avseg.profile:profile", ("model",))
    assert inspect.signature(read).parameters["model"].annotation is inspect.Parameter.empty
    assert inspect.signature(declared("avseg.profile:profile", ("runs",))).parameters["frames"].annotation is int


def test_declared_function_has_no_code() -> None:
    assert declared("avseg.checkpoints.release:convert")("no file", "no folder") is None


def test_class_and_its_literals() -> None:
    found = main_class("avseg.models.tpavi")
    assert found == "TPAVI"
    assert constant("avseg.models.tpavi", found, "paper") == model_class("tpavi").paper
    assert constant("avseg.models.tpavi", found, "nothing") is None
    assert docstring("avseg.models.tpavi", found) == inspect.getdoc(model_class("tpavi"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("avseg.errors:Nothing", "avseg.errors has no definition of Nothing"),
        ("avseg.models.tpavi:TPAVI.Nothing", "avseg.models.tpavi has no definition of TPAVI.Nothing"),
        ("avseg.nowhere:Nothing", "there is no source of avseg.nowhere: install avseg with its .py files"),
    ],
)
def test_missing_definition_is_an_error(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        declared(path)


def test_module_without_a_configured_class_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"avseg\.errors must define one class with a Config, got none"):
        main_class("avseg.errors")
