"""Command lines and YAML files are parsed into settings; errors are one line with a suggestion."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from jsonargparse import ActionConfigFile, ArgumentParser

from avseg.errors import ConfigError
from avseg.flags import add_part, choice, new_parser, parse, read_yaml


class Thing:
    """Configured."""

    @dataclass(frozen=True)
    class Config:
        """Settings of ``Thing``, see :class:`Thing`.

        Attributes:
            kind: Shape, see :class:`~avseg.flags.PlainHelp`.
            count: Number of things, ``1`` or more.
            limit: Upper limit.
            size: Side, or (height, width).
            quick: Skip the checks.
        """

        kind: Literal["round", "square"] = "round"
        count: int = 1
        limit: float | None = None
        size: int | tuple[int, int] = 8
        quick: bool = False

    names: ClassVar[list[str]] = ["thing", "thong"]


@pytest.fixture
def parser() -> ArgumentParser:
    made = new_parser("do", "Do it.")
    made.add_argument("--config", action=ActionConfigFile)
    add_part(made, "model", "thing", Thing.Config, Thing.names)
    made.add_argument("--train.lr", type=float, default=1e-4)
    return made


def test_flags_override_file_and_file_overrides_defaults(parser: ArgumentParser, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("model: {name: thing, count: 3, size: [4, 6]}\ntrain: {lr: 1e-3}\n")
    read = parse(parser, ["--config", str(file), "--model.count", "5"])
    assert (read.model.count, read.model.size, read.model.kind, read.train.lr) == (5, (4, 6), "round", 1e-3)


def test_parse_without_defaults_returns_only_given_settings(parser: ArgumentParser) -> None:
    assert parse(parser, ["--model.count=5"], defaults=False).as_dict() == {"model": {"count": 5}}


@pytest.mark.parametrize("words", [["--model.quick"], ["--model.quick", "true"], ["--model.quick=true"]])
def test_switch_without_value_is_true(parser: ArgumentParser, words: list[str]) -> None:
    assert parse(parser, [*words, "--model.count", "2"]).model.quick is True
    assert parse(parser, ["--model.quick", "false"]).model.quick is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.cuont", "2"], "unknown setting 'model.cuont' in the command line. Did you mean 'model.count'?"),
        (["--count", "2"], "Did you mean 'model.count'?"),
        (["--train.count", "2"], "Did you mean 'model.count'?"),
        (["--modle.count=2"], "Did you mean 'model'?"),
        (
            ["--model.xyxyxy", "2"],
            "Choose from: model.count, model.kind, model.limit, model.name, model.quick, model.size.",
        ),
        (["--model.kind", "squre"], "model.kind = 'squre' does not exist. Did you mean 'square'?"),
        (["--model.count", "many"], "model.count must be int, got 'many'"),
        (["--model.limit", "high"], "model.limit must be float or null, got 'high'"),
        (["--model.size", "[1]"], "model.size must be int or tuple with 2 elements, got '[1]'"),
        (["--model.count"], "expected one argument"),
        (["stray"], "unrecognized arguments: stray"),
    ],
)
def test_wrong_argument_raises_one_line(parser: ArgumentParser, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(parser, words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {cuont: 2}", "a.yaml. Did you mean 'model.count'?"),
        ("modle: {count: 2}", "Did you mean 'model'?"),
        ("model: thing", "must hold settings, such as model.count"),
        ("model: {count: many}", "model.count must be int, got 'many'"),
        ("model: {", "cannot read config"),
        ("- a", "must hold sections"),
        ("", "must hold sections"),
    ],
)
def test_wrong_file_raises_one_line(parser: ArgumentParser, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        parse(parser, ["--config", str(tmp_path / "a.yaml")])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_or_binary_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read config"):
        read_yaml(tmp_path / "nothing.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xff\x00")
    with pytest.raises(ConfigError, match="cannot read config"):
        read_yaml(tmp_path / "a.yaml")


def test_choice_ignores_all_other_settings(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("model: {name: thong, other: 1}\ndata: null\n")
    assert choice(["--config", str(file), "--other", "x"], "model") == "thong"
    assert choice(["--config", str(file), "--model.name=thing"], "model") == "thing"
    assert choice(["--config", str(file)], "data") is None
    with pytest.raises(ConfigError, match="expected one argument"):
        choice(["--config"], "model")


def test_help_has_no_sphinx_markup(parser: ArgumentParser) -> None:
    text = " ".join(parser.format_help().split())
    assert "Settings of Thing, see Thing" in text
    assert "Shape, see PlainHelp. " in text
    assert "Number of things, 1 or more. (type: int, default: 1)" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {1: 2}", "a key must be a name, got 1"),
        ("null: {a: 1}", "a key must be a name, got None"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested deeper than 64 levels"),
        ("a: " + "[" * 80 + "]" * 80, "nested deeper than 64 levels"),
        ("a: &a [*a]", "nested deeper than 64 levels"),
        ("a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]", "too many values"),
        ("a: 2020-99-99", "cannot read config"),
    ],
)  # fmt: skip
def test_hostile_yaml_raises_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(tmp_path / "run.yaml")
    assert "\n" not in str(caught.value)


def test_word_that_is_not_utf_8_raises_one_line(parser: ArgumentParser) -> None:
    with pytest.raises(ConfigError, match=r"na\\udcffme is not valid UTF-8"):
        parse(parser, ["--thing.kind", "na\udcffme"])


def test_word_in_a_locale_that_is_not_utf_8_names_the_locale(
    parser: ArgumentParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    with pytest.raises(ConfigError, match="is not valid ASCII: the locale reads ascii, set PYTHONUTF8=1"):
        parse(parser, ["--thing.kind", "gr\udcc3\udcb6\udcc3\udc9fe"])
