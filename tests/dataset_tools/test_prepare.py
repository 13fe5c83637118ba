"""``avseg data prepare`` on real videos: files, printed text, and resuming a killed run."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from avseg.cli import main
from avseg.data import build_dataset
from avseg.dataset_tools.prepare import prepare
from avseg.errors import DataError

TIMES = [k / 8 for k in range(44)]


@pytest.fixture
def raw(tmp_path, make_video, make_beep):
    """Write AVSBench's two folders with raw videos: four of S4, the last starting at second 7, two of MS3."""
    sound = make_beep(5.5, 1, 2, 22_050, 2)
    clip = make_video("clip.mp4", times=TIMES, sound=sound, rate=22_050, sound_codec="aac").read_bytes()
    s4, ms3 = tmp_path / "Single-source", tmp_path / "Multi-sources"
    rows = [("a", 0, "dog", "train"), ("b", 5, "dog", "val"), ("c", 3, "cat", "test"), ("d", 7, "cat", "test")]
    for name, _, category, split in rows:
        place(s4 / "s4_data/raw_videos" / split / category / f"{name}.mp4", clip)
    lines = [",".join(map(str, row)) for row in rows]
    (s4 / "s4_meta_data.csv").write_text("\n".join(["name,start,category,split", *lines]) + "\n")
    for name in ("e", "f"):
        place(ms3 / "ms3_data/raw_videos" / f"{name}.mp4", clip)
    (ms3 / "ms3_meta_data.csv").write_text("video_id,split\ne,train\nf,test\n")
    return tmp_path


