import numpy as np
import pytest
from PIL import Image

from avseg.errors import ConfigError

from .conftest import DOG, SIREN, TIMES, decoded, packets, picture


def test_images_are_transparent_outside(make_clip, tmp_path):
    result = make_clip()
    folder = result.save(tmp_path / "out", ["cutout"])
    files = sorted((folder / "cutout").iterdir())
    assert [file.name for file in files] == [f"{k:06d}.png" for k in range(5)]
    with Image.open(files[4]) as image:
        assert image.mode == "RGBA"
        pixels = np.asarray(image)
    inside = SIREN & (np.roll(SIREN, 3, 0) & np.roll(SIREN, -3, 0) & np.roll(SIREN, 3, 1) & np.roll(SIREN, -3, 1))
    assert (pixels[inside, 3] == 255).all()
    np.testing.assert_array_equal(pixels[inside, :3], picture(4, SIREN.shape)[inside])
    assert (pixels[DOG] == 0).all()
    with Image.open(files[0]) as image:
        assert not np.asarray(image).any()


def test_video_on_a_colour(make_clip, tmp_path):
    result = make_clip(sound_codec="aac")
    folder = result.save(tmp_path / "out", {"cutout": {"background": "#00b140"}})
    assert [path.name for path in folder.iterdir()] == ["cutout.mp4"]
    times, pixels, _ = decoded(folder / "cutout.mp4", "rgb24")
    assert times == pytest.approx(TIMES, abs=1e-4)
    assert np.abs(pixels[1][5:15].astype(int) - (0, 0xB1, 0x40)).max() < 8
    assert np.abs(pixels[1][25:55, 35:65].astype(int) - picture(1, DOG.shape)[25:55, 35:65]).mean() < 20
    assert packets(folder / "cutout.mp4") == packets(result.source)


def test_a_wrong_colour_is_refused(make_clip, tmp_path):
    with pytest.raises(ConfigError, match="'greenish' is no colour: give a name such as green"):
        make_clip().save(tmp_path / "out", {"cutout": {"background": "greenish"}})
