import pytest

from avseg.errors import ConfigError, MediaError
from avseg.prediction.freshfolder import fresh_folder

CONTENTS = ("a.txt", "b.txt")


def fill(path, text="new", **settings):
    with fresh_folder(path, CONTENTS, **settings) as folder:
        assert not (path / "a.txt").exists() or (path / "a.txt").read_text() == "old"
        (folder / "a.txt").write_text(text)


def test_it_appears_when_it_is_complete(tmp_path):
    fill(tmp_path / "deep" / "out")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
    assert (tmp_path / "deep" / "out" / "a.txt").read_text() == "new"


@pytest.mark.parametrize("trouble", [ValueError, KeyboardInterrupt, SystemExit])
def test_it_vanishes_when_something_goes_wrong(tmp_path, trouble):
    def half_done():
        with fresh_folder(tmp_path / "out", CONTENTS) as folder:
            (folder / "a.txt").write_text("half")
            raise trouble

    with pytest.raises(trouble):
        half_done()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(MediaError, match=r"cannot write .*No space left"), fresh_folder(tmp_path / "out", CONTENTS):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_free(tmp_path):
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").exists()


def test_an_earlier_result_stays_unless_told(tmp_path):
    fill(tmp_path / "out", "old")
    with pytest.raises(ConfigError, match="not empty"):
        fill(tmp_path / "out")
    with pytest.raises(ValueError, match="no"), fresh_folder(tmp_path / "out", CONTENTS, overwrite=True):
        raise ValueError("no")
    assert (tmp_path / "out" / "a.txt").read_text() == "old"
    fill(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "a.txt").read_text() == "new"


def test_what_is_not_ours_is_never_deleted(tmp_path, monkeypatch):
    (tmp_path / "thesis.tex").write_text("years of work")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, tmp_path.__class__(".")):
        with pytest.raises(ConfigError, match=r"holds 'thesis\.tex', which is no result"):
            fill(path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        fill(tmp_path / "file")
    with pytest.raises(MediaError, match="cannot write"):
        fill(tmp_path / "file" / "out")