def place(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return the written files: name → time, content."""
    found = [p for p in root.rglob("*") if p.is_file() and "raw_videos" not in p.parts and p.suffix in (".png", ".wav")]
    return {p.relative_to(root).as_posix(): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}


@pytest.mark.slow
def test_released_layout_is_written(raw):
    done = prepare(raw, progress=False)
    assert (done.folder, done.made, done.kept, done.failed) == (raw, 6, 0, ())
    s4, ms3 = "Single-source/s4_data", "Multi-sources/ms3_data"
    clips = [("train/dog/a", 5), ("val/dog/b", 5), ("test/cat/c", 5), ("test/cat/d", 3)]
    expected = {f"{s4}/visual_frames/{c}/{c[-1]}_{k}.png" for c, n in clips for k in range(1, n + 1)}
    expected |= {f"{s4}/audio_wav/{c}.wav" for c, _ in clips}
    expected |= {f"{ms3}/visual_frames/{c}/{c}.mp4_{k}.png" for c in "ef" for k in range(1, 6)}
    expected |= {f"{ms3}/audio_wav/train/e.wav", f"{ms3}/audio_wav/test/f.wav"}
    assert set(files(raw)) == expected
    assert not list(raw.rglob(".*"))


@pytest.mark.slow
def test_frames_and_audio_equal_the_release(raw):
    prepare(raw, progress=False)
    with av.open(str(raw / "Single-source/s4_data/raw_videos/train/dog/a.mp4")) as container:
        shown = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
    for k in range(1, 6):
        frame = Image.open(raw / f"Single-source/s4_data/visual_frames/train/dog/a/a_{k}.png")
        assert (frame.size, frame.mode) == ((224, 224), "RGB")
        assert np.asarray(frame).mean() == pytest.approx(shown[8 * (k - 1) + 7], abs=1)  # 8 frames a second
    for name, seconds in (("train/dog/a", 5), ("test/cat/d", 3)):
        rate, sound = wavfile.read(raw / f"Single-source/s4_data/audio_wav/{name}.wav")
        assert (rate, sound.dtype, sound.shape) == (16_000, np.int16, (seconds * 16_000,))
        loud = np.flatnonzero(np.abs(sound) > 1000)
        assert loud[[0, -1]] / 16_000 == pytest.approx([1, 2], abs=0.02)
        assert np.abs(sound[18_000:30_000]).max() / 32_767 == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_prepared_folder_with_masks_is_a_data_set(raw):
    prepare(raw, progress=False)
    white = Image.new("L", (224, 224), 255)
    masks = {"Single-source/s4_data/gt_masks/train/dog/a/a": 1, "Multi-sources/ms3_data/gt_masks/train/e/e": 5}
    for stem, count in masks.items():
        (raw / stem).parent.mkdir(parents=True)
        for k in range(1, count + 1):
            white.save(raw / f"{stem}_{k}.png")
    for name, folder, labelled in (("s4", "Single-source", 1), ("ms3", "Multi-sources", 5)):
        sample = build_dataset(name, "train", root=str(raw / folder))[0]
        assert sample.clip.frames.shape == (1, 5, 3, 224, 224)
        assert sample.clip.audio.shape == (1, 5, 1, 96, 64)
        assert sample.target.labelled.sum() == labelled
        assert sample.clip.audio[0].amax((1, 2, 3)).argmax() == 1  # 0.96 to 1.92 s of the beep from 1 to 2 s


@pytest.mark.slow
def test_only_incomplete_clips_are_rewritten(raw):
    prepare(raw, progress=False)
    before = files(raw)
    assert prepare(raw, progress=False)[1:] == (0, 6, ())
    assert files(raw) == before
    (raw / "Single-source/s4_data/visual_frames/val/dog/b/b_3.png").unlink()
    (raw / "Multi-sources/ms3_data/audio_wav/test/f.wav").unlink()
    assert prepare(raw, progress=False)[1:] == (2, 4, ())
    after = files(raw)
    assert {name: data for name, (_, data) in after.items()} == {name: data for name, (_, data) in before.items()}
    assert {name for name in after if after[name] != before[name]} <= {n for n in after if "/b" in n or "/f" in n}


def test_bad_videos_are_listed_and_others_prepared(raw, make_video, capsys):
    data = raw / "Single-source/s4_data/raw_videos"
    (data / "val/dog/b.mp4").write_bytes(b"no video")
    (data / "test/cat/c.mp4").unlink()
    (data / "test/cat/d.mp4").write_bytes(make_video("mute.mp4").read_bytes())
    assert main(["data", "prepare", str(raw)]) == 2
    out, error = capsys.readouterr()
    *lines, last = error.splitlines()
    assert "3 videos prepared" in out
    assert [line.startswith("avseg: ") for line in lines] == [True] * 3
    assert "b.mp4 is not a video" in lines[0]
    assert "no such file" in lines[1]
    assert "c.mp4" in lines[1]
    assert "d.mp4 has no sound" in lines[2]
    assert last.startswith("avseg: error: 3 of 6 videos could not be prepared")
    assert len([name for name in files(raw) if name.endswith(".wav")]) == 3
    assert not list(raw.rglob(".*"))


@pytest.mark.parametrize(
    ("table", "hint"),
    [
        ("name,start,category,split\na,0,dog\n", "line 2: column 'split' is empty"),
        ("name,start,category\na,0,dog\n", "has no column 'split'"),
        ("name,start,category,split\na,0,dog,train\n../a,0,dog,train\n", "line 3: '../a' is not the name of a file"),
        ("name,start,category,split\na,x,dog,train\n", "line 2: invalid literal"),
        ("name,start,category,split\na,10,dog,train\n", "line 2: a clip of 10 s cannot start at second 10"),
        ("name,start,category,split\n", "lists no video"),
    ],
)
def test_wrong_list_raises_one_line(tmp_path, table, hint):
    (tmp_path / "s4_meta_data.csv").write_text(table)
    with pytest.raises(DataError) as caught:
        prepare(tmp_path)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_folder_raises(tmp_path):
    with pytest.raises(DataError, match=r"holds no s4_meta_data\.csv"):
        prepare(tmp_path)


@pytest.mark.slow
def test_killed_run_leaves_no_partial_file_and_resumes(raw):
    expected = reference(raw)
    process = multiprocessing.get_context("spawn").Process(target=prepare, args=(raw,), kwargs={"progress": False})
    process.start()
    while process.is_alive() and not (raw / "Single-source/s4_data/audio_wav/train/dog/a.wav").is_file():
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    whole = [p for p in raw.rglob("visual_frames/**/*_1.png") if ".partial" not in str(p)]
    assert all(len(list(path.parent.iterdir())) in (3, 5) for path in whole)
    result = prepare(raw, progress=False)
    assert result.made + result.kept == 6
    assert result.made > 0
    assert {name: data for name, (_, data) in files(raw).items()} == expected
    assert not list(raw.rglob(".*"))


def reference(raw: Path) -> dict[str, bytes]:
    """Return the files of an uninterrupted run, after removing them."""
    prepare(raw, progress=False)
    expected = {name: data for name, (_, data) in files(raw).items()}
    for name in expected:
        (raw / name).unlink()
    for folder in sorted(raw.rglob("visual_frames/**/"), reverse=True):
        folder.rmdir()
    return expected
