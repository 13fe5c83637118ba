import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avseg.data import build_dataset, collate
from avseg.errors import ConfigError, DataError
from avseg.media.images import denormalise
from avseg.mel import log_mel_at


def write_sound(path: Path, samples: np.ndarray, rate: int = 16000, channels: int = 1) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())


def write_clip(folder: Path, frames: int = 2, size=(20, 30), masks: int | None = None) -> Path:
    height, width = size
    for name in ("frames", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for k in range(frames):
        Image.new("RGB", (width, height), (10 * k, 200, 30)).save(folder / "frames" / f"{k}.png")
    for k in range(frames if masks is None else masks):
        labels = np.zeros(size, np.uint8)
        labels[:5, :10], labels[10:15, :10], labels[-1] = 1, 2, 255
        Image.fromarray(labels).save(folder / "masks" / f"{k}.png")
    write_sound(folder / "audio.wav", 0.3 * np.sin(np.arange(frames * 16000) * 0.2))
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": ["background", "dog", "cat"], "variant": "avss"}))
    write_clip(tmp_path / "train" / "a")
    write_clip(tmp_path / "train" / "b", frames=3, masks=1)
    return tmp_path


def data(root, split="train", **settings):
    return build_dataset("folder", split, root=str(root), **settings)


def test_stored_files_are_read_unchanged(root):
    ours = data(root, size=0)
    assert ours.class_names == ("background", "dog", "cat")
    assert len(ours) == 2
    sample = ours[0]
    assert sample.names == ["train/a"]
    assert denormalise(sample.clip.frames)[0, 1, 0, 0].tolist() == [10, 200, 30]
    assert sample.target.masks.shape == (1, 2, 20, 30)
    assert sample.target.masks.unique().tolist() == [0, 1, 2, 255]
    tone = torch.from_numpy((0.3 * np.sin(np.arange(32000) * 0.2)).astype(np.float32))
    assert torch.allclose(sample.clip.audio[0], log_mel_at(tone, torch.tensor([0.5, 1.5])), atol=0.2)  # 16 bits


@pytest.mark.parametrize("variant", ["ms3", "s4"])
def test_one_class_merges_all_labels(root, variant):
    ours = data(root, variant=variant, size=0)
    assert ours.class_names == ("background", "sounding")
    sample = ours[0]
    assert sample.target.masks.unique().tolist() == [0, 1, 255]
    assert sample.target.labelled.tolist() == [[True, variant == "ms3"]]


def test_frame_without_mask_is_unlabelled(root):
    assert data(root)[1].target.labelled.tolist() == [[True, False, False]]


@pytest.mark.parametrize(("size", "shape"), [(24, (24, 24)), ((12, 40), (12, 40))])
def test_frames_and_masks_are_resized(root, size, shape):
    write_clip(root / "train" / "c", size=(50, 11))
    ours = data(root, size=size)
    batch = collate([ours[0], ours[1], ours[2]])
    assert batch.target.masks.shape == (3, 3, *shape)
    assert set(batch.target.masks.unique().tolist()) <= {0, 1, 2, 255}
    assert batch.clip.valid.tolist() == [[True, True, False], [True, True, True], [True, True, False]]


def test_stereo_of_any_rate_is_read(root):
    time = np.arange(2 * 44100) / 44100
    both = np.stack([0.4 * np.sin(2 * np.pi * 1000 * time), np.zeros_like(time)], 1)
    write_sound(root / "train" / "a" / "audio.wav", both, rate=44100, channels=2)
    mono = torch.from_numpy(0.2 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000)).float()
    mel, expected = data(root)[0].clip.audio[0], log_mel_at(mono, torch.tensor([0.5, 1.5]))
    assert mel.mean((0, 1, 2)).argmax() == expected.mean((0, 1, 2)).argmax()
    assert abs(float(mel.max() - expected.max())) < 0.01


def test_constructor_reads_no_file(tmp_path):
    assert data(tmp_path / "nowhere").split == "train"


def no_card(root):
    (root / "dataset.json").unlink()


def bad_json(root):
    (root / "dataset.json").write_text("{")


def no_names(root):
    (root / "dataset.json").write_text('{"variant": "avss"}')


def bad_variant(root):
    (root / "dataset.json").write_text('{"class_names": ["background", "dog"], "variant": "x"}')


def no_sound(root):
    (root / "train" / "a" / "audio.wav").unlink()


def no_frames(root):
    for path in (root / "train" / "a" / "frames").iterdir():
        path.unlink()


def gap(root):
    (root / "train" / "a" / "frames" / "0.png").unlink()


def other_size(root):
    Image.new("L", (5, 5)).save(root / "train" / "a" / "masks" / "0.png")


def high_label(root):
    Image.new("L", (30, 20), 9).save(root / "train" / "a" / "masks" / "0.png")


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (no_card, "dataset.json: give the folder"),
        (bad_json, "cannot read"),
        (no_names, '"class_names"'),
        (bad_variant, "got 'x'"),
        (no_sound, "audio.wav: every clip needs an audio file"),
        (no_frames, "0.jpg: frames are numbered from 0 on"),
        (gap, "0.jpg: frames are numbered from 0 on"),
        (other_size, "0.png is (5, 5) pixels"),
        (high_label, "holds label 9, but dataset.json names 3"),
    ],
)
def test_bad_file_raises_one_line(root, change, hint):
    change(root)
    with pytest.raises(DataError) as caught:
        data(root)[0]
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_setting_raises_one_line(root):
    with pytest.raises(DataError, match="no clips in"):
        len(data(root, "val"))
    with pytest.raises(DataError, match="Set root"):
        len(build_dataset("folder", "train"))
    with pytest.raises(ConfigError, match="got 'x'"):
        data(root, variant="x")
    with pytest.raises(ConfigError, match="0 \\(as stored\\) or more"):
        data(root, size=-1)
    with pytest.raises(IndexError, match="clip 2 of 2"):
        data(root)[2]
    write_clip(root / "train" / "a", frames=1, size=(8, 8))
    with pytest.raises(DataError, match="differ in size"):
        data(root, size=0)[0]
