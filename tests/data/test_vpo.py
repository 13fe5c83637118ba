"""VPO: small copies of its three subsets with given masks, sounds and positions."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

import avseg
from avseg.cli import main
from avseg.data import build_dataset
from avseg.data.vpo import CATEGORIES, VPO, middle
from avseg.errors import ConfigError, DataError
from avseg.mel import log_mel_at

SPEC = """3 car 5 | 4 motorcycle 15 | 5 airplane 1 | 6 bus 4 | 16 bird 3 | 17 cat 6 | 18 dog 9 | 19 horse 12
| 20 sheep 17 | 21 cow 8 | 22 elephant 10 | 24 zebra 21 | 37 sports ball 19 | 41 skateboard 18 | 43 tennis racket 20
| 74 mouse 16 | 76 keyboard 13 | 77 cell phone 7 | 92 male 14 | 93 female 11 | 94 baby 2"""
COLUMNS = ("img_Id", "ann_Ids", "cateName", "cateId", "vgg_file", "split", "audio_pos", "multi_instance")
SIZE = (40, 48)
HELD_OUT, KEPT = (
    next(i for i in range(1, 99) if (crc32(str(i).encode()) % 10 == 0) == wanted) for wanted in (True, False)
)


def sweep(hertz: float, seconds: float, rate: int = 16_000) -> np.ndarray:
    """Return a tone that rises by 200 Hz per second, in 16 bits."""
    time = np.arange(round(seconds * rate)) / rate
    return np.round(9830 * np.sin(2 * np.pi * (hertz + 100 * time) * time)) / 32768


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, (samples * 32768).astype(np.int16))


def write_image(folder: Path, image: str, mask: str, numbers: Sequence[int], brightness: int = 100) -> None:
    """Write an image, and a mask of equal vertical stripes of these values."""
    for name in (folder / "data" / f"{image}.jpg", folder / "mask" / f"{mask}.png"):
        name.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1], (brightness, 50, 200)).save(folder / "data" / f"{image}.jpg", quality=95)
    labels = np.repeat(np.array([numbers], np.uint8), SIZE[1] // len(numbers), 1).repeat(SIZE[0], 0)
    Image.fromarray(labels).save(folder / "mask" / f"{mask}.png")


def write_table(root: Path, subset: str, rows: Sequence[Sequence[object]]) -> None:
    path = root / f"VPO/VPO-{subset.upper()}/vpo_{subset}_data_stereo.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write all three subsets; sounds of 5, 2 and 10 s, the second at 22.05 kHz."""
    sounds = tmp_path / "vggsound_bench/VGGSound/audios"
    write_wav(sounds / "low.wav", sweep(500, 5))
    write_wav(sounds / "short.wav", sweep(1500, 2, 22_050), 22_050)
    write_wav(sounds / "high.wav", sweep(4000, 10))
    ss, ms, msmi = (tmp_path / f"VPO/VPO-{part}" for part in ("SS", "MS", "MSMI"))
    for image, annotation, name, number in (
        (HELD_OUT, 70, "car", 3),
        (KEPT, 71, "cell phone", 77),
        (500, 72, "baby", 94),
    ):
        write_image(ss, f"{name}/{image:012d}", f"{name}/{image:012d}_{annotation:012d}", (0, number, 255))
    rows = [
        (HELD_OUT, 70, "car", 3, "low", "train", 0.25, 0),
        (KEPT, 71, "cell phone", 77, "short", "train", 0.5, 0),
        (500, 72, "baby", 94, "high", "val", 1.0, 0),
    ]
    write_table(tmp_path, "ss", rows)
    for image, numbers, brightness in ((KEPT, (3, 5, 0, 255), 100), (500, (5, 3), 120)):
        write_image(ms, f"{image:012d}", f"{image:012d}", numbers, brightness)
    rows = [
        (KEPT, 80, "car", 3, "low", "train", 0.25, 0),
        (500, 81, "car", 3, "low", "val", 0.5, 0),
        (KEPT, 82, "airplane", 5, "high", "train", 0.875, 0),
        (500, 83, "airplane", 5, "high", "val", 0, 0),
    ]
    write_table(tmp_path, "ms", rows)
    write_image(msmi, f"{77:012d}", f"{77:012d}", (18, 0, 18), 140)
    write_table(
        tmp_path, "msmi", [*rows, (77, 84, "dog", 18, "low", "train", 0, 1), (77, 85, "dog", 18, "low", "train", 1, 1)]
    )
    return tmp_path


