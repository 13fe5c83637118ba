import json

import pytest

from avseg.errors import ConfigError
from avseg.pipeline.predict import predict
from avseg.pipeline.result import Result
from avseg.pipeline.rows import RowPredictor


@pytest.fixture
def clips(make_video, make_beep):
    """A video with a beep in its second half, and one without sound."""
    return [make_video("a.mp4", sound=make_beep(1, 0.5, 1)), make_video("mute.mp4")]


def test_row_has_the_prediction_and_its_own_columns(clips, ear):
    row = RowPredictor(ear, fps=4, path_column="video")({"video": str(clips[0]), "id": 7})
    expected = predict(clips[0], ear, fps=4)
    assert (row["video"], row["id"], row["error"]) == (str(clips[0]), 7, "")
    assert row["times"] == expected.times.tolist()
    assert row["scores"] == expected.scores.tolist()
    spans = zip(row["interval_start"], row["interval_end"], row["interval_name"], strict=True)
    assert list(spans) == expected.intervals
    assert json.loads(row["result"]) == json.loads(json.dumps(expected.to_dict()))


def test_bad_video_gives_a_row_with_the_reason(clips, ear):
    row = RowPredictor(ear)({"path": clips[1]})
    assert "no sound track" in row["error"]
    assert (row["times"], row["interval_name"], row["result"]) == ([], [], "")


def test_results_are_written_to_a_folder_and_replaced_at_the_next_attempt(clips, ear, tmp_path):
    predictor = RowPredictor(ear, output=tmp_path / "out", save=["json"])
    folder = predictor({"path": clips[0]})["result"]
    assert predictor({"path": clips[0]})["result"] == folder
    assert Result.load(folder).times.tolist() == predict(clips[0], ear).times.tolist()


def test_wrong_settings_are_refused_before_any_row(ear):
    with pytest.raises(ConfigError, match="fps must be"):
        RowPredictor(ear, fps=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_data_maps_it_on_a_local_cluster(clips):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        table = ray.data.from_items([{"path": str(clip)} for clip in clips], override_num_blocks=2)
        rows = table.map(RowPredictor, fn_constructor_kwargs={"model": "small", "fps": 2}, concurrency=1).take_all()
    finally:
        ray.shutdown()
    rows = {row["path"]: row for row in rows}
    alone = predict(clips[0], "small", fps=2)
    assert list(rows[str(clips[0])]["times"]) == alone.times.tolist()
    assert json.loads(rows[str(clips[0])]["result"])["weights_sha256"] == alone.weights_sha256
    assert "no sound track" in rows[str(clips[1])]["error"]
