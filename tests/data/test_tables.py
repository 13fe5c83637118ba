from pathlib import Path

import pytest

from avseg.data._tables import read_rows
from avseg.errors import DataError


def write(folder: Path, text: str) -> Path:
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return folder / "list.csv"


def test_rows_keep_column_order(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "\ufeffname,start,split\nb,3,val\na,0,train\n"), ("split",))
    assert [next(iter(row.values())) for row in rows] == ["b", "a"]
    assert rows[0] == {"name": "b", "start": "3", "split": "val"}
    assert [row.place for row in rows] == [f"{tmp_path / 'list.csv'}, line {line}" for line in (2, 3)]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("name,splits\na,train\n", "has no column 'split'. Did you mean 'splits'"),
        ("name,split\na,train\nb,\n", "line 3: column 'split' is empty"),
        ("name,split\na\n", "line 2: column 'split' is empty"),
        ("name,split\n,train\n", "line 2: column 'name' is empty"),
        ("name,split\n\n..,train\n", "line 3: '..' is not the name of a file"),
        ("name,split\na/../../b,train\n", "line 2: 'a/../../b' is not the name of a file"),
        ("name,split\n/etc/a,train\n", "line 2: '/etc/a' is not the name of a file"),
        ("name;split\na;train\n", "list.csv separates its columns by ';': separate them by ','"),
        ("name\tsplit\na\ttrain\n", "separates its columns by '\\t'"),
        ("name,split\na,tran\n", "line 2: split must be train, val or test, got 'tran'"),
    ],
)
def test_wrong_table_raises_one_line(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(write(tmp_path, text), ("split",))
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_or_binary_table_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .*list.csv: set root \(--data.root\) to the folder that holds list.csv"):
        read_rows(tmp_path / "list.csv", ())
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00split\n")
    with pytest.raises(DataError, match="cannot read"):
        read_rows(tmp_path / "list.csv", ())
