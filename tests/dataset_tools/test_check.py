import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avseg.cli import main
from avseg.dataset_tools.check import check
from avseg.dataset_tools.inspection import examine, recognised, strays
from avseg.errors import ConfigError, DataError


def wrong(capsys: pytest.CaptureFixture[str], path: Path, out: Path) -> tuple[str, list[str]]:
    """Return the last line of ``avseg data check`` on a broken data set, and the lines of its output file."""
    assert main(["data", "check", str(path), "-o", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err.strip(), out.read_text().splitlines()


@pytest.mark.parametrize(
    ("layout", "line"),
    [
        ("s4", "(6 of 4932 published clips): data: {name: s4, root: ROOT}"),
        ("ms3", "(6 of 424 published clips): data: {name: ms3, root: ROOT}"),
        ("avss", "(18 of 11356 published clips): data: {name: avss, root: ROOT}"),
    ],
)
def test_complete_data_set_can_be_used(tiny, capsys: pytest.CaptureFixture[str], layout: str, line: str) -> None:
    root = getattr(tiny, layout)()
    assert main(["data", "check", str(root)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == f"avseg: {root} can be used {line.replace('ROOT', str(root))}"
    assert captured.err == ""


def test_files_are_counted_with_published_sizes(tiny) -> None:
    (report,) = examine(tiny.s4(), progress=False)
    counts = {name: (s.clips, s.published, s.listed, s.readable) for name, s in report.splits.items()}
    whole = {"frames": 10, "masks": 10, "sounds": 2}
    first = {**whole, "masks": 2}
    assert counts == {
        "train": (2, 3452, first, first),
        "val": (2, 740, whole, whole),
        "test": (2, 740, whole, whole),
    }
    assert not report.faults
    assert not report.strays


def test_folder_above_several_data_sets_finds_all(tiny) -> None:
    s4, ms3, avss = tiny.s4(), tiny.ms3(), tiny.avss()
    assert recognised(tiny.root) == [
        {"name": "avss", "root": str(avss)},
        {"name": "ms3", "root": str(ms3)},
        {"name": "s4", "root": str(s4)},
    ]
    assert "data: {name: ms3" in check(tiny.root, progress=False)


def test_settings_follow_existing_masks_and_subsets(tiny) -> None:
    root = tiny.avss()
    for folder in root.glob("*/*/labels_semantic"):
        folder.rename(folder.with_name("labels_gone"))
    (root / "v2").rename(root / ".v2")
    (settings,) = recognised(root)
    assert settings == {"name": "avss", "root": str(root), "masks": "labels_rgb", "subsets": ["v1s", "v1m"]}
    (report,) = examine(root, progress=False)
    assert report.splits["train"].published == 3748
    assert {path.name for path in report.strays} == {"labels_gone"}
    assert "masks: labels_rgb, subsets: [v1s, v1m]}" in check(root, progress=False)


def test_all_bad_files_are_listed(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.s4()
    data = root / "s4_data"
    missing = [data / "visual_frames/val/dog/val-0_0/val-0_0_2.png", data / "gt_masks/test/cat/test-1_1/test-1_1_5.png"]
    for path in missing:
        path.unlink()
    truncated = data / "gt_masks/val/dog/val-0_0/val-0_0_4.png"
    noise = np.random.default_rng(0).integers(0, 255, (40, 48), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "png")
    truncated.write_bytes(buffer.getvalue()[:600])
    small = data / "gt_masks/train/dog/train-0_0/train-0_0_1.png"
    Image.new("L", (9, 8)).save(small)
    odd = data / "visual_frames/test/dog/test-0_0/test-0_0_3.png"
    Image.new("RGB", (9, 8)).save(odd)
    mute, long = data / "audio_wav/val/cat/val-1_1.wav", data / "audio_wav/train/cat/train-1_1.wav"
    tiny.sound(mute, np.zeros(0))
    tiny.sound(long, np.zeros(9 * 16_000))
    noise_wav = data / "audio_wav/test/dog/test-0_0.wav"
    noise_wav.write_bytes(b"RIFF of nothing")
    last, lines = wrong(capsys, root, tmp_path / "wrong.txt")
    assert last == f"avseg: error: {root} cannot be used as s4: 8 faults, see above"
    expected = {
        missing[0]: "no {}: every frame needs an image",
        missing[1]: "no {}: every labelled frame needs a mask",
        truncated: "cannot read {} as a mask: image file is truncated",
        small: "{} is (9, 8) pixels, the frames of dog/train-0_0 are (48, 40)",
        odd: "{} is (9, 8) pixels, the frames of dog/test-0_0 are (48, 40)",
        mute: "{} has no samples",
        long: "{} holds 9 patches of 0.96 s, the clip has 5 frames",
        noise_wav: "cannot read {} as audio",
    }
    assert len(lines) == len(expected)
    for path, text in expected.items():
        assert sum(line.startswith(text.format(path)) for line in lines) == 1, path


def test_rows_without_folder_and_folders_without_row_are_listed(
    tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny.ms3()
    rows = [("val-0", "val"), ("train-0", "train"), ("train-9", "train"), ("test-0", "test"), ("test-0", "test")]
    tiny.table(root / "ms3_meta_data.csv", ("video_id", "split"), rows)
    (root / "ms3_data/visual_frames/val-0/notes.txt").write_text("")
    (root / "ms3_data/visual_frames/.DS_Store").write_text("")
    (root / "ms3_data/raw_videos").mkdir()
    last, lines = wrong(capsys, root, tmp_path / "wrong.txt")
    data = root / "ms3_data"
    assert last.endswith("4 faults, see above")
    assert lines[:3] == [
        f"no folder {data}/visual_frames/train-9: the frames of train-9 belong there",
        f"no folder {data}/gt_masks/train/train-9: the masks of train-9 belong there",
        f"no {data}/audio_wav/train/train-9.wav: every clip needs an audio file",
    ]
    assert lines[3] == "test-0 is listed 2 times"
    unlisted = {f"gt_masks/{split}/{split}-1" for split in ("train", "val", "test")}
    unlisted |= {f"audio_wav/{split}/{split}-1.wav" for split in ("train", "val", "test")}
    unlisted |= {f"visual_frames/{split}-1" for split in ("train", "val", "test")} | {"visual_frames/val-0/notes.txt"}
    assert set(lines[4:]) == {f"{data / path} is in no list" for path in unlisted}


def test_strays_are_not_faults(tiny, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.s4()
    (root / "s4_data/gt_masks/train/dog/train-0_0/train-0_0_2.png").write_bytes(b"a second mask")
    assert main(["data", "check", str(root)]) == 0
    assert "train-0_0_2.png is in no list" in capsys.readouterr().out


@pytest.mark.slow
def test_long_list_is_shortened_only_on_the_screen(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.avss()
    for path in root.glob("v2/*/labels_semantic/*.png"):
        path.unlink()
    assert main(["data", "check", str(root)]) == 2
    shown = capsys.readouterr().out
    assert shown.count("every labelled frame needs a mask") == 20
    assert "… and 40 more lines: -o FILE writes all" in shown
    _, lines = wrong(capsys, root, tmp_path / "new" / "wrong.txt")
    assert len(lines) == 60
    assert f"… and 40 more lines: {tmp_path / 'new' / 'wrong.txt'}" not in lines


def test_verdict_lists_bad_and_good_data_sets(tiny, capsys: pytest.CaptureFixture[str]) -> None:
    (tiny.s4() / "s4_meta_data.csv").write_text("name,category\na,b\n")
    tiny.ms3()
    assert main(["data", "check", str(tiny.root)]) == 2
    captured = capsys.readouterr()
    assert "has no column 'split'" in captured.out
    assert "cannot be used as s4: 1 fault, see above" in captured.err
    assert captured.out.count("has no column") == 1
    assert "can be used (6 of 424 published clips): data: {name: ms3" in captured.err


def test_copies_are_titled_by_folder(tiny, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = tiny.ms3(), tiny.ms3().with_name("copy")
    shutil.copytree(one, other)
    (other / "ms3_meta_data.csv").write_text("video_id;split\na;train\n")
    assert main(["data", "check", str(tiny.root)]) == 2
    captured = capsys.readouterr()
    assert f"cannot be used as ms3 {other}: 1 fault" in captured.err
    title = captured.out.split("┏")[0].replace("\n", "").replace(" ", "")
    assert title == f"ms3{min(one, other)}"


def test_odd_size_is_listed_if_first_frame_is_missing(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.s4()
    frames = root / "s4_data/visual_frames/train/dog/train-0_0"
    (frames / "train-0_0_1.png").unlink()
    odd = frames / "train-0_0_2.png"
    Image.new("RGB", (9, 8)).save(odd)
    _, lines = wrong(capsys, root, tmp_path / "wrong.txt")
    assert lines[1:] == [f"{odd} is (9, 8) pixels, the frames of dog/train-0_0 are (48, 40)"]


def test_no_clips_in_any_split_is_one_fault(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.s4()
    (root / "s4_meta_data.csv").write_text("name,start_time,category,split\n")
    last, lines = wrong(capsys, root, tmp_path / "wrong.txt")
    assert last.endswith("cannot be used as s4: 1 fault, see above")
    assert lines[0] == f"{root} has no clips in any split"


def test_empty_split_is_listed(tiny, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.ms3()
    rows = [(f"{split}-{k}", split) for split in ("train", "test") for k in (0, 1)]
    tiny.table(root / "ms3_meta_data.csv", ("video_id", "split"), rows)
    assert main(["data", "check", str(root)]) == 0
    assert f"no val: no clips in the split 'val' of {root}" in capsys.readouterr().out


def test_missing_class_names_are_one_fault(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.avss()
    (root / "label2idx.json").unlink()
    _, lines = wrong(capsys, root, tmp_path / "wrong.txt")
    assert lines == [f"no {root}/label2idx.json: it names the classes, and is part of AVSBench-semantic"]


def test_unknown_layout_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere: give the folder of a data set"):
        check(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"s4 \(s4_meta_data.csv\).*; found nothing"):
        check(tmp_path)
    for k in range(9):
        (tmp_path / f"file{k}").touch()
    with pytest.raises(DataError, match=r"found file0, .*file7, …$"):
        check(tmp_path)


def test_unwritable_output_raises(tiny, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write .*wrong.txt: .*give another file"):
        check(tiny.ms3(), out=tmp_path / "file" / "wrong.txt", progress=False)


def test_strays_are_topmost_folders(tmp_path: Path) -> None:
    for path in ("a/known.png", "a/other.png", "b/c/d.png", ".hidden/x", "skip/y"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = strays(tmp_path, {tmp_path / "a/known.png"}, frozenset({"skip"}))
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/other.png", "b"]
