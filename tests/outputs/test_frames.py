import numpy as np
import pytest
from PIL import Image

from .conftest import SIZE, picture


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_every_frame_is_an_image(make_clip, tmp_path, suffix):
    folder = make_clip().save(tmp_path / "out", {"frames": {"format": suffix}})
    files = sorted((folder / "frames").iterdir())
    assert [file.name for file in files] == [f"{k:06d}.{suffix}" for k in range(5)]
    with Image.open(files[2]) as image:
        difference = np.abs(np.asarray(image, int) - picture(2, SIZE))
    assert difference.mean() < (1e-9 if suffix == "png" else 6)
