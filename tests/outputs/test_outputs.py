import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from avseg.errors import ConfigError, MediaError
from avseg.media import rle
from avseg.media.sound import Sound, sound_blocks
from avseg.media.video import pictures, probe
from avseg.outputs import DEFAULT, OUTPUTS, choose_outputs, output_class
from avseg.pipeline.result import Result
from avseg.prediction.regions import Frame, Region
from avseg.prediction.uncertainty import pack

SIZE = (101, 151)
CONTENTS = ["masks", "overlay.mp4", "result.json", "summary.png"]
WITH_UNCERTAINTY = [*CONTENTS, "uncertainty"]


def region(label, part):
    mask = np.zeros(SIZE, bool)
    mask[part] = True
    return Region(label, 0.9, rle.encode(mask))


@pytest.fixture
def make_result(make_video, make_beep):
    def make(names=("background", "sounding"), name="clip.mkv"):
        times = [0.5, 0.55, 0.6, 0.9, 1.3]
        path = make_video(name, times=times, size=SIZE, sound=make_beep(1.5, 0.4, 0.8), codec="ffv1", pix_fmt="yuv444p")
        everything = [region(k, np.s_[20:60, 30 * k : 30 * k + 20]) for k in range(1, len(names))]
        frames = [Frame(time, tuple(everything[: index + 1])) for index, time in enumerate(times)]
        frames[0] = Frame(0.5, ())
        return Result(path, SIZE, names, frames, 1.4, "tiny", {"damaged": "error"})

    return make


def test_overlay_has_every_picture_at_its_time_and_the_sound(make_result, tmp_path):
    result = make_result()
    result.save(tmp_path / "out")
    overlay = tmp_path / "out" / "overlay.mp4"
    shown = list(pictures(overlay))
    assert [picture.time for picture in shown] == pytest.approx(result.times, abs=1e-4)
    info = probe(overlay)
    assert info.size == (108, 152)  # a bar of 6 pixels below, even
    assert info.sample_rate == 16_000
    heard = Sound(sound_blocks(overlay)).waveform_at(0.6).abs() > 0.2
    assert heard[4680:10_920].float().mean() > 0.7  # the beep from 0.4 s to 0.8 s
    assert not heard[:4300].any()
    inside, outside = shown[1].rgb()[25:55, 35:45].astype(int), shown[1].rgb()[65:85, 35:45].astype(int)
    assert (inside[..., 0] - inside[..., 1]).mean() > 50  # tinted
    assert np.abs(outside[..., 0] - outside[..., 1]).mean() < 6  # as it was: grey


def test_masks_are_exact(make_result, tmp_path):
    result = make_result()
    result.save(tmp_path / "out")
    files = sorted((tmp_path / "out" / "masks").iterdir())
    assert [file.name for file in files] == [f"{k:06d}.png" for k in range(5)]
    for file, mask in zip(files, result.masks, strict=True):
        with Image.open(file) as image:
            assert image.mode == "1"
            np.testing.assert_array_equal(np.asarray(image), mask)
            assert set(np.unique(np.asarray(image.convert("L")))) <= {0, 255}


def test_masks_of_several_classes_have_a_palette(make_result, tmp_path):
    result = make_result(("background", "dog", "siren"))
    result.save(tmp_path / "out")
    with Image.open(tmp_path / "out" / "masks" / "000004.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), result.labels[4])
        assert len({image.convert("RGB").getpixel(at) for at in ((0, 0), (35, 30), (65, 30))}) == 3


def test_json_has_the_whole_result(make_result, tmp_path):
    result = make_result()
    result.save(tmp_path / "out")
    data = json.loads((tmp_path / "out" / "result.json").read_text())
    masks = [f"masks/{k:06d}.png" for k in range(5)]
    assert data.pop("files") == {
        "overlay": ["overlay.mp4"],
        "masks": masks,
        "summary": ["summary.png"],
        "json": ["result.json"],
    }
    assert data.pop("output_settings") == {"overlay": {"timeline": "below"}}
    assert data == json.loads(json.dumps(result.to_dict()))
    assert data["intervals"] == [{"start": 0.55, "end": 1.4, "name": "sounding"}]
    assert len(data["frames"]) == 5


def test_folder_holds_the_default_outputs(make_result, tmp_path):
    folder = make_result().save(tmp_path / "out", progress=True)
    assert sorted(p.name for p in folder.iterdir()) == CONTENTS
    with Image.open(folder / "summary.png") as summary:
        assert summary.width > 1000
    with pytest.raises(ConfigError, match="not empty"):
        make_result().save(folder)
    make_result().save(folder, overwrite=True)


@pytest.fixture
def doubted(make_result):
    """Certain on the left, uncertain on the right; nothing sounds in the first picture."""
    rising = np.repeat(np.float32([[0, 0, 0.4, 1, 1]]), 3, 0)
    result = make_result()
    return dataclasses.replace(result, frames=[Frame(f.time, f.regions, pack(rising)) for f in result.frames])


def test_uncertainty_is_a_grey_picture_of_the_full_size(doubted, tmp_path):
    folder = doubted.save(tmp_path / "out")
    assert sorted(p.name for p in folder.iterdir()) == WITH_UNCERTAINTY
    files = sorted((folder / "uncertainty").iterdir())
    assert [file.name for file in files] == [f"{k:06d}.png" for k in range(5)]
    for file, values in zip(files, doubted.uncertainty, strict=True):
        with Image.open(file) as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), np.round(255 * values))
    grey = np.asarray(Image.open(files[0]))
    assert grey.shape == SIZE
    assert (grey[:, :40] == 0).all()
    assert (grey[:, 75] == 102).all()
    assert (grey[:, -40:] == 255).all()


