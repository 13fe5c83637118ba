import zipfile

import numpy as np
import pytest

from avseg.app import runs
from avseg.app.runs import Settings, StoppedError, run
from avseg.app.sessions import Sessions
from avseg.errors import CheckpointError, MediaError
from avseg.pipeline.predict import Loaded


@pytest.fixture
def sessions(tmp_path):
    (tmp_path / "root").mkdir()
    return Sessions(tmp_path / "root")


@pytest.fixture(autouse=True)
def _models(monkeypatch, ear):
    def ready(name, device):
        if name == "wrong":
            raise CheckpointError("no model 'wrong'")
        return Loaded(ear, name, device, None)

    monkeypatch.setattr(runs, "ready", ready)


@pytest.fixture
def uploaded(sessions, make_video, make_beep):
    """Ann has uploaded a video with a tone."""
    sessions.receive("ann", make_video("my clip.mkv", sound=make_beep(1.0, 0.0, 1.0)))
    return sessions


def test_run_writes_outputs_and_archive_and_deletes_the_upload(uploaded):
    shares = []
    token, (outcome,) = run(uploaded, "ann", Settings(["runs/ear"], ["json"]), lambda share, step: shares.append(share))
    assert (outcome.model, outcome.page, outcome.error) == ("runs/ear", "1_ear/page.html", None)
    assert "my clip.mkv" in uploaded.find(token, outcome.page).read_text()
    with zipfile.ZipFile(uploaded.find(token, outcome.archive)) as archive:
        assert archive.namelist() == ["1_ear/page.html", "1_ear/result.json"]
    assert outcome.archive == "my clip_1_ear.zip"
    assert list(uploaded._uploads.iterdir()) == []
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert {0.25 < share < 0.5 for share in shares} == {True, False}
    assert 0.95 < shares[-1] <= 1.0


def test_models_run_one_after_the_other_and_one_error_does_not_stop_the_rest(uploaded):
    steps = []
    _, outcomes = run(uploaded, "ann", Settings(["one", "wrong", "two"]), lambda _, step: steps.append(step))
    assert [outcome.page for outcome in outcomes] == ["1_one/page.html", None, "3_two/page.html"]
    assert outcomes[1].error == "no model 'wrong'"
    assert list(dict.fromkeys(steps)) == [
        "one: predicting", "one: writing", "wrong: predicting", "two: predicting", "two: writing",
    ]  # fmt: skip


def test_broken_file_is_one_error_for_all_models(sessions, tmp_path):
    file = tmp_path / "broken.mp4"
    file.write_bytes(np.random.default_rng(0).bytes(2000))
    sessions.receive("ann", file)
    _, (outcome,) = run(sessions, "ann", Settings(["one", "two"]), lambda *_: None)
    assert outcome.page is None
    assert "broken.mp4" in outcome.error
    assert "\n" not in outcome.error
    assert list(sessions._uploads.iterdir()) == []


def test_setting_that_the_model_cannot_follow_is_an_error_of_the_model(uploaded):
    _, outcomes = run(uploaded, "ann", Settings(["one", "two"], fps=0), lambda *_: None)
    assert [outcome.error for outcome in outcomes] == ["fps must be a number above 0, got 0"] * 2


def test_video_without_sound_needs_the_setting(sessions, make_video):
    sessions.receive("ann", make_video("quiet.mkv"))
    _, (outcome,) = run(sessions, "ann", Settings(["one"]), lambda *_: None)
    assert "no sound track" in outcome.error
    sessions.receive("ann", make_video("quiet.mkv"))
    _, (outcome,) = run(sessions, "ann", Settings(["one"], silence=True), lambda *_: None)
    assert outcome.error is None


@pytest.mark.parametrize("end", ["stop", "leave"])
@pytest.mark.parametrize("step", ["predicting", "writing"])
def test_run_ends_when_its_user_stops_or_leaves(uploaded, end, step):
    def interrupt(_, reached):
        if reached.endswith(step):
            getattr(uploaded, end)("ann")

    with pytest.raises(StoppedError):
        run(uploaded, "ann", Settings(["one"]), interrupt)
    assert [*uploaded._uploads.iterdir(), *uploaded._results.iterdir()] == []


def test_run_needs_an_upload(sessions):
    with pytest.raises(MediaError, match="there is no video"):
        run(sessions, "ann", Settings(["one"]), lambda *_: None)
