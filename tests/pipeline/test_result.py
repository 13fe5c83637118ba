import dataclasses
import json
import os
import pickle
from base64 import b64decode
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avseg.errors import ConfigError, MediaError
from avseg.media import rle
from avseg.outputs.json import UNITS
from avseg.pipeline.result import Interval, Result
from avseg.prediction.regions import Frame, Region
from avseg.prediction.uncertainty import pack

SIZE = (40, 50)
DOG, SIREN = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
DOG[5:15, 10:30] = True  # 200 pixels
SIREN[30:, :10] = True  # 100 pixels
DOT = np.zeros(SIZE, bool)
DOT[0, 0] = True  # a two-thousandth of the picture


def frame(time, **regions):
    names = {"dog": (1, DOG), "siren": (2, SIREN), "dot": (2, DOT)}
    found = [Region(names[k][0], score, rle.encode(names[k][1])) for k, score in regions.items()]
    return Frame(time, tuple(found))


@pytest.fixture
def result(make_video):
    frames = [
        frame(0.0),
        frame(0.2, dog=0.9),
        frame(0.4, dog=0.8, siren=0.6),
        frame(0.5, siren=0.7),
        frame(0.9, dot=0.99),
        frame(1.0, dog=0.75),
    ]
    path = make_video("a.mp4", times=[f.time for f in frames], size=SIZE)
    return Result(path, SIZE, ("background", "dog", "siren"), frames, 1.1, "tiny", {"fps": 1.0}, ("a note",))


def test_masks_are_computed_on_access(result):
    assert result.masks.shape == (6, *SIZE)
    assert (len(result.masks), result.masks.ndim, result.masks.dtype) == (6, 3, bool)
    np.testing.assert_array_equal(result.masks[2], DOG | SIREN)
    np.testing.assert_array_equal(result.masks[-1], DOG)
    np.testing.assert_array_equal(result.masks[np.int64(1)], DOG)
    np.testing.assert_array_equal(result.masks[1:4], np.stack([DOG, DOG | SIREN, SIREN]))
    np.testing.assert_array_equal(np.asarray(result.masks)[::2], result.masks[::2])
    assert result.masks[6:].shape == (0, *SIZE)
    assert np.asarray(result.masks, dtype=np.uint8).max() == 1
    assert sum(mask.sum() for mask in result.masks) == np.asarray(result.masks).sum()
    with pytest.raises(IndexError):
        result.masks[6]
    with pytest.raises(ValueError, match="copy"):
        np.asarray(result.masks, copy=False)


def test_labels_are_class_numbers(result):
    np.testing.assert_array_equal(result.labels[2], DOG + 2 * SIREN)
    assert result.labels.dtype == np.uint8


def test_times_and_scores(result):
    np.testing.assert_allclose(result.times, [0.0, 0.2, 0.4, 0.5, 0.9, 1.0])
    both = (0.8 * 200 + 0.6 * 100) / 300
    np.testing.assert_allclose(result.scores, [0.0, 0.9, both, 0.7, 0.99, 0.75])


def test_intervals_last_from_the_first_picture_to_the_end_of_the_last(result):
    assert result.intervals == [
        Interval(0.2, 0.5, "dog"),
        Interval(0.4, 0.9, "siren"),  # the dot at 0.9 s is too small to count
        Interval(1.0, 1.1, "dog"),
    ]


