from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avseg.data._masks import palette_colours, read_binary, read_colours
from avseg.errors import DataError

TRUTH = np.zeros((6, 8), np.uint8)
TRUTH[1:4, 2:7] = 1


def rgb(ink: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(TRUTH[..., None] * np.array(ink, np.uint8))


def palette() -> Image.Image:
    """Index 1, black: lost in Pillow's conversion to grey."""
    picture = Image.fromarray(TRUTH)
    picture.putpalette([0] * 768)
    return picture


def transparent() -> Image.Image:
    """Opaque everywhere: alpha is not foreground."""
    return rgb((255, 255, 255)).convert("RGBA")


STORED = {
    "black and white": Image.fromarray(TRUTH * 255).convert("1"),
    "grey 0 and 1": Image.fromarray(TRUTH),
    "grey 0 and 255": Image.fromarray(TRUTH * 255),
    "a soft edge": Image.fromarray(TRUTH * 100),
    "palette": palette(),
    "white": rgb((255, 255, 255)),
    "dark blue": rgb((0, 0, 1)),
    "transparent": transparent(),
    "grey and alpha": transparent().convert("LA"),
    "16 bits": Image.fromarray(TRUTH.astype(np.uint16) * 256),
}


@pytest.mark.parametrize("kind", STORED)
def test_binary_mask_is_nonzero_for_any_png(tmp_path: Path, kind: str) -> None:
    STORED[kind].save(tmp_path / "m.png")
    labels = read_binary(tmp_path / "m.png")
    assert labels.dtype == np.int64
    assert (labels == TRUTH).all()


def test_palette_equals_the_release() -> None:
    colours = palette_colours()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0)}
    known |= {63: (192, 192, 192), 64: (32, 0, 0), 67: (160, 128, 0), 70: (32, 128, 128), 255: (224, 224, 192)}
    assert {label: tuple(colours[label].tolist()) for label in known} == known
    assert len(np.unique(colours, axis=0)) == 256


def test_palette_equals_voc_generator() -> None:
    for label, colour in enumerate(palette_colours().tolist()):
        rest, rgb, i = label, [0, 0, 0], 0
        while rest:
            for c in range(3):
                rgb[c] |= ((rest >> c) & 1) << (7 - i)
            rest, i = rest >> 3, i + 1
        assert colour == rgb


def test_colours_are_read_as_labels(tmp_path: Path) -> None:
    labels = np.arange(256).reshape(16, 16)
    Image.fromarray(palette_colours()[labels]).save(tmp_path / "m.png")
    assert (read_colours(tmp_path / "m.png") == labels).all()
    indexed = Image.fromarray(labels.astype(np.uint8))
    indexed.putpalette(palette_colours().reshape(-1).tolist())
    indexed.save(tmp_path / "p.png")
    assert (read_colours(tmp_path / "p.png") == labels).all()


def test_unknown_colour_raises_or_is_background(tmp_path: Path) -> None:
    colours = palette_colours()[TRUTH]
    colours[2, 5] = (127, 1, 0)
    Image.fromarray(colours).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m.png has the colour \(127, 1, 0\) at x 5, y 2, which has no label"):
        read_colours(tmp_path / "m.png")
    labels = read_colours(tmp_path / "m.png", "background")
    assert (labels[2, 5], labels[1, 2]) == (0, 1)


@pytest.mark.parametrize("read", [read_binary, read_colours])
def test_unreadable_mask_raises(tmp_path: Path, read) -> None:
    with pytest.raises(DataError, match=r"no .*m.png: every labelled frame needs a mask"):
        read(tmp_path / "m.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "m.png").write_bytes((tmp_path / "m.png").read_bytes()[:900])
    with pytest.raises(DataError, match=r"cannot read .*m.png as a mask: .*truncated"):
        read(tmp_path / "m.png")
