"""Own videos, prepared: equal clips without decoding video."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avseg.cli import main
from avseg.data import build_dataset
from avseg.dataset_tools.prepare import Prepared, prepare
from avseg.errors import ConfigError, DataError
from avseg.media.images import denormalise

SIZE = (48, 64)
SPLITS = ("train", "val", "test")


def paint(path: Path, left: int, right: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros(SIZE, np.uint8)
    labels[:, :20], labels[:, -20:] = left, right
    Image.fromarray(labels).save(path)


@pytest.fixture
def source(tmp_path, make_video, make_beep) -> Path:
    """Write videos a (9 s, two clips of 5 s), b/c and d; the last is the test split; two classes."""
    root = tmp_path / "source"
    for name, length in (("a.mkv", 9), ("b/c.mp4", 3), ("d.mp4", 3)):
        (root / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        times, sound = [k / 5 for k in range(5 * length)], make_beep(length, 1.3, 2.2, 48_000, 2)
        make_video(f"source/videos/{name}", times=times, sound=sound, rate=48_000)
    for name, seconds in (("a", (0, 2, 7)), ("b/c", (1,)), ("d", (0, 1, 2))):
        for second in seconds:
            paint(root / "masks" / name / f"{second}.png", 1, 255 if second else 2)
    (root / "classes.txt").write_text("dog\ncat\n")
    (root / "split.csv").write_text("video,split\na,train\nb/c,val\nd,test\n")
    return root


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "prepared"


def run(source: Path, out: Path, **settings: object) -> Prepared:
    return prepare(source, out, seconds=5, progress=False, **settings)


def written(out: Path) -> dict[str, int]:
    return {p.relative_to(out).as_posix(): p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}


@pytest.mark.parametrize("classes", ["all", "one"])
def test_prepared_clips_equal_videos(source, out, classes):
    assert run(source, out, classes=classes) == Prepared(out, 3, 0, ())
    assert sorted(p.parent.relative_to(out).as_posix() for p in out.rglob("clip.json")) == [
        "test/d@0", "train/a@0", "train/a@5", "val/b__c@0",
    ]  # fmt: skip
    for split in SPLITS:
        ours = build_dataset("videos", split, root=str(source), size=0, seconds=5, classes=classes)
        theirs = build_dataset("folder", split, root=str(out), size=0)
        assert theirs.class_names == ours.class_names
        assert len(theirs) == len(ours) > 0
        for k in range(len(ours)):
            a, b = ours[k], theirs[k]
            assert a.target.masks.equal(b.target.masks)
            assert a.target.labelled.equal(b.target.labelled)
            torch.testing.assert_close(a.clip.audio, b.clip.audio, atol=0.15, rtol=0)  # 16 bits
            difference = denormalise(a.clip.frames).float() - denormalise(b.clip.frames).float()
            assert difference.abs().max() <= 4  # JPEG


def test_label_times_within_seconds_keep_their_audio(source, out):
    images = [{"id": k, "file_name": "x.png", "height": 48, "width": 64, "time": t} for k, t in enumerate((1.2, 2.9))]
    (source / "annotations").mkdir()
    for name in ("a", "b/c", "d"):
        path = source / f"annotations/{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "dog"}]}))
    (source / "masks").rename(source / "masks_as_png")
    (source / "classes.txt").unlink()
    assert run(source, out).failed == ()
    ours = build_dataset("videos", "val", root=str(source), size=0)[0]
    theirs = build_dataset("folder", "val", root=str(out), size=0)[0]
    assert ours.clip.frames.shape[1] == 3
    torch.testing.assert_close(ours.clip.audio, theirs.clip.audio, atol=0.15, rtol=0)


def test_only_changed_clips_are_rewritten(source, out):
    run(source, out)
    before = written(out)
    assert run(source, out)[1:] == (0, 3, ())
    changed = {name for name, time in written(out).items() if before[name] != time}
    assert changed == {"dataset.json"}
    paint(source / "masks/a/7.png", 2, 2)
    assert run(source, out)[1:] == (1, 2, ())
    changed = {name.rpartition("@")[0] + "@" + name[name.rindex("@") + 1] for name, time in written(out).items()
               if name != "dataset.json" and before[name] != time}  # fmt: skip
    assert changed == {"train/a@5"}
    assert build_dataset("folder", "train", root=str(out), size=0)[1].target.masks[0, 2, 0, 0] == 2
    assert not list(out.rglob(".*"))


def test_bad_video_is_listed_and_set_incomplete(source, out, capsys):
    (source / "videos/b/c.mp4").write_bytes(b"no video")
    words = ["data", "prepare", str(source), "-o", str(out), "--seconds", "5"]
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "2 videos prepared" in printed.out
    assert "c.mp4 is not a video" in printed.err.splitlines()[0]
    assert "1 of 3 videos could not be prepared" in printed.err.splitlines()[1]
    assert not (out / "dataset.json").exists()
    (source / "masks/b/c/1.png").unlink()
    (source / "split.csv").write_text("video,split\na,train\nd,test\n")
    assert main(words) == 0
    assert "0 videos prepared, 2 already done" in capsys.readouterr().out
    assert (out / "dataset.json").is_file()


def test_leftovers_of_interrupted_run_are_removed(source, out):
    half = out / "train/.a@0.partial/a@0"
    (half / "frames").mkdir(parents=True)
    (half / "frames/0.jpg").touch()
    run(source, out)
    assert not list(out.rglob(".*"))


def test_foreign_file_in_folder_raises(source, out):
    run(source, out)
    (source / "split.csv").write_text("video,split\na,train\nb/c,test\nd,val\n")
    with pytest.raises(DataError, match="b__c@0 is not part of this data set: remove it"):
        run(source, out)
    with pytest.raises(DataError, match=r"classes\.txt is not part of this data set"):
        run(source, source)


def test_colliding_names_raise(source, out):
    video = source / "videos/b__c.mp4"
    os.link(source / "videos/d.mp4", video)
    paint(source / "masks/b__c/1.png", 1, 0)
    (source / "split.csv").write_text("video,split\na,train\nb/c,val\nd,test\nb__c,val\n")
    with pytest.raises(DataError, match="rename one of them"):
        run(source, out)


def test_out_is_required_only_for_own_videos(source, tmp_path):
    with pytest.raises(ConfigError, match="give its folder with -o"):
        prepare(source)
    (tmp_path / "s4_meta_data.csv").write_text("name,start,category,split\na,0,dog,train\n")
    with pytest.raises(ConfigError, match="omit -o"):
        prepare(tmp_path, tmp_path / "out")


def test_check_accepts_prepared_data_set(source, out, capsys):
    run(source, out)
    assert main(["data", "check", str(out)]) == 0
    assert "name: folder" in capsys.readouterr().out
