import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from avseg.data import build_dataset
from avseg.data._log_mel import consecutive
from avseg.errors import ConfigError, DataError
from avseg.media.images import denormalise
from avseg.media.sound import read_sound
from avseg.mel import log_mel_at


@pytest.fixture
def root(tiny) -> Path:
    return tiny.s4()


def data(root: Path, split: str = "val", **settings):
    return build_dataset("s4", split, root=str(root), **{"size": 0, **settings})


def drawn(split: str, number: int):
    return build_dataset("synthetic", split, variant="s4", size=(40, 48)).scene(number)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_clips_are_listed_in_table(root: Path, split: str) -> None:
    ours = data(root, split)
    assert [entry.name for entry in ours.entries] == [f"dog/{split}-0_0", f"cat/{split}-1_1"]
    assert (ours.classes, ours.class_names) == (1, ("background", "sounding"))
    sample, scene = ours[1], drawn(split, 1)
    assert sample.names == [f"cat/{split}-1_1"]
    assert (denormalise(sample.clip.frames[0]).numpy() == scene.frames).all()
    truth = torch.from_numpy(scene.masks > 0).long()
    first = split == "train"
    assert sample.target.labelled.tolist() == [[True] + [not first] * 4]
    assert torch.equal(sample.target.masks[0, :1] if first else sample.target.masks[0], truth[:1] if first else truth)


def test_categories_setting_labels_masks_by_category(tiny, root: Path) -> None:
    tiny.table(
        root / "s4_meta_data.csv",
        ("name", "start", "category", "split"),
        [("val-0_0", 0, "dog", "val"), ("val-1_1", 0, "cat", "val"), ("x", 0, "ambulance", "train")],
    )
    named, plain = data(root, categories=True), data(root)
    assert (named.class_names, named.classes) == (("background", "sounding"), 1)
    assert (named.category_names, named.categories) == (("background", "ambulance", "cat", "dog"), 3)
    assert (plain.category_names, plain.categories) == (("background", "sounding"), 1)
    for index, label in enumerate((3, 2)):
        assert torch.equal(named[index].target.masks, label * plain[index].target.masks)
        assert plain[index].target.masks.max() == 1
        assert named[index].names == plain[index].names
        assert torch.equal(named[index].clip.audio, plain[index].clip.audio)


def test_patches_are_consecutive_or_centred(root: Path) -> None:
    path = root / "s4_data/audio_wav/val/dog/val-0_0.wav"
    waveform = torch.from_numpy(read_sound(path))
    assert torch.equal(data(root)[0].clip.audio[0], consecutive(waveform, 5, "last", path))
    times = torch.tensor([15, 31, 47, 63, 79]) / 16
    assert torch.equal(data(root, audio="wav_centred")[0].clip.audio[0], log_mel_at(waveform, times))


def test_pickles_equal_log_mel_of_audio(root: Path) -> None:
    wav = data(root)[0].clip.audio
    path = root / "s4_data/audio_log_mel/val/dog/val-0_0.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(wav[0, :3].clone().requires_grad_()))
    assert torch.equal(data(root, audio="pkl")[0].clip.audio, wav[:, [0, 1, 2, 2, 2]])
    with pytest.raises(DataError, match=r"no .*val-1_1.pkl"):
        data(root, audio="pkl")[1]


def test_cached_log_mel_is_equal(root: Path, tmp_path: Path) -> None:
    plain, cached = data(root), data(root, cache=str(tmp_path / "cache"))
    for _ in range(2):
        assert torch.equal(cached[1].clip.audio, plain[1].clip.audio)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    centred = data(root, cache=str(tmp_path / "cache"), audio="wav_centred")
    assert not torch.equal(centred[1].clip.audio, plain[1].clip.audio)