def data(root: Path, subset: str, split: str = "train", **settings: object):
    return build_dataset("vpo", split, root=str(root), subset=subset, size=0, **settings)


def names(dataset: VPO) -> list[str]:
    return [dataset[i].names[0] for i in range(len(dataset))]


def test_classes_equal_the_paper_table():
    rows = [row.split() for row in SPEC.replace("\n", " ").split("|")]
    assert {int(number): (" ".join(name), int(label)) for number, *name, label in rows} == {
        number: (name, VPO.category_names.index(name)) for number, name in CATEGORIES.items()
    }
    assert len(VPO.category_names) == 22


def test_binary_task_has_one_class_and_same_masks(root):
    semantic, binary = (data(root, "ms", task=task) for task in ("semantic", "binary"))
    assert (semantic.class_names, semantic.classes) == (VPO.category_names, 22)
    assert (binary.class_names, binary.classes) == (("background", "sounding"), 1)
    assert (binary.category_names, binary.categories) == (VPO.category_names, 21)
    assert torch.equal(binary[0].target.masks, semantic[0].target.masks)


def test_ss_has_one_clip_per_annotation(root):
    ours = data(root, "ss")
    assert names(ours) == [f"car/{HELD_OUT:012d}_{70:012d}", f"cell phone/{KEPT:012d}_{71:012d}"]
    sample = ours[1]
    assert sample.clip.frames.shape == (1, 1, 3, *SIZE)
    assert sample.clip.audio.shape == (1, 1, 1, 96, 64)
    assert sample.target.masks[0, 0, 0, ::16].tolist() == [0, 7, 255]
    assert sample.target.labelled.all()
    assert data(root, "ss", "test")[0].target.masks.unique().tolist() == [0, 2, 255]


def test_rows_of_an_image_are_one_clip(root):
    ours = data(root, "ms")
    assert (len(ours), ours[0].names) == (1, [f"{KEPT:012d}"])
    assert len(data(root, "ms", "test")) == 1


def test_categories_are_renumbered_through_a_table(root):
    """Renumbering in place, 3 → 5 and then 5 → 1, would turn cars into aeroplanes."""
    assert data(root, "ms")[0].target.masks[0, 0, 0, ::12].tolist() == [5, 1, 0, 255]
    assert data(root, "ms", "test")[0].target.masks[0, 0, 0, ::24].tolist() == [1, 5]


def test_msmi_rows_without_multiple_instances_use_ms_files(root):
    ours = data(root, "msmi")
    assert names(ours) == [f"{KEPT:012d}", f"{77:012d}"]
    assert [entry.frames[0].parts[-3] for entry in ours.entries] == ["VPO-MS", "VPO-MSMI"]
    assert ours[1].target.masks[0, 0, 0, ::16].tolist() == [9, 0, 9]


def names_of(dataset: VPO) -> list[str]:
    """Without reading a file."""
    return [entry.name for entry in dataset.entries]


