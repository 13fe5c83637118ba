"""The base class of data sets on disk, with a minimal subclass."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avseg.data._file_dataset import Entry, FileConfig, FileDataset, Labels, check_labels
from avseg.data._masks import read_binary
from avseg.errors import DataError
from avseg.interface import IGNORE


class Pairs(FileDataset):
    """Two frames and one audio file; only the second frame has a mask."""

    @dataclass(frozen=True)
    class Config(FileConfig):
        """No further settings."""

    class_names = ("background", "sounding")

    def find(self) -> list[Entry]:
        root = self.root
        return [Entry("a/b", (root / "0.png", root / "1.png"), (None, root / "mask.png"), (root / "sound.wav",))]

    def labels(self, path: Path) -> Labels:
        return read_binary(path)


@pytest.fixture
def root(tiny, tmp_path: Path) -> Path:
    for k in range(2):
        tiny.picture(tmp_path / f"{k}.png", np.full((30, 40, 3), 50 * k))
    tiny.picture(tmp_path / "mask.png", np.eye(30, 40))
    tiny.sound(tmp_path / "sound.wav", 0.2 * np.sin(np.arange(32_000) * 0.1))
    return tmp_path


def pairs(root: Path, **settings) -> Pairs:
    return Pairs(Pairs.Config(root=str(root), **{"size": 0, **settings}), "val")


def test_sample_of_files(root: Path) -> None:
    ours = pairs(root)
    sample = ours[0]
    assert (len(ours), sample.names) == (1, ["a/b"])
    assert sample.clip.frames.shape == (1, 2, 3, 30, 40)
    assert sample.clip.audio.shape == (1, 2, 1, 96, 64)
    assert sample.target.labelled.tolist() == [[False, True]]
    assert torch.equal(sample.target.masks[0, 1], torch.eye(30, 40).long())
    with pytest.raises(IndexError, match="clip 1 of 1"):
        ours[1]


def test_unlabelled_frames_have_the_size_of_labelled_ones(root: Path) -> None:
    masks = pairs(root, size=16, original_masks=True)[0].target.masks
    assert masks.shape == (1, 2, 30, 40)
    assert not masks[0, 0].any()


def test_parts_of_a_clip_are_read_separately(root: Path) -> None:
    ours = pairs(root)
    (root / "1.png").unlink()
    read = {(part.kind, part.path.name): part for part in ours.parts(ours.entries[0])}
    with pytest.raises(DataError, match=r"no .*1.png: every frame needs an image"):
        read["frames", "1.png"].read(root / "1.png")
    sizes = {key: part.read(part.path) for key, part in read.items() if key != ("frames", "1.png")}
    assert sizes == {("frames", "0.png"): (40, 30), ("masks", "mask.png"): (40, 30), ("sounds", "sound.wav"): None}


def test_label_without_class_raises(root: Path) -> None:
    labels = np.array([[0, 2, IGNORE]])
    assert check_labels(labels, root / "m.png", 3, "the list") is labels
    with pytest.raises(DataError, match=r"m.png holds label 2, but the list names 2 classes"):
        check_labels(labels, root / "m.png", 2, "the list")
    empty = np.full((2, 2), IGNORE)
    assert check_labels(empty, root / "m.png", 1, "the list") is empty


def test_mask_of_another_size_raises(root: Path) -> None:
    Image.new("L", (40, 29)).save(root / "mask.png")
    with pytest.raises(DataError, match=r"mask.png is \(40, 29\) pixels, its frame is \(40, 30\)"):
        pairs(root)[0]