def test_coco_decodes_to_the_masks(result):
    coco = json.loads(json.dumps(result.to_coco()))
    assert coco["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "siren"}]
    assert [image["time"] for image in coco["images"]] == result.times.tolist()
    assert {(image["height"], image["width"]) for image in coco["images"]} == {SIZE}
    assert [a["id"] for a in coco["annotations"]] == [1, 2, 3, 4, 5, 6]
    painted = np.zeros(result.labels.shape, int)
    for a in coco["annotations"]:
        height, width = a["segmentation"]["size"]
        mask = rle.decode(rle.RLE((height, width), a["segmentation"]["counts"].encode()))
        painted[a["image_id"]][mask] = a["category_id"]
        columns = np.flatnonzero(mask.any(0))
        assert a["area"] == mask.sum()
        assert a["bbox"][0] == columns.min()
        assert a["bbox"][2] == np.ptp(columns) + 1
        assert a["iscrowd"] == 0
    np.testing.assert_array_equal(painted, result.labels[:])
    assert coco["annotations"][0]["bbox"] == [10, 5, 20, 10]
    assert coco["annotations"][0]["score"] == 0.9


def test_saved_result_loads_equal(result, tmp_path):
    again = Result.load(result.save(tmp_path / "out"))
    assert again.to_dict() == result.to_dict()
    assert again.frames == tuple(result.frames)
    assert again.intervals == result.intervals
    np.testing.assert_array_equal(again.labels[:], result.labels[:])
    assert again.plot().size == result.plot().size


def test_a_folder_without_a_result_is_refused(tmp_path):
    with pytest.raises(MediaError, match=r"result\.json does not exist"):
        Result.load(tmp_path)


def test_a_video_that_is_gone_is_refused(result, tmp_path):
    result.source.unlink()
    with pytest.raises(MediaError, match="no such file"):
        result.save(tmp_path / "out")
    with pytest.raises(MediaError, match="no such file"):
        result.plot()
    assert not (tmp_path / "out").exists()


def test_repr_is_short(result):
    assert len(repr(result)) < 500
    assert repr(result.masks) == "Masks(shape=(6, 40, 50), dtype=bool)"


RISING = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)


@pytest.fixture
def doubted(result):
    """The same with uncertainty: 0, 0.2, ... 1 everywhere, and rising by row in the third frame."""
    maps = [pack(RISING if i == 2 else np.full((6, 8), 0.2 * i, np.float32)) for i in range(6)]
    frames = [
        Frame(f.time, tuple(r._replace(uncertainty=0.25) for r in f.regions), kept)
        for f, kept in zip(result.frames, maps, strict=True)
    ]
    return dataclasses.replace(result, frames=frames)


def test_uncertainty_is_computed_on_access(doubted):
    assert doubted.has_uncertainty
    assert (doubted.uncertainty.shape, doubted.uncertainty.dtype) == ((6, *SIZE), np.float32)
    whole = np.asarray(doubted.uncertainty)
    for i in (0, 1, 3, 4, 5):
        np.testing.assert_allclose(whole[i], 0.2 * i, atol=1e-6)
    assert whole[2, 0, 0] == 0
    assert whole[2, -1, -1] == 1
    assert (np.diff(whole[2], axis=0) >= 0).all()
    np.testing.assert_allclose(doubted.mean_uncertainty, [0, 0.2, 0.5, 0.6, 0.8, 1], atol=5e-4)
    np.testing.assert_array_equal(doubted.masks[:], np.asarray(doubted.labels) > 0)


def test_uncertainty_without_request_is_refused(result):
    assert not result.has_uncertainty
    for name in ("uncertainty", "mean_uncertainty"):
        with pytest.raises(ConfigError, match=r"of tiny has no uncertainty: predict again with show uncertainty"):
            getattr(result, name)


@pytest.mark.slow
def test_uncertainty_that_was_saved_loads_equal(doubted, tmp_path):
    again = Result.load(doubted.save(tmp_path / "out"))
    assert again.frames == tuple(doubted.frames)
    assert again.to_dict() == doubted.to_dict()
    np.testing.assert_array_equal(again.uncertainty[:], doubted.uncertainty[:])
    np.testing.assert_array_equal(again.mean_uncertainty, doubted.mean_uncertainty)
    assert again.plot().size == doubted.plot().size


def test_uncertainty_in_json_can_be_read_without_avseg(doubted):
    frame = json.loads(json.dumps(doubted.to_dict()))["frames"][2]
    assert frame["uncertainty"]["mean"] == pytest.approx(0.5, abs=5e-4)
    assert frame["uncertainty"]["size"] == [6, 8]
    with Image.open(BytesIO(b64decode(frame["uncertainty"]["png"]))) as image:
        np.testing.assert_array_equal(np.asarray(image), np.round(255 * RISING))
    assert [region["uncertainty"] for region in frame["regions"]] == [0.25, 0.25]


