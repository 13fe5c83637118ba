"""Small models on disk, and a reader of image files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import avseg
from avseg.data import build_dataset
from avseg.model_folder import save


def _model(folder: Path, variant: str, **settings: object) -> Path:
    torch.manual_seed(0)
    data = {"name": "synthetic", "variant": variant, "size": 32, "frames": 2, "test": 5}
    dataset = build_dataset("synthetic", "test", variant=variant)
    config = {"visual": "resnet18", "audio": "compact", "train_audio": True, "channels": 16, **settings}
    model = avseg.build("pcmanet", dataset.classes, **config)
    return save(model, folder, data=data, class_names=dataset.class_names)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model of one class with a low threshold, which is confident in some pixels without training."""
    return _model(tmp_path_factory.mktemp("models") / "one", "ms3", confidence=0.51)


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model of several classes."""
    return _model(tmp_path_factory.mktemp("models") / "several", "avss")


@pytest.fixture(scope="session")
def without_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model without masks and without attention."""
    return _model(tmp_path_factory.mktemp("models") / "plain", "ms3", avga=False, select=False)


@pytest.fixture
def pixels() -> Callable[[Path], NDArray[np.uint8]]:
    """Read an image file, (H, W, 3)."""

    def read(path: Path) -> NDArray[np.uint8]:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))

    return read
