import pytest

from avseg.errors import MediaError
from avseg.pipeline.video_list import find_videos, names_many


@pytest.fixture
def clips(tmp_path):
    for name in ("b.mp4", "a.MKV", "notes.txt", ".hidden.mp4", "deep/c.webm", "deep/old/result.json", "deep/old/d.mp4"):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "clips"


def test_folder_gives_its_videos_but_no_results(clips):
    assert find_videos([clips]) == [clips / "a.MKV", clips / "b.mp4", clips / "deep/c.webm"]


def test_pattern_gives_files_of_any_suffix(clips):
    assert find_videos([f"{clips}/*.txt", f"{clips}/*.mp4"]) == [clips / "notes.txt", clips / "b.mp4"]
    assert find_videos([f"{clips}/**/*.webm"]) == [clips / "deep/c.webm"]


@pytest.mark.parametrize(
    "text", ["name,video\nx,b.mp4\ny,deep/c.webm\n", "b.mp4\ndeep/c.webm\n", "\ufeffPath\nb.mp4\n\n deep/c.webm \n"]
)
def test_list_is_relative_to_itself(clips, text):
    path = clips / "list.csv"
    path.write_text(text, encoding="utf-8")
    assert find_videos([str(path)]) == [clips / "b.mp4", clips / "deep/c.webm"]


def test_each_video_is_given_once_and_missing_files_are_kept(clips, tmp_path):
    given = [clips / "b.mp4", clips / "deep" / ".." / "b.mp4", tmp_path / "none.mp4", clips]
    assert find_videos(given)[:2] == [clips / "b.mp4", tmp_path / "none.mp4"]
    assert len(find_videos(given)) == 4


def test_words_without_a_video_are_refused(clips, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("video\n")
    for word in (tmp_path / "empty", f"{tmp_path}/*.avi", tmp_path / "list.csv"):
        with pytest.raises(MediaError, match="no video in"):
            find_videos([word])
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MediaError, match="cannot read the list"):
        find_videos([tmp_path / "list.csv"])


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    (tmp_path / "take[1].mp4").touch()
    assert find_videos([tmp_path / "take[1].mp4"]) == [tmp_path / "take[1].mp4"]
    assert not names_many(tmp_path / "take[1].mp4")
    assert names_many(tmp_path / "take[12].mp4")
    assert names_many(tmp_path)
    assert not names_many(tmp_path / "none.mp4")