@pytest.mark.parametrize("stored", ["L 0 1", "1", "RGB"])
def test_masks_of_any_png_are_equal(root: Path, stored: str) -> None:
    before = data(root)[0].target.masks
    for path in root.glob("s4_data/gt_masks/**/*.png"):
        mask = Image.open(path)
        (mask.point(lambda v: v // 255) if stored == "L 0 1" else mask.convert(stored)).save(path)
    assert torch.equal(data(root)[0].target.masks, before)


def test_frames_of_the_original_resolution_have_the_same_masks(root: Path) -> None:
    small = data(root)[0]
    for path in root.glob("s4_data/visual_frames/**/*.png"):
        large = Path(str(path).replace("visual_frames", "visual_frames_original_resolution"))
        large.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((192, 80), Image.Resampling.NEAREST).save(large)
    settings = {"frames": "visual_frames_original_resolution"}
    wide = data(root, **settings)[0]
    assert wide.clip.frames.shape[-2:] == wide.target.masks.shape[-2:] == (80, 192)
    assert torch.equal(wide.target.masks[..., ::2, ::4], small.target.masks)
    both = data(root, size=32, original_masks=True, **settings)[0]
    assert both.clip.frames.shape[-2:] == (32, 32)
    assert torch.equal(both.target.masks, small.target.masks)


def test_original_masks_only_in_evaluation(root: Path) -> None:
    settings = {"size": 32, "original_masks": True}
    for split, shape in (("train", (32, 32)), ("val", (40, 48)), ("test", (40, 48))):
        sample = data(root, split, **settings)[0]
        assert sample.clip.frames.shape[-2:] == (32, 32)
        assert sample.target.masks.shape[-2:] == shape
    with pytest.raises(ConfigError, match="original_masks needs whole frames"):
        data(root, resize="crop", **settings)


def test_resize_crop_and_native(root: Path) -> None:
    native = data(root, resize="native", size=32)[0]
    assert native.clip.frames.shape[-2:] == native.target.masks.shape[-2:] == (40, 48)
    crop = data(root, resize="crop", size=40)[0]
    assert torch.equal(crop.clip.frames, native.clip.frames[..., 4:44])
    assert torch.equal(crop.target.masks, native.target.masks[..., 4:44])
    squash = data(root, size=(20, 24))[0]
    assert squash.clip.frames.shape[-2:] == squash.target.masks.shape[-2:] == (20, 24)
    assert set(squash.target.masks.unique().tolist()) == {0, 1}


VIDEO = "s4_data/{}/val/dog/val-0_0"


def remove(kind: str):
    return lambda root: (root / VIDEO.format(kind)).with_suffix(".wav").unlink()


def break_mask(root: Path) -> None:
    (root / VIDEO.format("gt_masks") / "val-0_0_3.png").write_bytes(b"\x89PNG")


def shrink_mask(root: Path) -> None:
    Image.new("L", (5, 7)).save(root / VIDEO.format("gt_masks") / "val-0_0_3.png")


def no_frame(root: Path) -> None:
    (root / VIDEO.format("visual_frames") / "val-0_0_5.png").unlink()


def odd_frame(root: Path) -> None:
    for kind in ("visual_frames", "gt_masks"):
        Image.new("RGB", (5, 7)).save(root / VIDEO.format(kind) / "val-0_0_5.png")


def long_sound(root: Path) -> None:
    path = (root / VIDEO.format("audio_wav")).with_suffix(".wav")
    path.write_bytes(wav_of(np.zeros(10 * 16_000, np.int16)))


def empty_sound(root: Path) -> None:
    (root / VIDEO.format("audio_wav")).with_suffix(".wav").write_bytes(wav_of(np.zeros(0, np.int16)))


def wav_of(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    wavfile.write(file, 16_000, samples)
    return file.getvalue()


def no_table(root: Path) -> None:
    (root / "s4_meta_data.csv").unlink()


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (remove("audio_wav"), "val-0_0.wav: every clip needs an audio file"),
        (break_mask, "val-0_0_3.png as a mask"),
        (shrink_mask, "val-0_0_3.png is (5, 7) pixels, its frame is (48, 40)"),
        (no_frame, "val-0_0_5.png: every frame needs an image"),
        (odd_frame, "the frames of dog/val-0_0 differ in size"),
        (long_sound, "val-0_0.wav holds 10 patches of 0.96 s, the clip has 5 frames"),
        (empty_sound, "val-0_0.wav has no samples"),
        (no_table, "s4_meta_data.csv: set root (--data.root) to the folder that holds s4_meta_data.csv"),
    ],
)
def test_bad_file_raises_one_line(root: Path, change, hint: str) -> None:
    change(root)
    with pytest.raises(DataError) as caught:
        data(root)[0]
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"audio": "wave"}, "audio = 'wave' does not exist. Did you mean 'wav'"),
        ({"resize": "stretch"}, "resize = 'stretch' does not exist. Choose from: crop, native, squash"),
        ({"frames": "frames"}, "frames = 'frames' does not exist"),
        ({"size": -1}, "size must be 0 (as stored) or more, got -1"),
    ],
)
def test_wrong_setting_raises(root: Path, settings: dict[str, object], hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        data(root, **settings)
    assert hint in str(caught.value)


def test_constructor_reads_no_file_and_empty_split_raises(tiny, root: Path) -> None:
    assert data(root / "nowhere").published == 740
    tiny.table(root / "s4_meta_data.csv", ("name", "start", "category", "split"), [("a", 0, "dog", "train")])
    with pytest.raises(DataError, match="no clips in the split 'val' of"):
        len(data(root))
