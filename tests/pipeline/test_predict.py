import itertools
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import avseg
from avseg.cli import main
from avseg.errors import AvsegError, CheckpointError, ConfigError, MediaError
from avseg.media.rle import decode
from avseg.media.video import pictures
from avseg.pipeline.predict import class_names, predict, predict_command, stream
from avseg.pipeline.result import Result
from avseg.prediction.frame_stream import Options
from avseg.prediction.objects import best

CONTENTS = ["masks", "overlay.mp4", "result.json", "summary.png"]


@pytest.fixture
def beeping(make_video, make_beep):
    """2 s at 25 fps, 96 × 128; a beep in its second half."""
    return make_video("beeping.mp4", times=[k / 25 for k in range(50)], size=(96, 128), sound=make_beep(2, 1, 2))


@pytest.fixture
def loaded(monkeypatch, ear):
    """Lets the command find the listening model under every name."""
    monkeypatch.setattr("avseg.pipeline.predict.load", lambda name, device: ear)
    return ear


def test_predict_gives_a_result(beeping, ear):
    result = predict(beeping, ear, fps=4)
    assert result.masks.shape == (50, 96, 128)
    assert [bool(mask.any()) for mask in result.masks] == [time > 1.0 for time in result.times]
    assert result.intervals == [(pytest.approx(1.04), pytest.approx(2.0), "sounding")]
    assert result.class_names == ("background", "sounding")
    assert (result.source, result.size, result.end) == (beeping, (96, 128), pytest.approx(2.0))
    assert result.options == {
        "fps": 4,
        "missing_audio": "error",
        "damaged": "error",
        "device": "cpu",
        "silence_gate": -60.0,
        "timing": "refined",
        "threshold": 0.5,
        "upsampling": "guided",
    }
    assert result.notes == ()


def test_stream_gives_the_same_frames(beeping, ear):
    assert list(stream(beeping, ear, fps=4)) == list(predict(beeping, ear, fps=4).frames)


def test_stream_refuses_at_once_and_warns(make_video, ear):
    with pytest.raises(MediaError, match="no sound track"):
        stream(make_video("mute.mp4"), ear)
    with pytest.warns(UserWarning, match="the model input is silence"):
        list(stream(make_video("mute.mp4"), ear, missing_audio="silence"))


def test_a_model_in_training_is_put_into_evaluation(beeping, ear):
    ear.train()
    predict(beeping, ear)
    assert not ear.training


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 1.0), (torch.float16, 0.1)])
def test_a_model_with_16_bit_weights_predicts_rounded_logits(make_video, make_beep, dtype, share):
    video = make_video("short.mp4", times=[k / 10 for k in range(10)], size=(64, 64), sound=make_beep(1, 0, 1))
    model = avseg.load("small")
    clip = avseg.clip_from_video(video, size=64)
    with torch.no_grad():
        expected = model(clip).logits
        found = model.to(dtype)(clip.to(dtype=dtype)).logits.float()
    assert (found - expected).abs().mean() < share * expected.abs().mean()
    assert len(predict(video, model).masks) == 10


def test_gated_and_precision_are_recorded_and_leave_the_model_unchanged(beeping, ear):
    model = avseg.build("pcmanet", visual="pvt_v2_b0", audio="compact", channels=32).eval()
    result = predict(beeping, model, precision="bf16", gated=True)
    assert (result.options["precision"], result.options["gated"]) == ("bf16", True)
    assert model.optimized == ()
    assert next(model.parameters()).dtype == torch.float32
    with pytest.raises(ConfigError, match=r"unknown precision 'bf15'\. Did you mean 'bf16'"):
        predict(beeping, model, precision="bf15")
    with pytest.raises(ConfigError, match="has no confidence masks to gate its decoder"):
        predict(beeping, ear, gated=True)


def test_class_names_come_from_the_card(ear):
    ear.card = {"class_names": ["background", "guitar"]}
    assert class_names(ear) == ("background", "guitar")
    ear.card = {"class_names": None}
    ear.classes = 3
    assert class_names(ear) == ("background", "class 1", "class 2")


def test_unknown_devices_and_models_are_refused(beeping, ear):
    with pytest.raises(ConfigError, match="device 'gpu' cannot be used"):
        predict(beeping, ear, device="gpu")
    with pytest.raises(CheckpointError, match="no model 'tinny'"):
        predict(beeping, "tinny")


