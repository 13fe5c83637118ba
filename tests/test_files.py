import os
import signal
import subprocess
import sys

import pytest

from avseg import files
from avseg.errors import ConfigError, MediaError
from avseg.files import check_writable, recover, replacing, replacing_folder, write_bytes, write_text

CONTENTS = ("a.txt", "parts/[0-9].txt")
WRITER = """
import sys, time
from pathlib import Path
from avseg import files

path = Path(sys.argv[2])
def wait(*_):
    print("here", flush=True)
    time.sleep(60)
"""
MIDDLE_OF_FILE = """
with files.replacing(path) as temporary:
    temporary.write_text("half")
    wait()
"""
MIDDLE_OF_FOLDER = """
with files.replacing_folder(path, ("a.txt",), overwrite=True) as folder:
    (folder / "a.txt").write_text("half")
    wait()
"""
BETWEEN_THE_RENAMES = """
replace, done = files.os.replace, []
def replace_once(old, new):
    wait() if done else replace(old, new)
    done.append(1)
files.os.replace = replace_once
with files.replacing_folder(path, ("a.txt",), overwrite=True) as folder:
    (folder / "a.txt").write_text("new")
"""


def start(code, path):
    """A process that has reached the middle of its work."""
    process = subprocess.Popen([sys.executable, "-c", WRITER + code, "", str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def fill(path, text="new", **settings):
    with replacing_folder(path, CONTENTS, **settings) as folder:
        (folder / "a.txt").write_text(text)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_replacing_keeps_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "deep" / "a.png"
    write_text(path, "old ✓")
    with replacing(path) as temporary:
        assert temporary.name == "a.png"
        assert not temporary.exists()
        temporary.write_text("new")
        assert path.read_text(encoding="utf-8") == "old ✓"
    assert path.read_text() == "new"
    write_bytes(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert names(tmp_path / "deep") == ["a.png"]


@pytest.mark.parametrize("trouble", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_replacing_leaves_nothing_when_the_block_raises(tmp_path, trouble):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def half_done():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise trouble

    with pytest.raises(trouble):
        half_done()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_replacing_gives_a_file_the_usual_permissions(tmp_path):
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "new")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_replacing_exchanges_a_whole_folder(tmp_path):
    path = tmp_path / "clip"
    (path / "old").mkdir(parents=True)
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["clip"]


def test_replacing_by_two_at_once_keeps_the_last(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("outer")
        second.write_text("inner")
    assert path.read_text() == "outer"
    assert names(tmp_path) == ["a.txt"]


def test_replacing_takes_the_longest_names(tmp_path):
    path = tmp_path / ("ü" * 125 + ".txt")
    write_text(path, "new")
    assert names(tmp_path) == [path.name]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    kill(start(MIDDLE_OF_FILE, path))
    assert path.read_text() == "old"
    assert names(tmp_path) == [".a.txt.partial", "a.txt"]
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_files_of_a_living_process_are_not_removed(tmp_path):
    path = tmp_path / "a.txt"
    process = start(MIDDLE_OF_FILE, path)
    try:
        write_text(path, "new")
        assert names(tmp_path) == [".a.txt.partial", "a.txt"]
    finally:
        kill(process)
    recover(path)
    assert names(tmp_path) == ["a.txt"]


def test_a_killed_process_leaves_the_old_folder(tmp_path):
    fill(tmp_path / "out", "old")
    kill(start(MIDDLE_OF_FOLDER, tmp_path / "out"))
    assert (tmp_path / "out" / "a.txt").read_text() == "old"
    with pytest.raises(ConfigError, match="not empty"):
        fill(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_the_old_folder_comes_back_after_a_kill_between_the_renames(tmp_path):
    fill(tmp_path / "out", "old")
    kill(start(BETWEEN_THE_RENAMES, tmp_path / "out"))
    assert names(tmp_path) == [".out.partial"]
    with pytest.raises(ConfigError, match="not empty"):
        fill(tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_renamed(tmp_path, monkeypatch):
    fill(tmp_path / "out", "old")
    replace = os.replace

    def fail(old, new):
        if old.parent != tmp_path and old.name == "out":
            raise OSError(16, "Device or resource busy")
        replace(old, new)

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(MediaError, match=r"cannot write .*busy"):
        fill(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "a.txt").read_text() == "old"


def test_two_processes_do_not_write_one_folder(tmp_path):
    process = start(MIDDLE_OF_FOLDER, tmp_path / "out")
    try:
        with pytest.raises(ConfigError, match="is being written by another process"):
            fill(tmp_path / "out")
    finally:
        kill(process)
    fill(tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == "new"


def test_files_that_appear_meanwhile_are_not_deleted(tmp_path):
    out = tmp_path / "out"

    def disturbed(name):
        with replacing_folder(out, CONTENTS, overwrite=True) as folder:
            (folder / "a.txt").write_text("new")
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text("theirs")

    with pytest.raises(ConfigError, match="was changed by another program"):
        disturbed("a.txt")
    with pytest.raises(ConfigError, match="was changed by another program"):
        disturbed("a.txt")
    with pytest.raises(ConfigError, match=r"was changed by another program meanwhile \(thesis\.tex\)"):
        disturbed("thesis.tex")
    assert (out / "a.txt").read_text() == "theirs"
    assert names(tmp_path) == ["out"]


def test_replacing_folder_leaves_nothing_when_the_block_raises(tmp_path):
    def half_done():
        with replacing_folder(tmp_path / "out", CONTENTS) as folder:
            (folder / "a.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half_done()
    assert not names(tmp_path)


def test_a_full_disk_is_one_line(tmp_path):
    with (
        pytest.raises(MediaError, match=r"cannot write .*No space left"),
        replacing_folder(tmp_path / "out", CONTENTS),
    ):
        raise OSError(28, "No space left on device")
    assert not names(tmp_path)


def test_an_empty_folder_is_free(tmp_path):
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    assert names(tmp_path / "out") == ["a.txt"]


def test_an_earlier_result_stays_unless_overwritten(tmp_path):
    fill(tmp_path / "out", "old")
    with pytest.raises(ConfigError, match="not empty"):
        fill(tmp_path / "out")
    with pytest.raises(ValueError, match="no"), replacing_folder(tmp_path / "out", CONTENTS, overwrite=True):
        raise ValueError("no")
    assert (tmp_path / "out" / "a.txt").read_text() == "old"
    fill(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "a.txt").read_text() == "new"


@pytest.mark.parametrize("foreign", ["thesis.tex", "parts/mine.txt", "parts/1.txt/1.txt", "b.txt", "parts/x/1.txt"])
def test_foreign_files_are_never_deleted(tmp_path, foreign):
    (tmp_path / foreign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / foreign).write_text("years of work")
    with pytest.raises(ConfigError, match="which is no result of avseg"):
        fill(tmp_path, overwrite=True)
    assert (tmp_path / foreign).read_text() == "years of work"


def test_the_input_is_never_deleted(tmp_path):
    fill(tmp_path / "out", "old")
    (tmp_path / "link").symlink_to(tmp_path / "out" / "a.txt")
    for video in (tmp_path / "out" / "a.txt", tmp_path / "link"):
        with pytest.raises(ConfigError, match=r"holds the input (a\.txt|link)"):
            fill(tmp_path / "out", overwrite=True, keep=[video])
    assert (tmp_path / "out" / "a.txt").read_text() == "old"


BUSY = """
import errno, os
def refuse_to_rename(old, new, replace=os.replace):
    if path in (old, new):
        raise OSError(errno.EBUSY, "Device or resource busy")
    replace(old, new)
files.os.replace, files.os.path.ismount = refuse_to_rename, lambda p: p == path
"""
AT_THE_NTH_MOVE = """
moves, replace = [], files.os.replace
def replace_and_wait(old, new):
    if len(moves) == int(sys.argv[3]):
        wait()
    moves.append(1)
    replace(old, new)
files.os.replace = replace_and_wait
with files.replacing_folder(path, ("a.txt", "b.txt", "c.txt"), overwrite=True) as folder:
    (folder / "b.txt").write_text("new b")
    (folder / "c.txt").write_text("new c")
"""


@pytest.fixture
def mount(tmp_path, monkeypatch):
    """Return an empty folder that cannot be renamed, as a mount point."""
    out, replace = tmp_path / "out", os.replace
    out.mkdir()

    def refuse(old, new):
        if out in (old, new):
            raise OSError(16, "Device or resource busy")
        replace(old, new)

    monkeypatch.setattr("os.path.ismount", lambda path: path == out)
    monkeypatch.setattr(files.os, "replace", refuse)
    return out


def test_a_mount_point_gets_the_content_and_is_overwritten(mount):
    fill(mount, "old")
    assert (names(mount), (mount / "a.txt").read_text()) == (["a.txt"], "old")
    with pytest.raises(ConfigError, match="not empty"):
        fill(mount)
    fill(mount, overwrite=True)
    assert (names(mount), (mount / "a.txt").read_text()) == (["a.txt"], "new")
    assert names(mount.parent) == ["out"]


def test_an_empty_folder_stays_the_same_folder(tmp_path):
    (tmp_path / "out").mkdir(mode=0o700)
    before = (tmp_path / "out").stat()
    fill(tmp_path / "out")
    after = (tmp_path / "out").stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("moves", range(5))
def test_a_mount_point_has_the_old_or_the_new_content_after_a_kill(tmp_path, mount, moves):
    fill(mount, "old")
    code = WRITER + BUSY + AT_THE_NTH_MOVE
    process = subprocess.Popen([sys.executable, "-c", code, "", mount, str(moves)], stdout=subprocess.PIPE, text=True)
    if moves < 4:
        assert process.stdout.readline() == "here\n"
        kill(process)
    else:
        assert process.wait() == 0
        process.stdout.close()
    recover(mount)
    found = {p.name: p.read_text() for p in mount.iterdir()}
    assert found == ({"a.txt": "old"} if moves < 2 else {"b.txt": "new b", "c.txt": "new c"})
    assert names(tmp_path) == ["out"]


def test_two_processes_do_not_write_one_mount_point(mount):
    process = start(BUSY + MIDDLE_OF_FOLDER, mount)
    try:
        with pytest.raises(ConfigError, match=r"out is being written by another process"):
            fill(mount, overwrite=True)
    finally:
        kill(process)
    fill(mount)
    assert names(mount) == ["a.txt"]


@pytest.mark.parametrize("filled", [False, True])
def test_files_that_appear_during_the_exchange_are_not_deleted(tmp_path, monkeypatch, filled):
    out, replace, calls = tmp_path / "out", os.replace, []
    out.mkdir()
    if filled:
        fill(out, "old")

    def disturb(old, new):
        if not calls:
            (out / "thesis.tex").write_text("years of work")
        calls.append(1)
        replace(old, new)

    monkeypatch.setattr(files.os, "replace", disturb)
    if filled:
        with pytest.raises(ConfigError, match="was changed by another program"):
            fill(out, overwrite=True)
    else:
        fill(out)
    assert (out / "thesis.tex").read_text() == "years of work"
    assert (out / "a.txt").read_text() == ("old" if filled else "new")
    assert names(tmp_path) == ["out"]


def test_the_old_folder_is_kept_when_its_name_is_taken(tmp_path, monkeypatch):
    out, replace = tmp_path / "out", os.replace
    fill(out, "old")

    def take(old, new):
        replace(old, new)
        if old == out:
            out.mkdir()
            (out / "thesis.tex").write_text("years of work")

    monkeypatch.setattr(files.os, "replace", take)
    with pytest.raises(MediaError, match="not empty"):
        fill(out, overwrite=True)
    assert (out / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "out.replaced" / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["out", "out.replaced"]


def test_files_in_subfolders_are_only_deleted_if_listed(tmp_path):
    (tmp_path / "out" / "parts").mkdir(parents=True)
    (tmp_path / "out" / "parts" / "1.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds 'parts/1\.txt', which no result\.json lists"):
        fill(tmp_path / "out", overwrite=True, listed=lambda folder: ["parts/2.txt"])
    assert (tmp_path / "out" / "parts" / "1.txt").read_text() == "years of work"
    fill(tmp_path / "out", overwrite=True, listed=lambda folder: ["parts/1.txt"])
    assert names(tmp_path / "out") == ["a.txt"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        fill(tmp_path / "file")
    with pytest.raises(MediaError, match="cannot write"):
        fill(tmp_path / "file" / "out")


def test_check_writable(tmp_path):
    check_writable(tmp_path / "new" / "a.json")
    assert names(tmp_path / "new") == []
    with pytest.raises(ConfigError, match="it is a folder, name a file in it"):
        check_writable(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write .*b\.json: .*, choose another place"):
        check_writable(tmp_path / "file" / "b.json", "choose another place")
