import csv
import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avseg.data import build_dataset
from avseg.dataset_tools.compose import ComposeSettings, compose
from avseg.errors import AvsegError, ConfigError, DataError
from avseg.media.images import denormalise

VALUES = {"dog": 18, "tall person": 1, "chair": 62}


def picture(folder: Path, name: str, value: int, side: int = 64) -> None:
    """Write a square in the colour of its class, on grey, and its mask."""
    image, mask = np.full((side, side, 3), 90, np.uint8), np.zeros((side, side), np.uint8)
    image[12:50, 14:52] = (value * 4 % 256, 255 - value, 200)
    mask[12:50, 14:52] = value
    mask[6:12, 14:52] = 255
    for kind, array, suffix in (("images", image, "jpg"), ("masks", mask, "png")):
        path = folder / kind / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def sound(path: Path, hertz: float, seconds: float = 1.5, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((tone * 32767).astype("<i2").tobytes())


@pytest.fixture
def source(tmp_path) -> Path:
    """Write dogs and people with sounds, chairs without sounds, rain without images."""
    folder = tmp_path / "source"
    for name, value in VALUES.items():
        for k in range(4):
            picture(folder, f"{name}{k}", value)
    for k in range(4):
        sound(folder / "sounds" / "dog" / f"{k}.wav", 400 + 20 * k)
        sound(folder / "sounds" / "talk" / f"{k}.wav", 800 + 20 * k)
        sound(folder / "sounds" / "rain" / f"{k}.wav", 1600 + 20 * k)
    with (folder / "classes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("mask_value", "class", "more"), *((v, n, 0) for n, v in VALUES.items())])
    return folder


@pytest.fixture
def settings(source, tmp_path) -> ComposeSettings:
    return ComposeSettings(
        images=str(source / "images"),
        masks=str(source / "masks"),
        sounds=str(source / "sounds"),
        out=str(tmp_path / "out"),
        classes=str(source / "classes.csv"),
        pairs=" tall person = talk",
        size=48,
        frames=3,
        train=8,
        val=2,
        test=2,
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def stories(folder: Path) -> dict[str, list[dict]]:
    """Read the clip.json of each clip."""
    return {
        s: [json.loads(p.read_text()) for p in sorted((folder / s).glob("*/clip.json"))]
        for s in ("train", "val", "test")
    }


def test_output_is_read_by_folder(settings):
    out = compose(settings, progress=False)
    assert sorted(p.name for p in out.iterdir()) == ["dataset.json", "test", "train", "val"]
    assert sorted(p.name for p in (out / "train" / "00000").iterdir()) == ["audio.wav", "clip.json", "frames", "masks"]
    data = build_dataset("folder", "train", root=str(out), size=0)
    assert data.class_names == ("background", "dog", "tall person")
    assert data.classes == 3
    assert len(data) == 8
    sample = data[0]
    assert sample.clip.frames.shape == (1, 3, 3, 48, 48)
    assert sample.target.labelled.all()
    with Image.open(out / "train" / "00000" / "masks" / "0.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:3] == [0, 0, 0]


def test_masks_follow_objects_and_sounding_seconds(settings):
    out = compose(settings, progress=False)
    data = build_dataset("folder", "train", root=str(out), size=0)
    names = {name: label for label, name in enumerate(data.class_names)}
    marked = 0
    for index, story in enumerate(stories(out)["train"]):
        masks = data[index].target.masks[0]
        for k in range(3):
            loud = {names[t["class"]] for t in story["things"] if t["seen"] and t["sounds"][k]}
            assert set(masks[k].unique().tolist()) - {0, 255} == loud
            marked += bool(loud)
    assert marked > 6


def test_whole_images_keep_their_objects(settings):
    out = compose(replace(settings, whole=1.0, variant="s4", val=0, test=0), progress=False)
    data = build_dataset("folder", "train", root=str(out), size=0, variant="avss")
    unscored = 0
    for index, story in enumerate(stories(out)["train"]):
        (thing,) = story["things"]
        label = data.class_names.index(thing["class"])
        masks, frames = data[index].target.masks[0], denormalise(data[index].clip.frames[0])
        assert set(masks.unique().tolist()) - {255} == {0, label}
        unscored += bool((masks == 255).any())
        inside, outside = frames[masks == label].float(), frames[masks == 0].float()
        assert (inside.mean(0) - outside.mean(0)).abs().max() > 30
        assert len([f for f in story["files"] if f.endswith(".jpg")]) == 1
    assert unscored > 2


def test_no_label_255_without_whole_images(settings):
    out = compose(replace(settings, whole=0.0), progress=False)
    data = build_dataset("folder", "train", root=str(out), size=0)
    assert all(int(sample.target.masks.max()) < 255 for sample in data)


def test_classes_without_sound_or_image_occur(settings):
    things = [
        t
        for clips in stories(compose(replace(settings, train=16), progress=False)).values()
        for s in clips
        for t in s["things"]
    ]
    chairs, rain = ([t for t in things if t["class"] == name] for name in ("chair", "rain"))
    assert chairs
    assert rain
    assert not any(any(t["sounds"]) for t in chairs)
    assert not any(t["seen"] for t in rain)


def test_splits_share_no_files(settings):
    used = {
        s: {f for story in clips for f in story["files"]}
        for s, clips in stories(compose(settings, progress=False)).items()
    }
    assert all(
        any(f.endswith(".wav") for f in files) and any(f.endswith(".jpg") for f in files) for files in used.values()
    )
    assert not used["train"] & used["val"]
    assert not used["train"] & used["test"]
    assert not used["val"] & used["test"]


def test_sound_source_keeps_takes_in_one_split(settings, source):
    for k in range(4):
        for take in "AB":
            sound(source / "sounds" / "dog" / f"rec{k}-{take}.wav", 300 + 5 * k)
        (source / "sounds" / "dog" / f"{k}.wav").unlink()
    from avseg.synthesis.user_stock import share_out, source_of

    paths = sorted((source / "sounds" / "dog").iterdir())
    owner = share_out({source_of(p, "(rec.)-"): ["dog"] for p in paths}, ("train", "val", "test"), 0)
    assert len(owner) == 4
    assert set(owner.values()) == {"train", "val", "test"}
    assert source_of(paths[0], "(rec.)-") == source_of(paths[1], "(rec.)-") != source_of(paths[0], None)


def test_folder_names_are_classes_without_csv(source, settings, tmp_path):
    for name, value in (("dog", 1), ("talk", 200)):
        for k in range(3):
            picture(source / "sorted", f"{name}/{k}", value)
    plain = replace(
        settings,
        images=str(source / "sorted" / "images"),
        masks=str(source / "sorted" / "masks"),
        classes=None,
        pairs="",
    )
    assert json.loads((compose(plain, progress=False) / "dataset.json").read_text())["class_names"] == [
        "background",
        "dog",
        "talk",
    ]


def test_interrupted_composition_resumes(settings, monkeypatch, tmp_path):
    whole = tree(compose(replace(settings, out=str(tmp_path / "whole")), progress=False))
    import avseg.dataset_tools.compose as module

    write, left = module._write, iter(range(5))

    def fail(folder, scene, story):
        write(folder, scene, story)
        if next(left, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", fail)
        with pytest.raises(KeyboardInterrupt):
            compose(settings, progress=False)
    out = Path(settings.out)
    assert not (out / "dataset.json").exists()
    assert len([p for p in (out / "train").iterdir() if not p.name.startswith(".")]) == 5
    with pytest.raises(DataError, match=r"no .*dataset\.json"):
        len(build_dataset("folder", "train", root=str(out)))
    assert tree(compose(settings, progress=False)) == whole
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    compose(settings, progress=False)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_other_composition_is_not_overwritten(settings, source):
    out = compose(settings, progress=False)
    before = tree(out)
    with pytest.raises(DataError, match="other settings or files"):
        compose(replace(settings, seed=1), progress=False)
    picture(source, "dog9", VALUES["dog"])
    with pytest.raises(DataError, match="other settings or files"):
        compose(settings, progress=False)
    assert tree(out) == before


def test_s4_has_one_source_and_splits_are_optional(settings):
    out = compose(replace(settings, variant="s4", val=0, test=0, size=(40, 56)), progress=False)
    assert not (out / "val").exists()
    data = build_dataset("folder", "train", root=str(out), size=0)
    assert data.classes == 1
    for index in range(len(data)):
        target = data[index].target
        assert target.masks.shape == (1, 3, 40, 56)
        assert target.labelled.tolist() == [[True, False, False]]
        assert (target.masks[target.labelled] == 1).any()


def break_mask(source):
    (source / "masks" / "dog1.png").unlink()


def break_size(source):
    Image.new("L", (10, 10)).save(source / "masks" / "dog1.png")


def break_colour(source):
    Image.new("RGB", (64, 64)).save(source / "masks" / "dog1.png")


def break_value(source):
    Image.new("L", (64, 64), 77).save(source / "masks" / "dog1.png")


def break_picture(source):
    (source / "images" / "dog1.jpg").write_bytes(b"not an image")


def break_sound(source):
    (source / "sounds" / "dog" / "1.wav").write_bytes(b"no sound at all")


def break_silent(source):
    sound(source / "sounds" / "dog" / "1.wav", 0.0)


def break_csv(source):
    (source / "classes.csv").write_text("id,name\n1,dog\n")


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (break_mask, "dog1.jpg has no mask: expected"),
        (break_size, "is 64x64 pixels, its mask"),
        (break_colour, "dog1.png is a RGB image"),
        (break_value, "dog1.png holds the value 77"),
        (break_picture, "dog1.jpg as an image"),
        (break_sound, "1.wav as audio"),
        (break_silent, "1.wav is silent"),
        (break_csv, "classes.csv: expected the columns mask_value,class"),
    ],
)
def test_bad_file_raises_one_line(settings, source, change, hint):
    change(source)
    with pytest.raises(DataError) as caught:
        compose(settings, progress=False)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path(settings.out).exists()


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"images": "nowhere"}, "no folder nowhere"),
        ({"masks": "nowhere"}, "no folder nowhere"),
        ({"sounds": "nowhere"}, "no folder nowhere"),
        ({"classes": "nowhere.csv"}, "cannot read nowhere.csv"),
        ({"classes": None}, "sort images into one folder per class, or give --classes"),
        ({"pairs": "tall persn=talk"}, "Did you mean 'tall person'?"),
        ({"pairs": "tall person=tlak"}, "Did you mean 'talk'?"),
        ({"pairs": "person"}, "expected class=folder"),
        ({"variant": "s5"}, "'s4', 'ms3' or 'avss', got 's5'"),
        ({"size": 4}, "8 pixels or more"),
        ({"train": 0, "val": 0, "test": 0}, "not all splits 0"),
        ({"whole": 1.5}, "between 0 and 1, got 1.5"),
        ({"sound_source": "("}, "not a regular expression"),
        ({"sound_source": "abc"}, "needs a group"),
    ],
)
def test_wrong_setting_raises_one_line(settings, changes, hint):
    with pytest.raises(AvsegError) as caught:
        compose(replace(settings, **changes), progress=False)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_common_class_or_too_few_files_raises(settings, source):
    for k in range(1, 4):
        (source / "sounds" / "dog" / f"{k}.wav").unlink()
        (source / "sounds" / "talk" / f"{k}.wav").unlink()
    with pytest.raises(DataError, match="too few files: val has no class"):
        compose(settings, progress=False)
    for name in ("dog", "talk"):
        (source / "sounds" / name / "0.wav").unlink()
    with pytest.raises(
        DataError, match=r"no class has images and sounds\. Images: chair, dog, tall person\. Sounds: rain"
    ):
        compose(replace(settings, pairs=""), progress=False)


def test_foreign_folder_raises(settings):
    out = Path(settings.out)
    out.mkdir()
    (out / "holiday.txt").write_text("mine")
    with pytest.raises(DataError, match="is not a data set"):
        compose(settings, progress=False)
    assert [p.name for p in out.iterdir()] == ["holiday.txt"]


def test_constructor_validates_settings(settings):
    with pytest.raises(ConfigError):
        replace(settings, frames=0)
