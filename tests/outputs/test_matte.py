import numpy as np
import pytest

from .conftest import TIMES, decoded, packets


def test_matte_is_the_opacity_as_luma(make_clip, tmp_path):
    result = make_clip(sound_codec="aac")
    folder = result.save(tmp_path / "out", {"matte": {"softness": 1.0}})
    times, pixels, pixel_format = decoded(folder / "matte.mp4", "rgb24")
    assert times == pytest.approx(TIMES, abs=1e-4)
    assert pixel_format == "yuv420p"
    shown = np.stack(list(result.probabilities)) * 255
    assert np.abs(pixels.mean(-1) - shown).max() < 16
    assert np.abs(pixels.mean(-1) - shown).mean() < 2
    assert packets(folder / "matte.mp4") == packets(result.source)
