import numpy as np
import pytest
from PIL import Image

from avseg.errors import DataError
from avseg.media.images import fitted, read_labels, read_picture

NEAREST = Image.Resampling.NEAREST


def stripes(height: int, width: int) -> Image.Image:
    """Return an image with its column index as value."""
    return Image.fromarray(np.tile(np.arange(width, dtype=np.uint8), (height, 1)))


def test_squash_resizes_whole_image() -> None:
    small = np.asarray(fitted(stripes(20, 60), (20, 30), "squash", NEAREST))
    assert small.shape == (20, 30)
    assert small[0, 0] < 2
    assert small[0, -1] > 57


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20), (41, 77), (224, 225)])
def test_crop_is_centred_and_covers_size(height: int, width: int) -> None:
    cut = np.asarray(fitted(stripes(height, width), (10, 10), "crop", NEAREST))
    assert cut.shape == (10, 10)
    middle, span = (int(cut[0, 0]) + int(cut[0, -1])) / 2, int(cut[0, -1]) - int(cut[0, 0])
    assert abs(middle - (width - 1) / 2) <= max(width, height) / 20
    assert abs(span - 0.9 * min(height, width)) <= min(height, width) / 10


@pytest.mark.parametrize(("size", "resize"), [((0, 0), "squash"), ((10, 10), "native")])
def test_native_returns_image_unchanged(size: tuple[int, int], resize) -> None:
    picture = stripes(7, 9)
    assert fitted(picture, size, resize, NEAREST) is picture


@pytest.mark.parametrize("read", [read_labels, read_picture])
@pytest.mark.parametrize("length", [b"\x00\x00\x00\x03", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff"])
def test_png_with_a_damaged_header_raises(tmp_path, read, length):
    path = tmp_path / "a.png"
    Image.new("L", (4, 4)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:8] + length + content[12:])
    with pytest.raises(DataError, match=r"cannot read .*a\.png as"):
        read(path)
