"""The quick form of ``benchmarks/attack.py``: no input may end in anything but a result or one line."""

import random

import pytest

import attack
from _attack_mutations import mutated_bytes, mutated_tree
from _attack_runner import Case, run
from avseg.errors import DataError


def test_mutations_are_functions_of_the_seed() -> None:
    tree = {"a": [1, 2, {"b": "c"}], "d": 0.5}
    for seed in range(20):
        data = bytes(range(256)) * 8
        first, second = (mutated_bytes(data, random.Random(seed)) for _ in range(2))
        assert first == second != data
        one, two = (repr(mutated_tree(tree, random.Random(seed))) for _ in range(2))
        assert one == two
    assert tree == {"a": [1, 2, {"b": "c"}], "d": 0.5}


def _line(_: object) -> None:
    raise DataError("a mistake")


def _lines(_: object) -> None:
    raise DataError("a mistake\nin two lines")


def _trace(_: object) -> None:
    raise KeyError("bug")


def _hang(_: object) -> None:
    import time

    time.sleep(60)


def _crash(_: object) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def _own(folder) -> None:
    (folder / "owned").touch()


def _lose(folder) -> None:
    (folder / "a").unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "end"),
    [
        (lambda _: None, "result"),
        (_line, "line"),
        (_lines, "unclear"),
        (lambda _: 3, "unclear"),
        (_trace, "traceback"),
        (_hang, "hang"),
        (_crash, "crash"),
        (_own, "execution"),
        (_lose, "file lost"),
    ],
)
def test_every_end_is_recognised(act, end: str, tmp_path) -> None:
    case = Case("kind", 0, lambda folder: (folder / "a").write_text("kept"), act, seconds=0.5 if end == "hang" else 30)
    assert run(case, tmp_path / "case").end == end
    assert not (tmp_path / "case").exists()


@pytest.mark.slow
def test_quick_attack_ends_in_results_and_lines(capsys) -> None:
    assert attack.main(["--quick", "--seconds", "60"]) == 0, capsys.readouterr()