@pytest.mark.slow
def test_overlay_is_striped_where_uncertainty_is_high(doubted, tmp_path):
    veiled, plain = doubted.save(tmp_path / "out"), without(doubted).save(tmp_path / "plain")
    shown, before = (next(pictures(folder / "overlay.mp4")).rgb().astype(int) for folder in (veiled, plain))
    assert np.abs(shown[10:60, :40] - before[10:60, :40]).max() < 12  # sure: as it was
    stripes = shown[10:60, 120:150].mean(-1)
    assert np.ptp(before[10:60, 120:150].mean(-1)) < 12
    assert np.percentile(stripes, 90) - np.percentile(stripes, 10) > 80
    with Image.open(veiled / "summary.png") as with_rows, Image.open(plain / "summary.png") as without_rows:
        assert with_rows.height > without_rows.height + 150


@pytest.mark.slow
def test_results_with_and_without_uncertainty_overwrite_each_other(doubted, tmp_path):
    folder = doubted.save(tmp_path / "out")
    without(doubted).save(folder, overwrite=True)
    assert sorted(p.name for p in folder.iterdir()) == CONTENTS
    doubted.save(folder, overwrite=True)
    doubted.save(folder, overwrite=True)
    assert sorted(p.name for p in folder.iterdir()) == WITH_UNCERTAINTY


def without(result):
    return dataclasses.replace(result, frames=[f._replace(uncertainty=None) for f in result.frames])


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["masks"], ["masks"]),
        ("json, masks", ["masks", "result.json"]),
        (("overlay", "overlay"), ["overlay.mp4"]),
        (["summary"], ["summary.png"]),
    ],
)
def test_save_writes_the_chosen_outputs_alone(make_result, tmp_path, chosen, expected):
    folder = make_result().save(tmp_path / "out", chosen)
    assert sorted(p.name for p in folder.iterdir()) == expected


def test_masks_and_json_do_not_read_the_video(make_result, tmp_path):
    result = make_result()
    result.source.unlink()
    folder = result.save(tmp_path / "out", ["masks", "json"])
    assert len(list((folder / "masks").iterdir())) == 5
    with pytest.raises(MediaError, match="no such file"):
        result.save(tmp_path / "other", ["overlay"])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["mask"], r"unknown output 'mask'\. Did you mean 'masks'\?"),
        ("", "unknown output ''"),
        ([], "no output is chosen: give some of alpha, coco"),
        (["uncertainty"], "there is no uncertainty to save: add show uncertainty"),
    ],
)
def test_wrong_outputs_are_refused(make_result, tmp_path, chosen, message):
    with pytest.raises(ConfigError, match=message):
        make_result().save(tmp_path / "out", chosen)
    assert not (tmp_path / "out").exists()


def test_uncertainty_alone(doubted, tmp_path):
    assert [p.name for p in doubted.save(tmp_path / "out", ["uncertainty"]).iterdir()] == ["uncertainty"]


def test_a_smaller_choice_replaces_an_earlier_result(make_result, tmp_path):
    folder = make_result().save(tmp_path / "out")
    make_result(name="again.mkv").save(folder, ["json"], overwrite=True)
    assert [p.name for p in folder.iterdir()] == ["result.json"]


def test_files_in_masks_that_are_not_ours_are_not_deleted(make_result, tmp_path):
    folder = make_result().save(tmp_path / "out")
    (folder / "masks" / "labels.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds 'masks/labels\.txt', which is no result of avseg"):
        make_result(name="again.mkv").save(folder, overwrite=True)
    assert (folder / "masks" / "labels.txt").read_text() == "mine"


def test_overlay_without_the_time_bar_has_the_size_of_the_video(make_result, tmp_path):
    result = make_result()
    result.save(tmp_path / "out", {"overlay": {"timeline": "off"}})
    assert probe(tmp_path / "out" / "overlay.mp4").size == (102, 152)


def test_settings_of_outputs(make_result, tmp_path):
    with pytest.raises(ConfigError, match="the output 'masks' has no settings, got size"):
        make_result().save(tmp_path / "out", {"masks": {"size": 3}})
    with pytest.raises(ConfigError, match=r"redact has settings, but is not written: add it .*--save redact"):
        choose_outputs("json", settings={"redact": {"mode": "blur"}})
    chosen = choose_outputs("json, redact", settings={"redact": {"mode": "black"}})
    assert (list(chosen), chosen["json"], chosen["redact"].mode) == (["json", "redact"], None, "black")


def test_settings_are_recorded(make_clip, tmp_path):
    folder = make_clip().save(tmp_path / "out", {"json": {}, "coco": {"tolerance": 2.0}})
    data = json.loads((folder / "result.json").read_text())
    assert data["output_settings"] == {"coco": {"format": "png", "tolerance": 2.0}}


def test_every_output_has_a_file_and_a_class_of_its_own():
    assert set(DEFAULT) < set(OUTPUTS.own())
    assert len({output_class(name) for name in OUTPUTS.own()}) == len(OUTPUTS.own()) >= 16


def test_an_earlier_result_with_every_output_is_overwritten(make_clip, tmp_path):
    """Every file that an output writes matches its patterns."""
    names = [name for name in OUTPUTS.own() if name != "uncertainty"]
    folder = make_clip().save(tmp_path / "out", names)
    make_clip().save(folder, ["json"], overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["result.json"]


def test_a_failing_output_leaves_nothing(make_clip, tmp_path, monkeypatch):
    monkeypatch.setattr("avseg.outputs.redact._obscured", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_clip().save(tmp_path / "out", ["alpha", "coco", "redact"])
    assert not (tmp_path / "out").exists()
