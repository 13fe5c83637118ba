import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avseg.data import build_dataset, collate
from avseg.data.synthetic import KINDS
from avseg.errors import ConfigError, DataError
from avseg.interface import IGNORE, Prediction
from avseg.media.images import denormalise
from avseg.metrics import AVSBenchSemantic


@pytest.fixture(scope="module")
def shared(shared_tiny) -> Path:
    """Return the folder of a data set for the tests that change no file of it."""
    return shared_tiny.avss()


@pytest.fixture
def root(tiny) -> Path:
    """Return the folder of a data set of the test."""
    return tiny.avss()


def data(root: Path, split: str = "val", **settings):
    return build_dataset("avss", split, root=str(root), **{"size": 0, **settings})


def test_class_names_read_from_file(root: Path) -> None:
    names = ("background", *(kind.name for kind in KINDS))
    assert (data(root).class_names, data(root).classes) == (names, 13)
    path = root / "label2idx.json"
    path.write_text(json.dumps({name: k + 1 for k, name in enumerate(names)}))  # numbered as in DDESeg
    assert data(root).class_names == names


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (None, "label2idx.json: it names the classes"),
        ("[1]", 'must hold {"background": 0, "accordion": 1, …}, got a list'),
        ("{", "cannot read"),
        ('{"background": 0, "dog": 2}', "from 0 (or 1) on without a gap, got [0, 2]"),
        ('{"background": 0}', "got [0]"),
        ('{"background": 0, "dog": "x"}', "cannot read"),
    ],
)
def test_class_file_not_valid_raises(root: Path, text: str | None, hint: str) -> None:
    path = root / "label2idx.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as caught:
        len(data(root).class_names)
    assert hint in str(caught.value)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_colour_and_index_masks_give_equal_labels(shared: Path, split: str) -> None:
    numbers, colours = (data(shared, split, masks=masks) for masks in ("labels_semantic", "labels_rgb"))
    assert len(numbers) == 6
    for a, b in zip(numbers, colours, strict=True):
        assert torch.equal(a.target.masks, b.target.masks)
        assert a.target.masks.dtype == torch.int64
    scene = build_dataset("synthetic", split, variant="avss", size=(40, 48), frames=10).scene(1)
    assert np.array_equal(numbers[5].target.masks[0], scene.masks)
    assert len(np.unique(scene.masks)) > 1


def test_short_clip_padded_as_released(shared: Path) -> None:
    sample, bare = data(shared)[0], data(shared, pad=0)[0]
    assert sample.names == bare.names == ["v1s/v1s-val-0"]
    assert bare.clip.frames.shape[1] == 5
    assert torch.equal(sample.clip.frames[:, :5], bare.clip.frames)
    assert sample.clip.valid.tolist() == [[True] * 5 + [False] * 5]
    assert sample.target.labelled.tolist() == [[True] * 5 + [False] * 5]
    for added in (sample.clip.frames[:, 5:], sample.clip.audio[:, 5:], sample.target.masks[:, 5:]):
        assert added.shape[1] == 5
        assert not added.any()  # frames: grey, not black; sound: 0, not silence
    assert denormalise(sample.clip.frames)[0, 9, 0, 0].tolist() == [124, 116, 104]


def test_ten_seconds_are_not_padded(shared: Path) -> None:
    sample = data(shared)[4]
    assert sample.names == ["v2/v2-val-0"]
    assert sample.clip.valid.all()
    assert sample.clip.valid.shape == (1, 10)


@pytest.mark.parametrize(("split", "v1s", "v1m"), [("train", 1, 5), ("val", 5, 5), ("test", 5, 5)])
def test_frames_with_a_mask_are_labelled(shared: Path, split: str, v1s: int, v1m: int) -> None:
    assert [int(s.target.labelled.sum()) for s in data(shared, split)] == [v1s, v1s, v1m, v1m, 10, 10]


def test_padding_scored_only_by_its_protocol(shared: Path) -> None:
    sample = data(shared)[0]
    truth = torch.nn.functional.one_hot(sample.target.masks, 13).movedim(-1, 2).float()
    wrong = truth.clone()
    wrong[:, 5:, 1] = 9.0  # predicts accordions in padding frames
    for padded, worse in ((False, 0.0), (True, 1e-6)):
        scores = []
        for logits in (truth, wrong):
            protocol = AVSBenchSemantic(13, include_padded=padded)
            protocol.update(Prediction(logits), sample.target, sample.clip.valid)
            scores.append(float(protocol.compute()["miou"]))
        assert (scores[0] - scores[1] > worse) == padded


def test_resize_crops_train_and_squashes_others(shared: Path) -> None:
    frames = {split: data(shared, split, resize="native", pad=0)[4].clip.frames for split in ("train", "test")}
    assert torch.equal(data(shared, "train", size=40)[4].clip.frames, frames["train"][..., 4:44])
    squashed = data(shared, "test", size=40)[4].clip.frames
    assert torch.allclose(squashed.mean(), frames["test"].mean(), atol=0.02)
    assert not torch.equal(squashed, frames["test"][..., 4:44])
    assert torch.equal(data(shared, "test", size=40, resize="crop")[4].clip.frames, frames["test"][..., 4:44])


