"""The benchmark script composed_v1.py on a stock that the test makes."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.io import wavfile

import avseg
import composed_speed
import composed_v1
import sound_names
from avseg.model_folder import save
from avseg.nn.class_prior import object_classes
from avseg.nn.mobile_audio import audioset_classes
from avseg.synthesis.stock import Recording, Stock

CLASSES = {"dog": (230, 40, 40), "car": (40, 230, 40)}


@pytest.fixture
def listed(tmp_path, monkeypatch) -> Path:
    """A stock of two classes, and a list of its files in place of the frozen one."""
    stock = tmp_path / "stock"
    classes = [{"number": k, "name": name, "sounds": [name]} for k, name in enumerate(CLASSES, 1)]
    (stock / "test").mkdir(parents=True)
    (stock / "classes.yaml").write_text(yaml.safe_dump({"classes": classes}))
    for k, (name, colour) in enumerate(CLASSES.items(), 1):
        for folder in ("images", "sounds"):
            (stock / "test" / folder / name).mkdir(parents=True)
        image, mask = np.full((60, 60, 3), 128, np.uint8), np.zeros((60, 60), np.uint8)
        image[10:50, 10:50], mask[10:50, 10:50] = colour, k
        Image.fromarray(image).save(stock / f"test/images/{name}/a.jpg")
        Image.fromarray(mask).save(stock / f"test/images/{name}/a.png")
        wave = 0.3 * np.sin(np.arange(24_000) * 0.1 * k)
        wavfile.write(stock / f"test/sounds/{name}/a.wav", 16_000, (wave * 32767).astype(np.int16))
    files = sorted(p for p in (stock / "test").rglob("*") if p.is_file())
    rows = [(str(p.relative_to(stock)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]
    with (tmp_path / "files.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "sha256"), *rows])
    (tmp_path / "settings.yaml").write_text(
        "clips: {seed: 1, test: 4, frames: 2}\npairs: {seed: 2, test: 6, frames: 1, kind: pair, negatives: 0.0}\n"
    )
    monkeypatch.setattr(composed_v1, "LISTED", tmp_path / "files.csv")
    monkeypatch.setattr(composed_v1, "HERE", tmp_path)
    return stock


@pytest.fixture
def model(tmp_path) -> Path:
    built = avseg.build("pcmanet", visual="resnet18", audio="compact", channels=16, groups=2, heads=2, train_audio=True)
    return save(built, tmp_path / "model", data={"name": "composed", "size": 64})


@pytest.mark.slow
def test_composed_v1_writes_scores_of_every_model(listed, model, tmp_path, capsys):
    out = tmp_path / "out.json"
    composed_v1.main([str(listed), str(tmp_path / "work"), str(out), str(model)])
    numbers = json.loads(out.read_text())["numbers"]["model"]
    assert numbers["clips"]["frames"] == 8
    assert set(numbers["clips"]["negatives"]) == {"silence", "noise", "swap"}
    assert 0 <= numbers["pairs"]["right"] <= 1
    assert out.with_suffix(".png").stat().st_size > 1000
    assert "side" in capsys.readouterr().out


def test_composed_v1_refuses_another_file(listed, model, tmp_path, capsys):
    (listed / "test/images/dog/a.jpg").write_bytes((listed / "test/images/car/a.jpg").read_bytes())
    with pytest.raises(SystemExit, match="2"):
        composed_v1.main([str(listed), str(tmp_path / "work"), str(tmp_path / "out.json"), str(model)])
    assert "is another file than composed-v1 lists" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_composed_v1_refuses_a_folder_with_other_files(listed, model, tmp_path, capsys):
    extra = tmp_path / "work/test/images/dog/b.jpg"
    extra.parent.mkdir(parents=True)
    extra.write_bytes(b"")
    with pytest.raises(SystemExit, match="2"):
        composed_v1.main([str(listed), str(tmp_path / "work"), str(tmp_path / "out.json"), str(model)])
    assert "test/images/dog/b.jpg, which composed-v1 does not list" in capsys.readouterr().err


def test_frozen_list_names_each_file_once_with_a_free_licence():
    with (Path(composed_v1.__file__).parent / "composed_v1/files.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["file"] for row in rows}) == len(rows) > 1000
    assert all(len(row["sha256"]) == 64 and row["licence"] and row["source"] for row in rows)
    assert not any("research" in row["file"] or "NC" in row["licence"] for row in rows)


@pytest.mark.slow
def test_composed_speed_writes_times_and_their_ratio(listed, tmp_path, monkeypatch):
    listed.joinpath("test").rename(listed / "train")
    recipe = {
        "model": {"name": "pcmanet", "visual": "resnet18", "audio": "compact", "train_audio": True, "channels": 16},
        "data": {"name": "composed", "size": 64, "frames": 2},
        "train": {"batch_size": 2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(composed_speed, "RECIPE", tmp_path / "recipe.yaml")
    composed_speed.main([str(listed), str(tmp_path / "speed.json"), "--rounds", "1"])
    numbers = json.loads((tmp_path / "speed.json").read_text())["numbers"]
    assert numbers["training_over_composing"] == pytest.approx(
        numbers["training_seconds_per_clip"] / numbers["composing_seconds_per_clip"]
    )


def test_sound_names_counts_right_names(tmp_path, monkeypatch):
    """The scores of every window are set to one AudioSet class: dogs are right, cars are not."""
    stock = Stock({}, {}, {}, {}, {"dog": [Recording("a", 0, 9)], "car": [Recording("b", 0, 9)] * 3}, tmp_path)
    monkeypatch.setattr(Stock, "wave", lambda *_: np.zeros(16_000, np.float32))
    model = avseg.build("pcmanet", visual="resnet18", audio="mobile")
    scores = torch.full((1, 1, 521), -9.0)
    scores[..., audioset_classes().index("Bark")] = 9.0
    monkeypatch.setattr(model.audio, "scores", lambda _: scores)
    numbers = sound_names.measure(model, stock)
    assert numbers["right"] == numbers["certain_right"] == 0.25
    assert numbers["folders"]["dog"] == {"recordings": 1, "right": 1.0}
    assert set(sound_names.RIGHT["dog"]) <= {c.name for c in object_classes()}