def test_command_writes_all_outputs_and_prints_a_report(beeping, loaded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    predict_command(beeping, options=Options(fps=4))
    folder = tmp_path / "beeping_avseg"
    assert sorted(p.name for p in folder.iterdir()) == CONTENTS
    assert len(list(folder.joinpath("masks").iterdir())) == len(list(pictures(folder / "overlay.mp4"))) == 50
    frames = json.loads((folder / "result.json").read_text())["frames"]
    assert [bool(frame["regions"]) for frame in frames] == [k > 25 for k in range(50)]
    said = capsys.readouterr().out
    assert "1.04 s  2.00 s  sounding" in said
    assert "50 masks for 2.0 s of video" in said
    assert "times real time" in said
    assert not list(tmp_path.glob(".*"))


def test_command_writes_the_chosen_outputs(beeping, loaded, tmp_path):
    out = tmp_path / "out"
    assert main(["predict", str(beeping), "--save", "masks,json", "-o", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["masks", "result.json"]


def test_command_passes_settings_to_outputs(beeping, loaded, tmp_path):
    words = ["--save", "redact", "--redact.mode", "black", "--redact.mute", "true", "-o", str(tmp_path / "out")]
    assert main(["predict", str(beeping), *words]) == 0
    settings = json.loads((tmp_path / "out" / "redact.json").read_text())["settings"]
    assert (settings["mode"], settings["mute"], settings["padding"]) == ("black", True, 0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--save", "redact", "--redact.mode", "blurr"], "redact.mode = 'blurr' does not exist. Did you mean 'blur'?"),
        (["--save", "redact", "--redact.moode", "blur"], "unknown setting 'redact.moode'"),
        (["--redact.mode", "blur"], "redact has settings, but is not written"),
    ],
)
def test_command_refuses_wrong_settings_of_outputs(beeping, loaded, tmp_path, capsys, words, message):
    assert main(["predict", str(beeping), *words, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--save", "maks"], ["--save", "uncertainty"]])
def test_command_refuses_wrong_outputs_before_the_work(beeping, monkeypatch, tmp_path, capsys, words):
    monkeypatch.setattr("avseg.pipeline.predict.load", lambda name: pytest.fail("too late"))
    assert main(["predict", str(beeping), *words, "-o", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(("avseg: error: unknown output 'maks'. Did you", "avseg: error: there is no uncertainty"))
    assert not (tmp_path / "out").exists()


def test_command_does_not_delete_its_input(beeping, loaded, tmp_path):
    folder = tmp_path / "out"
    predict_command(beeping, folder, save="overlay")
    with pytest.raises(ConfigError, match=r"holds the input overlay\.mp4"):
        predict_command(folder / "overlay.mp4", folder, overwrite=True)
    assert (folder / "overlay.mp4").is_file()


def test_command_does_not_delete_images_that_are_not_of_a_result(beeping, loaded, tmp_path):
    mine = tmp_path / "out" / "masks" / "000000.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"drawn by hand")
    with pytest.raises(ConfigError, match=r"holds 'masks/000000\.png', which no result\.json lists"):
        predict_command(beeping, tmp_path / "out", overwrite=True)
    assert mine.read_bytes() == b"drawn by hand"
    mine.unlink()
    mine.parent.rmdir()
    predict_command(beeping, tmp_path / "out", save="masks,json")
    mine.with_name("000777.png").write_bytes(b"drawn by hand")
    with pytest.raises(ConfigError, match=r"000777\.png"):
        predict_command(beeping, tmp_path / "out", overwrite=True)


def test_command_reports_no_sounding_object(make_video, loaded, tmp_path, capsys):
    predict_command(make_video("mute.mp4"), tmp_path / "out", options=Options(missing_audio="silence"))
    said = " ".join(capsys.readouterr().out.split())
    assert "no sounding object" in said
    assert "note: mute.mp4 has no sound track" in said


def test_command_overwrites_only_on_request(beeping, loaded, tmp_path):
    out = tmp_path / "out"
    predict_command(beeping, out)
    before = (out / "result.json").read_bytes()
    with pytest.raises(ConfigError, match="--overwrite"):
        predict_command(beeping, out, options=Options(fps=4))
    assert (out / "result.json").read_bytes() == before
    predict_command(beeping, out, options=Options(fps=4), overwrite=True)
    assert (out / "result.json").read_bytes() != before


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, MediaError("damaged")])
def test_nothing_half_done_is_left(beeping, loaded, tmp_path, monkeypatch, trouble):
    def fail(*_):
        raise trouble

    monkeypatch.setattr("avseg.outputs.overlay.planes_with_timeline", fail)
    with pytest.raises((KeyboardInterrupt, AvsegError)):
        predict_command(beeping, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beeping.mp4"]


def test_full_disk_is_reported_in_one_line(beeping, loaded, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", fail)
    with pytest.raises(MediaError, match=r"cannot write .*out \(No space left on device\)") as caught:
        predict_command(beeping, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beeping.mp4"]


def bad_files(make_video, make_beep, folder):
    whole = make_video("whole.mp4", sound=make_beep(1, 0, 1))
    (folder / "cut.mp4").write_bytes(whole.read_bytes()[:-800])
    (folder / "empty.mp4").touch()
    (folder / "letter.mp4").write_text("Dear Sir or Madam,\n" * 200)
    make_video("mute.mp4")
    return {
        "none.mp4": "no such file",
        ".": "is a folder",
        "cut.mp4": "cut off or damaged",
        "empty.mp4": "is empty",
        "letter.mp4": "not a video",
        "mute.mp4": "no sound track",
    }


def test_bad_videos_are_refused_in_one_line_and_leave_nothing(make_video, make_beep, loaded, tmp_path):
    for name, message in bad_files(make_video, make_beep, tmp_path).items():
        with pytest.raises(MediaError, match=message) as caught:
            predict_command(tmp_path / name, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_very_short_videos_work(make_video, make_beep, ear):
    for count in 1, 2, 10:
        path = make_video(f"{count}.mp4", times=[k / 25 for k in range(count)], sound=make_beep(0.4, 0, 0.4))
        result = predict(path, ear)
        assert len(result.masks) == count
        assert result.masks[:].all()


def test_several_classes(beeping, ear):
    def halves(sounding):
        """Class 1 at the top, class 2 at the bottom, while it sounds."""
        top = torch.arange(sounding.shape[-2])[:, None] < sounding.shape[-2] // 2
        return 9.0 * torch.stack([~sounding, sounding & top, sounding & ~top], 2).float()

    ear.answer, ear.classes = halves, 3
    ear.card["class_names"] = ["background", "dog", "siren"]
    result = predict(beeping, ear, fps=4)
    assert [r.label for r in result.frames[-1].regions] == [1, 2]
    assert {i.name for i in result.intervals} == {"dog", "siren"}
    assert (result.labels[-1][:40] == 1).all()
    assert (result.labels[-1][-40:] == 2).all()
    assert decode(result.frames[-1].regions[0].rle).sum() + decode(result.frames[-1].regions[1].rle).sum() == 96 * 128


def test_uncertainty_is_returned_on_request(grey_video, uncertain_model):
    result = predict(grey_video, uncertain_model, show="uncertainty")
    assert result.options["show"] == "uncertainty"
    assert result.uncertainty.shape == result.masks.shape == (20, 96, 128)
    np.testing.assert_allclose(result.uncertainty[0][:, [0, -1]], [[0.1, 0.8]] * 96, atol=0.5 / 255 + 1e-6)
    for frame, values, mask in zip(result.frames, result.uncertainty, result.masks, strict=True):
        assert frame.regions[0].uncertainty == pytest.approx(values[mask].mean(), abs=1e-4)
    uncertain_model.frame_numbers = itertools.count()
    assert list(stream(grey_video, uncertain_model, show="uncertainty")) == list(result.frames)


def test_no_uncertainty_without_request(grey_video, uncertain_model):
    result = predict(grey_video, uncertain_model)
    assert "uncertainty" not in json.dumps({**result.to_dict(), "source": "a path of any name"})
    options = {"fps", "missing_audio", "damaged", "device", "silence_gate", "timing", "threshold", "upsampling"}
    assert set(result.options) == options
    assert not any(uncertain_model.maps_requested)


@pytest.mark.slow
def test_command_shows_uncertainty(grey_video, uncertain_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("avseg.pipeline.predict.load", lambda name, device: uncertain_model)
    out = tmp_path / "out"
    assert main(["predict", str(grey_video), "--model", "runs/sure", "--show", "uncertainty", "-o", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == [*CONTENTS, "uncertainty"]
    assert len(list((out / "uncertainty").iterdir())) == 20
    assert "uncertainty 0.41 on average, 0.45 at most (at 0.00 s)" in capsys.readouterr().out
    assert Result.load(out).has_uncertainty
    uncertain_model.frame_numbers = itertools.count()
    predict_command(grey_video, out, overwrite=True)
    assert sorted(p.name for p in out.iterdir()) == CONTENTS
    assert "uncertainty 0" not in capsys.readouterr().out


def test_command_refuses_a_model_that_does_not_estimate_it(beeping, loaded, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(beeping), "--show", "uncertainty", "-o", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("avseg: error: this model (")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beeping.mp4"]


def test_bundled_model_names_the_person_who_speaks():
    video = Path(__file__).parents[2] / "examples" / "portrait_and_cat.mp4"
    frames = list(islice(stream(video, "small"), 60))  # silence up to 1 s, speech up to 3 s
    shown = [frame.objects for frame in frames if frame.regions]
    assert len(shown) > 20
    assert best(shown).name == "person"
    assert not any(frame.objects for frame in frames if not frame.regions)