def sources() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the expected middle 3 s of the two sounds of image ``KEPT`` of VPO-MS."""
    low, high = sweep(500, 5)[16_000:64_000], sweep(4000, 10)[56_000:104_000]
    return torch.from_numpy(low).float(), torch.from_numpy(high).float()


@pytest.mark.parametrize(("patch", "moment"), [("first", 0.5), ("middle", 1.5), ("last", 2.5)])
def test_mono_is_the_sum_of_sources(root, patch, moment):
    expected = log_mel_at(sum(sources()), torch.tensor([moment]))
    audio = data(root, "ms", patch=patch)[0].clip.audio
    assert audio.shape == (1, 1, 1, 96, 64)
    torch.testing.assert_close(audio[0], expected, atol=1e-3, rtol=0)


def test_stereo_pans_each_source_before_the_sum(root):
    low, high = sources()
    left, right = 0.75 * low + 0.125 * high, 0.25 * low + 0.875 * high
    expected = torch.cat([log_mel_at(channel, torch.tensor([1.5])) for channel in (left, right)], 1)
    audio = data(root, "ms", audio="stereo")[0].clip.audio
    assert audio.shape == (1, 1, 2, 96, 64)
    torch.testing.assert_close(audio[0], expected, atol=1e-3, rtol=0)
    at_the_right = data(root, "ss", "test", audio="stereo")[0].clip.audio
    assert at_the_right[0, 0, 0].unique().tolist() == pytest.approx([np.log(0.01)])


def test_recordings_are_centre_cut_or_repeated():
    long, short = torch.arange(50_001.0), torch.arange(20_000.0)
    assert middle(long).equal(torch.arange(1000.0, 49_000.0))
    assert middle(short).equal(torch.cat([short, short, short[:8000]]))
    assert middle(torch.arange(48_000.0)).equal(torch.arange(48_000.0))


def test_cache_key_includes_settings(root, tmp_path):
    cache = str(tmp_path / "kept")
    first = data(root, "ms", cache=cache)[0].clip.audio
    other = data(root, "ms", cache=cache, patch="first")[0].clip.audio
    data(root, "ms", cache=cache, audio="stereo")[0]
    assert len(list((tmp_path / "kept").iterdir())) == 3
    assert data(root, "ms", cache=cache)[0].clip.audio.equal(first)
    assert not other.equal(first)


class TestValidation:
    def test_val_raises_by_default(self, root):
        with pytest.raises(DataError) as caught:
            len(data(root, "ss", "val"))
        assert "set validation (--data.validation) to holdout, a tenth of train, or to test" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_holdout_moves_images_from_train(self, root):
        train, val = (names(data(root, "ss", split, validation="holdout")) for split in ("train", "val"))
        assert (train, val) == ([f"cell phone/{KEPT:012d}_{71:012d}"], [f"car/{HELD_OUT:012d}_{70:012d}"])
        assert data(root, "ss", "train", validation="holdout").published is None

    def test_about_a_tenth_is_held_out(self):
        share = np.mean([crc32(str(i).encode()) % 10 == 0 for i in range(20_000)])
        assert share == pytest.approx(0.1, abs=0.01)

    def test_holdout_of_few_images_is_one(self, root):
        few = [i for i in range(1, 99) if crc32(str(i).encode()) % 10][:4]
        write_table(root, "ms", [(i, i, "car", 3, "low", "train", 0.5, 0) for i in few])
        train, val = (names_of(data(root, "ms", split, validation="holdout")) for split in ("train", "val"))
        held_out = min(few, key=lambda i: crc32(str(i).encode()))
        assert val == [f"{held_out:012d}"]
        assert train == [f"{i:012d}" for i in few if i != held_out]

    def test_test_split_as_validation(self, root):
        assert names(data(root, "ss", "val", validation="test")) == names(data(root, "ss", "test"))


def test_published_sizes():
    sizes = {
        s: [build_dataset("vpo", split, subset=s).published for split in ("train", "test")]
        for s in ("ss", "ms", "msmi")
    }
    assert sizes == {"ss": [11312, 890], "ms": [8380, 1437], "msmi": [11080, 1775]}
    assert build_dataset("vpo", "val").published is None
    assert build_dataset("vpo", "test", validation="holdout").published == 890


def test_recognised_by_tables(root):
    found = [{"root": str(root), "subset": s} for s in ("ss", "ms", "msmi")]
    assert VPO.recognise(root) == found
    assert VPO.recognise(root / "VPO") == found
    assert VPO.recognise(root / "vggsound_bench") == VPO.recognise(root / "VPO/VPO-SS") == []


def test_check_reads_all_subsets_and_lists_missing_files(root, capsys):
    assert main(["data", "check", str(root)]) == 0
    assert f"data: {{name: vpo, root: {root}, subset: msmi}}" in capsys.readouterr().out
    lost_sound(root)
    assert main(["data", "check", str(root)]) == 2
    out = capsys.readouterr().out
    assert "high.wav: every clip needs an audio file" in out


def test_check_reports_subsets_separately(root, capsys):
    lost_sound(root)
    assert main(["data", "check", str(root)]) == 2
    captured = capsys.readouterr()
    titles = [line.strip() for line in captured.out.splitlines() if line.strip().startswith("vpo")]
    assert titles == ["vpo ss", "vpo ms", "vpo msmi"]
    for subset, faults in (("ss", "1 fault"), ("ms", "1 fault"), ("msmi", "1 fault")):
        assert f"cannot be used as vpo {subset}: {faults}, see above" in captured.err
    assert captured.out.count("high.wav") == captured.out.count("no val: VPO has no val split") == 1


def test_check_reports_broken_table_once_and_no_strays(root, capsys):
    (root / "VPO/VPO-MS/vpo_ms_data_stereo.csv").write_text("a,b\n1,2\n")
    assert main(["data", "check", str(root)]) == 2
    captured = capsys.readouterr()
    assert "cannot be used as vpo ms: 1 fault, see above" in captured.err
    assert captured.out.count("has no column 'img_Id'") == 1
    assert "is in no list" not in captured.out


def test_check_reports_table_broken_for_one_split(root, capsys):
    off_the_stage(root)
    assert main(["data", "check", str(root)]) == 2
    captured = capsys.readouterr()
    assert "cannot be used as vpo ms: 1 fault" in captured.err
    assert "line 2: audio_pos" in captured.out


def lost_sound(root: Path) -> None:
    (root / "vggsound_bench/VGGSound/audios/high.wav").unlink()


def lost_mask(root: Path) -> None:
    (root / f"VPO/VPO-MS/mask/{KEPT:012d}.png").unlink()


def lost_table(root: Path) -> None:
    (root / "VPO/VPO-MS/vpo_ms_data_stereo.csv").unlink()


def strange_number(root: Path) -> None:
    write_image(root / "VPO/VPO-MS", f"{KEPT:012d}", f"{KEPT:012d}", (3, 1))


def off_the_stage(root: Path) -> None:
    write_table(root, "ms", [(KEPT, 80, "car", 3, "low", "train", 1.5, 0)])


def no_place(root: Path) -> None:
    write_table(root, "ms", [(KEPT, 80, "car", 3, "low", "train", "left", 0)])


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lost_sound, "high.wav: every clip needs an audio file"),
        (lost_mask, "every image needs a mask"),
        (lost_table, "vpo_ms_data_stereo.csv: set root"),
        (strange_number, "holds category 1, which VPO does not have"),
        (off_the_stage, "line 2: audio_pos must be 0 (left) to 1 (right), got '1.5'"),
        (no_place, "got 'left'"),
    ],
)
def test_bad_file_raises_one_line(root, change, hint):
    change(root)
    with pytest.raises(DataError) as caught:
        data(root, "ms")[0]
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("setting", "hint"), [("audio", "Choose from: mono, stereo"), ("subset", "ms, msmi, ss")])
def test_wrong_setting_raises(setting, hint):
    with pytest.raises(ConfigError, match=hint):
        build_dataset("vpo", "train", **{setting: "x"})


@pytest.mark.slow
@pytest.mark.parametrize("subset", ["ss", "ms", "msmi"])
@pytest.mark.parametrize("audio", ["mono", "stereo"])
def test_train_and_eval(root, subset, audio, tmp_path, capsys):
    words = f"--data vpo --data.root {root} --data.subset {subset} --data.size 64 --data.validation test"
    channels = f"--data.audio {audio} --model.stereo {str(audio == 'stereo').lower()}"
    small = "--model.visual pvt_v2_b0 --model.audio compact --model.train_audio true --model.channels 8"
    steps = "--train.max_steps 1 --train.batch_size 1 --train.workers 0 --train.accelerator cpu"
    assert main(f"train {words} {channels} {small} {steps} -o {tmp_path / 'run'}".split()) == 0
    report = tmp_path / "scores.json"
    assert main(["eval", str(tmp_path / "run/last"), "--split", "test", "--negatives", "false", "-o", str(report)]) == 0
    assert "1 clips, 1 frames" in capsys.readouterr().out
    assert json.loads(report.read_text())


def test_stereo_data_with_mono_model_raises(root, tmp_path, capsys):
    words = f"--data vpo --data.root {root} --data.audio stereo --data.size 64 --data.validation test"
    small = "--model.visual pvt_v2_b0 --model.audio compact --model.train_audio true --model.channels 8"
    assert main(f"train {words} {small} --train.batch_size 1 --train.workers 0 -o {tmp_path / 'run'}".split()) == 2
    assert "build it with stereo=True" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("subset", ["ss", "ms", "msmi"])
@pytest.mark.parametrize(
    ("model", "smaller"),
    [
        ("cpm_resnet50", "--model.queries 4 --model.layers 1 --model.pixel_layers 1 --model.points 64"),
        ("ama_ue_pvt_v2_b5", ""),
    ],
)
def test_recipes_train_on_subset(root, subset, model, smaller, tmp_path):
    recipe = Path(__file__).parents[2] / f"configs/{model}_vpo_{subset}.yaml"
    words = f"--config {recipe} --data.root {root} --data.size 64 --data.validation test --weights.visual null"
    small = "--model.visual resnet18 --model.audio compact --model.train_audio true --weights.audio null"
    small += " --model.channels 32"
    steps = "--train.max_steps 1 --train.batch_size 1 --train.workers 0 --train.accelerator cpu"
    assert main(f"train {words} {small} {smaller} {steps} -o {tmp_path / 'run'}".split()) == 0
    assert avseg.load(tmp_path / "run/last").config.stereo
