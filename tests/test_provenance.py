import json
import subprocess
from pathlib import Path

import pytest
import torch

from avseg import provenance as module
from avseg.provenance import commit, provenance


def test_provenance_has_all_fields() -> None:
    found = provenance("avseg profile pcmanet")
    assert found["command"] == "avseg profile pcmanet"
    assert found["versions"]["torch"] == torch.__version__
    assert found["hardware"]["device"] == "cpu"
    assert found["hardware"]["processor"]
    assert json.loads(json.dumps(found)) == found


def test_commit_of_this_file_and_whether_it_was_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    assert commit() is None  # no repository here

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    (tmp_path / "provenance.py").write_text("one")
    git("add", ".")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD").strip()
    assert commit() == head
    (tmp_path / "provenance.py").write_text("two")
    assert commit() == head + "+"
