"""Settings of the outputs as components of the page: one group per output, from the fields of its ``Config``."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import docstring_parser
import gradio as gr

from avseg.outputs import output_class


class Setting(NamedTuple):
    """One setting of an output.

    Attributes:
        output: Name of the output.
        field: Name of the field of its ``Config``.
        kind: Type of the field, without None.
        default: Its default.
        description: First sentence of its documentation.
    """

    output: str
    field: str
    kind: Any
    default: Any
    description: str


def settings_of(output: str) -> list[Setting]:
    """Return the settings of an output that the page can show; others keep their default."""
    config = output_class(output).Config
    if config is None:
        return []
    hints, documented = get_type_hints(config), docstring_parser.parse(config.__doc__ or "")
    descriptions = {found.arg_name: " ".join((found.description or "").split()) for found in documented.params}
    found = [
        Setting(output, field.name, _kind(hints[field.name]), field.default, descriptions.get(field.name, ""))
        for field in dataclasses.fields(config)
    ]
    return [setting for setting in found if _is_shown(setting.kind)]


def component(setting: Setting) -> Any:
    """Return the Gradio component of a setting."""
    common: dict[str, Any] = {
        "label": setting.field,
        "info": setting.description.replace("`", "").replace("null", "empty") or None,
        "elem_id": f"{setting.output}-{setting.field}",
    }
    if get_origin(setting.kind) is Literal:
        return gr.Dropdown(list(get_args(setting.kind)), value=setting.default, **common)
    if setting.kind is bool:
        return gr.Checkbox(value=setting.default, **common)
    if setting.kind in (int, float):
        return gr.Number(setting.default, precision=0 if setting.kind is int else None, **common)
    return gr.Textbox("" if setting.default is None else str(setting.default), max_lines=1, **common)


def read(shown: Mapping[Any, Setting], values: Mapping[Any, Any], outputs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return output → field → value of the chosen outputs.

    Args:
        shown: The components with their settings.
        values: The values of the components.
        outputs: Names of the chosen outputs.
    """
    found: dict[str, dict[str, Any]] = {}
    for part, setting in shown.items():
        if setting.output in outputs:
            found.setdefault(setting.output, {})[setting.field] = _value(setting, values[part])
    return found


def _value(setting: Setting, given: Any) -> Any:
    if setting.kind is float and isinstance(given, int):
        return float(given)
    if isinstance(given, str) and get_origin(setting.kind) is not Literal:
        if setting.kind == list[str]:
            return [word.strip() for word in given.split(",") if word.strip()] or None
        return given.strip() or None
    return given


def _kind(hint: Any) -> Any:
    """Return a type without None."""
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else hint
    return hint


def _is_shown(kind: Any) -> bool:
    return kind in (bool, int, float, str) or kind == list[str] or get_origin(kind) is Literal