def test_coco_has_the_uncertainty_of_each_region(doubted, result):
    assert [a["uncertainty"] for a in doubted.to_coco()["annotations"]] == [0.25] * 6
    assert not any("uncertainty" in a for a in result.to_coco()["annotations"])


def test_json_without_uncertainty(result):
    """Pin format 1, character by character."""
    data = {**result.to_dict(), "source": "a.mp4"}
    dog, siren = (rle.encode(mask).counts.decode() for mask in (DOG, SIREN))
    units = {name: unit for name, unit in UNITS.items() if name != "uncertainty"}
    assert json.dumps({**data, "frames": data["frames"][1:3]}) == (
        '{"format": 1, "source": "a.mp4", "size": [40, 50], "class_names": ["background", "dog", "siren"], "end": 1.1, '
        '"model": "tiny", "options": {"fps": 1.0}, "notes": ["a note"], "weights_sha256": null, '
        f'"avseg_version": "{version("avseg")}", "units": {json.dumps(units)}, "intervals": '
        '[{"start": 0.2, "end": 0.5, "name": "dog"}, {"start": 0.4, "end": 0.9, "name": "siren"}, '
        '{"start": 1.0, "end": 1.1, "name": "dog"}], "frames": '
        '[{"time": 0.2, "score": 0.9, "regions": '
        f'[{{"label": 1, "score": 0.9, "size": [40, 50], "counts": "{dog}"}}]}}, '
        '{"time": 0.4, "score": 0.7333, "regions": '
        f'[{{"label": 1, "score": 0.8, "size": [40, 50], "counts": "{dog}"}}, '
        f'{{"label": 2, "score": 0.6, "size": [40, 50], "counts": "{siren}"}}]}}]}}'
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2),
        ("size", [0, 5]),
        ("size", [10**6, 10**6]),
        ("size", 40),
        ("class_names", ["background"]),
        ("class_names", "dog"),
        ("end", None),
        ("source", 3),
        ("options", []),
        ("notes", "a"),
        ("frames", {}),
        ("frames", [1]),
        ("frames", [{"time": "0", "regions": []}]),
        ("frames", [{"time": 0.0, "regions": [{"label": 300, "score": 0.5, "counts": "0"}]}]),
        ("frames", [{"time": 0.0, "regions": [{"label": 1, "score": 0.5, "counts": "zz"}]}]),
        ("frames", [{"time": 0.0, "regions": [{"label": 1, "score": None, "counts": "0"}]}]),
    ],
)
def test_malformed_result_is_one_line(result, tmp_path, field, value):
    folder = result.save(tmp_path / "out", "json")
    data = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**data, field: value}))
    with pytest.raises(MediaError) as caught:
        Result.load(folder)
    assert "\n" not in str(caught.value)


def test_masks_are_picklable(result):
    again = pickle.loads(pickle.dumps(result.masks))
    np.testing.assert_array_equal(again[:], result.masks[:])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(result.labels))[0], result.labels[0])


@pytest.mark.parametrize("change", [{"size": (20, 30)}, {"times": [0.0, 0.1]}])
def test_another_video_in_the_place_of_the_first_is_refused(result, make_video, make_beep, tmp_path, change):
    times = {
        "times": result.times.tolist(),
        "size": SIZE,
        "sound": make_beep(1, 0, 1),
        "codec": "ffv1",
        "pix_fmt": "bgr0",
    }
    make_video("other.mkv", **{**times, **change}).rename(result.source)
    with pytest.raises(MediaError, match="is not the video of this result"):
        result.save(tmp_path / "out", "overlay")
    assert not (tmp_path / "out").exists()


def test_source_that_is_not_utf_8_is_loaded_again(result, tmp_path):
    named = dataclasses.replace(result, source=Path(os.fsdecode(b"na\xffme.mkv")))
    assert Result.load(named.save(tmp_path / "out", "json")).source == named.source