def test_original_masks_of_padded_clip(root: Path) -> None:
    sample = data(root, size=32, original_masks=True)[0]
    assert sample.clip.frames.shape == (1, 10, 3, 32, 32)
    assert sample.target.masks.shape == (1, 10, 40, 48)
    Image.new("L", (64, 64)).save(root / "v1m/v1m-val-0/frames/0.jpg")
    for k in range(5):
        for kind, suffix in (("frames", "jpg"), ("labels_semantic", "png")):
            Image.new("L", (64, 64)).save(root / f"v1m/v1m-val-0/{kind}/{k}.{suffix}")
    ours = data(root, size=32, original_masks=True)
    assert collate([ours[0], ours[1]]).target.masks.shape == (2, 10, 40, 48)
    with pytest.raises(DataError, match=r"masks of one batch .* v1s/v1s-val-0 \(40, 48\), v1m.*: set batch_size 1"):
        collate([ours[0], ours[2]])


@pytest.mark.parametrize(("subsets", "clips"), [(("v2",), 2), (("v1s", "v1m"), 4), (["v1m"], 2)])
def test_subsets_are_chosen_by_name(shared: Path, subsets, clips: int) -> None:
    ours = data(shared, subsets=subsets)
    assert len(ours) == clips
    assert {entry.name.partition("/")[0] for entry in ours.entries} == set(subsets)


def test_binary_task_has_one_class_and_same_masks(shared: Path) -> None:
    semantic, binary = (data(shared, subsets=("v1m",), pad=0, task=task) for task in ("semantic", "binary"))
    assert (binary.class_names, binary.classes) == (("background", "sounding"), 1)
    assert binary.category_names == semantic.category_names == semantic.class_names
    assert binary.categories == semantic.categories == len(KINDS)
    for ours, theirs in zip(binary, semantic, strict=True):
        assert torch.equal(ours.target.masks, theirs.target.masks)
        assert torch.equal(ours.target.labelled, theirs.target.labelled)
    assert max(int(sample.target.masks.max()) for sample in binary) > 1


@pytest.mark.parametrize("masks", ["labels_semantic", "labels_rgb"])
def test_label_255_is_not_scored(root: Path, masks: str) -> None:
    path = root / "v2/v2-val-0" / masks / "3.png"
    mask = np.array(Image.open(path))
    mask[:4] = 255 if masks == "labels_semantic" else (224, 224, 192)
    Image.fromarray(mask).save(path)
    assert (data(root, masks=masks)[4].target.masks[0, 3, :4] == IGNORE).all()


def test_label_or_colour_without_class_raises(root: Path) -> None:
    Image.new("L", (48, 40), 13).save(root / "v2/v2-val-0/labels_semantic/3.png")
    with pytest.raises(DataError, match=r"3.png holds label 13, but label2idx.json names 13 classes"):
        data(root)[4]
    Image.new("RGB", (48, 40), (1, 2, 3)).save(root / "v2/v2-val-0/labels_rgb/3.png")
    with pytest.raises(DataError, match=r"3.png has the colour \(1, 2, 3\)"):
        data(root, masks="labels_rgb")[4]
    assert not data(root, masks="labels_rgb", unknown_colours="background")[4].target.masks[0, 3].any()


def test_short_audio_padded_with_zeros(tiny, root: Path) -> None:
    tiny.sound(root / "v1m/v1m-val-0/audio.wav", 0.1 * np.ones(3 * 16_000))
    audio = data(root)[2].clip.audio[0]
    assert audio[:3].all()
    assert not audio[3:].any()


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"subsets": ("v3",)}, "subsets of AVSS must be list of 'v1s', 'v1m', 'v2', got ('v3',)"),
        ({"subsets": ()}, "v1s, v1m, v2, got []"),
        ({"audio": "pkl"}, "audio = 'pkl' does not exist"),
        ({"resize": "released"}, "resize = 'released' does not exist. Did you mean 'as_released'"),
        ({"task": "binari"}, "task = 'binari' does not exist. Did you mean 'binary'"),
        ({"pad": -1}, "pad must be 0 (no padding) or more frames, got -1"),
    ],
)
def test_wrong_setting_raises(shared: Path, settings: dict[str, object], hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        data(shared, **settings)
    assert hint in str(caught.value)


def test_published_sizes(shared: Path) -> None:
    assert [data(shared, split).published for split in ("train", "val", "test")] == [8498, 1304, 1554]
    assert data(shared, "train", subsets=("v1s", "v1m")).published == 3748


def test_row_of_unknown_subset_raises(tiny, root: Path) -> None:
    tiny.table(root / "metadata.csv", ("uid", "split", "label"), [("a", "val", "v9")])
    with pytest.raises(DataError, match=r"metadata.csv, line 2: label must be v1s, v1m or v2, got 'v9'"):
        len(data(root))
