from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avseg.data import build_dataset
from avseg.media.images import denormalise


@pytest.fixture
def root(tiny) -> Path:
    return tiny.ms3()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_all_frames_are_labelled_in_every_split(root: Path, split: str) -> None:
    ours = build_dataset("ms3", split, root=str(root), size=0)
    assert [entry.name for entry in ours.entries] == [f"{split}-0", f"{split}-1"]
    scene = build_dataset("synthetic", split, variant="ms3", size=(40, 48)).scene(1)
    sample = ours[1]
    assert (denormalise(sample.clip.frames[0]).numpy() == scene.frames).all()
    assert torch.equal(sample.target.masks[0], torch.from_numpy(scene.masks > 0).long())  # stored as 0 and 1
    assert sample.target.labelled.all()
    assert sample.clip.valid.all()


def test_colour_masks_are_binary(root: Path) -> None:
    before = build_dataset("ms3", "val", root=str(root))[0].target.masks
    for path in root.glob("ms3_data/gt_masks/**/*.png"):
        white = 255 * np.asarray(Image.open(path))
        Image.fromarray(np.stack([white] * 3, 2)).save(path)
    assert torch.equal(build_dataset("ms3", "val", root=str(root))[0].target.masks, before)


def test_pickles_are_found_in_released_layout(root: Path) -> None:
    (entry, _) = build_dataset("ms3", "test", root=str(root), audio="pkl").entries
    assert entry.sounds == (root / "ms3_data/audio_log_mel/test/test-0.pkl",)


def test_published_sizes() -> None:
    assert [build_dataset("ms3", split).published for split in ("train", "val", "test")] == [296, 64, 64]
