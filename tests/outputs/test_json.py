import json

import pytest

from avseg.errors import MediaError
from avseg.outputs.json import UNITS, load, schema, to_dict
from avseg.pipeline.result import Result
from avseg.prediction.regions import Frame


@pytest.fixture
def result(tmp_path):
    return Result(tmp_path / "a.mp4", (8, 8), ("background", "dog"), [Frame(0.0, ())], 0.5, "tiny", {}, (), "0" * 64)


def errors(data):
    jsonschema = pytest.importorskip("jsonschema")
    return [error.json_path for error in jsonschema.Draft202012Validator(schema()).iter_errors(data)]


def test_schema_is_valid_and_describes_every_field(result):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema())
    assert set(to_dict(result)) | {"files", "output_settings"} == set(schema()["properties"])


def test_schema_accepts_a_result_and_one_of_the_first_version(result):
    data = json.loads(json.dumps(to_dict(result)))
    assert errors(data) == []
    for added in ("weights_sha256", "avseg_version", "units"):
        del data[added]
    assert errors(data) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"format": 2}, "$.format"),
        ({"size": [8]}, "$.size"),
        ({"weights_sha256": "abc"}, "$.weights_sha256"),
        ({"frames": [{"time": 0, "score": 2, "regions": []}]}, "$.frames[0].score"),
        ({"intervals": [{"start": 0, "end": 1}]}, "$.intervals[0]"),
    ],
)
def test_schema_refuses_wrong_fields(result, change, path):
    assert errors({**json.loads(json.dumps(to_dict(result))), **change}) == [path]


def test_objects_follow_the_schema_and_survive_saving(make_named, tmp_path):
    data = json.loads(json.dumps(to_dict(make_named())))
    assert errors(data) == []
    assert data["intervals"][0]["object"] == {"name": "wolf", "score": 0.6}
    (tmp_path / "result.json").write_text(json.dumps(data))
    assert load(tmp_path, Result).frames[1].objects[1] == ("dog", 0.4)
    data["frames"][1]["objects"][0]["score"] = "high"
    (tmp_path / "result.json").write_text(json.dumps(data))
    with pytest.raises(MediaError, match=r"is not a result of avseg .*an object has name 'wolf' and score 'high'"):
        load(tmp_path, Result)


def test_a_result_of_the_first_version_loads(result, tmp_path):
    data = to_dict(result)
    for added in ("weights_sha256", "avseg_version", "units"):
        del data[added]
    (tmp_path / "result.json").write_text(json.dumps(data))
    loaded = load(tmp_path, Result)
    assert (loaded.weights_sha256, loaded.version) == (None, None)
    assert set(UNITS) >= {"time", "size", "score", "counts"}


def test_weights_and_version_survive_saving(result, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(to_dict(result)))
    loaded = load(tmp_path, Result)
    assert (loaded.weights_sha256, loaded.version) == ("0" * 64, result.version)
