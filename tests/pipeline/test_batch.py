import dataclasses
import inspect
import os
import threading
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

import avseg.pipeline.batch as batch
from avseg.cli import main
from avseg.errors import ConfigError, MediaError
from avseg.pipeline.batch import predict_many
from avseg.pipeline.predict import predict, predict_command, stream
from avseg.pipeline.result import Result
from avseg.prediction.frame_stream import Options


@pytest.fixture
def clips(make_video, make_beep, tmp_path):
    """Three videos of 1 s, the second without sound."""
    (tmp_path / "in").mkdir()
    sound = make_beep(1, 0.5, 1)
    return [
        make_video(f"in/{name}", sound=s) for name, s in (("a.mp4", sound), ("mute.mp4", None), ("z & <b>.mp4", sound))
    ]


@pytest.fixture
def loaded(monkeypatch, ear):
    """Let every name load the model that depends only on the audio; return the names that were loaded."""
    names = []
    monkeypatch.setattr("avseg.pipeline.predict.load", lambda name, device: names.append(name) or ear)
    return names


def files(folder):
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_command_predicts_the_others_after_a_failure(clips, loaded, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", *map(str, clips), "--workers", "2", "-o", str(out), "--save", "masks", "--fps", "4"]) == 1
    assert loaded == ["small"]
    assert sorted(p.name for p in out.iterdir()) == ["a", "index.html", "z & <b>"]
    assert sorted(p.name for p in (out / "a").iterdir()) == ["masks", "result.json"]
    assert Result.load(out / "a").to_dict() == predict(clips[0], "small", fps=4).to_dict()
    said = capsys.readouterr()
    assert "2 done, 0 skipped, 1 failed" in said.out
    assert f"open {out / 'index.html'}" in said.out
    assert "mute.mp4 has no sound track" in said.err
    assert said.err.splitlines()[-1].startswith("avseg: error: 1 of 3 videos failed")


def test_folder_and_list_are_batches_and_one_file_is_not(clips, loaded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("in/a.mp4\n")
    assert main(["predict", "list.csv", "--save", "json"]) == 0
    assert main(["predict", "in/a.mp4", "--save", "json"]) == 0
    assert (tmp_path / "predictions/a/result.json").is_file()
    assert (tmp_path / "a_avseg/result.json").is_file()


class _Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.found += [unquote(value) for key, value in attrs if key in ("href", "src")]


@pytest.mark.slow
def test_index_links_existing_files_and_escapes_names(clips, loaded, tmp_path):
    out = tmp_path / "out"
    predict_many(clips, out, save=["overlay", "summary"])
    page = (out / "index.html").read_text()
    links = _Links(page)
    assert len(links.found) == 8  # two videos: a file to open, a folder, an image that is a link
    assert all((out / link).exists() for link in links.found)
    assert "<b>" not in page
    assert "no sound track" in page


def test_skip_done_skips_equal_results_only(clips, loaded, tmp_path):
    out = tmp_path / "out"
    settings = {"save": "json", "options": Options(missing_audio="silence"), "skip_done": True}
    assert [o.state for o in predict_many(clips[:2], out, **settings)] == ["done", "done"]
    before = files(out / "a")
    again = predict_many(clips, out, **settings)
    assert [o.state for o in again] == ["skipped", "skipped", "done"]
    assert again[0].intervals == [(0.52, 1.0, "sounding")]
    assert files(out / "a") == before
    faster = {**settings, "options": Options(fps=4, missing_audio="silence")}
    (other,) = predict_many(clips[0], out, **faster)
    assert (other.state, "--overwrite" in other.message) == ("failed", True)
    (other,) = predict_many(clips[0], out, **faster, overwrite=True)
    assert other.state == "done"
    later = (out / "a/result.json").stat().st_mtime + 5
    os.utime(clips[0], (later, later))
    (changed,) = predict_many(clips[0], out, **faster, overwrite=True)
    assert changed.state == "done"


def test_skip_done_compares_the_settings_of_outputs(clips, loaded, tmp_path):
    settings = {"save": "coco", "options": Options(missing_audio="silence"), "skip_done": True, "overwrite": True}
    tolerance = {"coco": {"tolerance": 2.0}}
    states = [predict_many(clips[0], tmp_path, **settings, settings=s)[0].state for s in (None, tolerance, tolerance)]
    assert states == ["done", "done", "skipped"]


def test_interrupted_batch_continues_without_loss_or_repetition(clips, loaded, tmp_path, monkeypatch):
    out, predicted, whole = tmp_path / "out", [], batch.predict_file

    def interrupted(path, *rest):
        predicted.append(path.name)
        if path == clips[2]:
            raise KeyboardInterrupt
        return whole(path, *rest)

    settings = {"save": "json", "options": Options(missing_audio="silence"), "skip_done": True}
    monkeypatch.setattr(batch, "predict_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_many(clips, out, **settings)
    assert sorted(p.name for p in out.iterdir()) == ["a", "index.html", "mute"]
    monkeypatch.setattr(batch, "predict_file", lambda path, *rest: predicted.append(path.name) or whole(path, *rest))
    assert [o.state for o in predict_many(clips, out, **settings)] == ["skipped", "skipped", "done"]
    assert predicted == ["a.mp4", "mute.mp4", "z & <b>.mp4", "z & <b>.mp4"]


def test_interrupt_ends_the_videos_in_work(clips, loaded, tmp_path, monkeypatch):
    started, release, whole = threading.Event(), threading.Event(), batch.predict_file

    def slow(path, loaded, options, reached):
        if path == clips[0]:
            started.wait(5)
            return whole(path, loaded, options, reached)
        started.set()
        release.wait(5)
        return whole(path, loaded, options, reached)  # its first frame finds that the batch is interrupted

    def interrupt(_):
        threading.Timer(0.2, release.set).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "predict_file", slow)
    with pytest.raises(KeyboardInterrupt):
        predict_many([clips[0], clips[2]], tmp_path / "out", save="json", workers=2, finished=interrupt)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "index.html"]


def test_videos_of_one_name_get_folders_that_do_not_depend_on_the_order(make_video, make_beep, loaded, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    same = [make_video(f"{folder}/a.mkv", sound=make_beep(1, 0, 1)) for folder in "xy"]
    settings = {"output": tmp_path / "out", "save": "json", "skip_done": True}
    first = predict_many(same[0], **settings)
    both = predict_many(same, **settings)
    assert [o.state for o in both] == ["skipped", "done"]  # the first is found under its plain name
    assert first[0].folder == both[0].folder == tmp_path / "out/a"
    assert both[1].folder.name.startswith("a-")
    assert [o.folder for o in predict_many(same[::-1], **settings)] == [both[1].folder, both[0].folder]


def test_mistakes_end_the_batch_before_the_work(clips, loaded, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("<h1>mine</h1>")
    for change, error, message in [
        ({"workers": 0}, ConfigError, "workers must be"),
        ({"output": tmp_path / "site"}, ConfigError, r"index\.html that is not of avseg"),
        ({"output": clips[0]}, ConfigError, "is a file"),
        ({"videos": []}, MediaError, "no video"),
    ]:
        with pytest.raises(error, match=message):
            predict_many(**{"videos": clips, "output": tmp_path / "out", **change})
    assert not loaded
    assert not (tmp_path / "out").exists()


def test_an_unexpected_error_is_a_failure_of_one_video(clips, loaded, tmp_path, monkeypatch):
    whole = batch.predict_file
    monkeypatch.setattr(batch, "predict_file", lambda path, *rest: whole(path, *rest) if path != clips[0] else 1 / 0)
    outcomes = predict_many([clips[0], clips[2]], tmp_path / "out", save="json")
    assert [o.message for o in outcomes] == ["ZeroDivisionError: division by zero", ""]


def test_one_video_and_many_take_the_same_settings():
    parameters = [list(inspect.signature(f).parameters) for f in (predict_command, predict_many, predict, stream)]
    one, many, *functions = map(set, parameters)
    assert one - {"video"} <= many
    options = {field.name for field in dataclasses.fields(Options)}
    assert all(options < function for function in functions)


def test_terminal_shows_the_start_before_the_imports(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["predict", f"{tmp_path}/*.mp4"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "avseg: starting"
    assert second.startswith("avseg: error: no video in")
