import time

import pytest

from avseg.app import sessions as module
from avseg.app.sessions import Sessions
from avseg.errors import MediaError


@pytest.fixture
def sessions(tmp_path):
    (tmp_path / "root").mkdir()
    return Sessions(tmp_path / "root")


@pytest.fixture
def upload(tmp_path):
    def make(name="clip.mp4", content=b"video"):
        file = tmp_path / "shared" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        return file

    return make


def files(sessions):
    return sorted(file.name for folder in (sessions._uploads, sessions._results) for file in folder.rglob("*.*"))


def test_upload_is_moved_and_taken_once(sessions, upload):
    file = upload()
    sessions.receive("ann", file)
    assert not file.exists()
    taken = sessions.take("ann")
    assert (taken.name, taken.read_bytes()) == ("clip.mp4", b"video")
    with pytest.raises(MediaError, match="there is no video: upload one first"):
        sessions.take("ann")


def test_users_have_their_own_upload_of_the_same_file(sessions, upload):
    sessions.receive("ann", upload(content=b"one"))
    sessions.receive("bob", upload(content=b"two"))
    sessions.drop("ann")
    assert sessions.take("bob").read_bytes() == b"two"


def test_new_upload_replaces_the_old_one(sessions, upload):
    sessions.receive("ann", upload("old.mp4"))
    sessions.receive("ann", upload("new.mp4"))
    assert files(sessions) == ["new.mp4"]


def test_upload_that_another_user_has_moved_is_an_error(sessions, upload):
    file = upload()
    file.unlink()
    with pytest.raises(MediaError, match=r"the upload of clip\.mp4 was interrupted: upload it again"):
        sessions.receive("ann", file)
    with pytest.raises(MediaError, match="there is no video"):
        sessions.take("ann")


def test_result_is_found_by_its_random_name_until_the_next_run(sessions):
    token = sessions.begin("ann")
    assert len(token) >= 20
    (sessions.folder(token) / "page.html").write_text("page")
    assert sessions.find(token, "page.html").read_text() == "page"
    assert sessions.find(token, "other.html") is None
    assert sessions.find("guess", "page.html") is None
    other = sessions.begin("bob")
    assert sessions.active(token)
    sessions.begin("ann")
    assert sessions.find(token, "page.html") is None
    assert sessions.active(other)
    assert files(sessions) == []


@pytest.mark.parametrize("path", ["../secret.txt", "../../secret.txt", "/etc/passwd", "link.txt", ".", ""])
def test_files_outside_the_result_are_not_found(sessions, tmp_path, path):
    token = sessions.begin("ann")
    for folder in (sessions._results, sessions._results.parent):
        (folder / "secret.txt").write_text("secret")
    (sessions.folder(token) / "link.txt").symlink_to(sessions._results / "secret.txt")
    assert sessions.find(token, path) is None


def test_leaving_deletes_upload_and_result(sessions, upload):
    token = sessions.begin("ann")
    (sessions.folder(token) / "page.html").touch()
    sessions.receive("ann", upload())
    sessions.leave("ann")
    assert files(sessions) == []
    assert not sessions.active(token)
    sessions.leave("ann")  # nothing to delete


def test_result_expires(sessions, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_KEPT", 0.01)
    token = sessions.begin("ann")
    (sessions.folder(token) / "page.html").touch()
    sessions.expire(token)
    deadline = time.monotonic() + 30
    while sessions.folder(token).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sessions.find(token, "page.html") is None
    assert files(sessions) == []
