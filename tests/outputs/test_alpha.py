from fractions import Fraction

import av
import numpy as np
import pytest

from avseg.errors import ConfigError
from avseg.media.writer import VP9_ALPHA, VideoWriter

from .conftest import DOG, TIMES, decoded, packets, picture


def expected(result, softness=0.5):
    ramp = np.stack([(p - 0.5) / softness + 0.5 for p in result.probabilities])
    return np.round(255 * np.clip(ramp, 0, 1))


def test_prores_has_the_opacity_colours_times_and_sound(make_clip, tmp_path):
    result = make_clip(sound_codec="aac")
    folder = result.save(tmp_path / "out", ["alpha"])
    assert [path.name for path in folder.iterdir()] == ["alpha.mov"]
    times, pixels, pixel_format = decoded(folder / "alpha.mov", "rgba")
    assert times == pytest.approx(TIMES, abs=1e-4)
    assert pixel_format == "yuva444p10le" or pixel_format == "yuva444p12le"
    assert np.abs(pixels[..., 3] - expected(result)).max() <= 2
    difference = np.abs(pixels[..., :3].astype(int) - picture(0, pixels.shape[1:3]))
    assert difference.mean() < 4  # also where it is transparent
    assert packets(folder / "alpha.mov") == packets(result.source)
    with av.open(str(folder / "alpha.mov")) as container:
        assert container.streams.video[0].codec_context.name == "prores"


def test_webm_has_the_opacity(make_clip, tmp_path):
    result = make_clip(("background", "sounding"))
    folder = result.save(tmp_path / "out", {"alpha": {"codec": "vp9", "softness": 1.0}})
    with av.open(str(folder / "alpha.webm")) as container:
        sound = container.streams.audio[0].codec_context
        assert (sound.name, sound.sample_rate) == ("opus", 48_000) or sound.name == "libopus"
        stream = container.streams.video[0]
        decoder = av.CodecContext.create("libvpx-vp9", "r")  # FFmpeg's own decoder ignores the alpha
        frames = [frame for packet in container.demux(stream) for frame in decoder.decode(packet)]
    assert len(frames) == len(TIMES)
    assert frames[0].format.name == "yuva420p"
    alpha = np.stack([frame.to_ndarray(format="rgba")[..., 3] for frame in frames]).astype(int)
    assert np.abs(alpha - expected(result, 1.0)).mean() < 4
    assert alpha[1][DOG].mean() > 200
    assert alpha[0].max() < 20


def test_softness_zero_is_the_mask(make_clip, tmp_path):
    result = make_clip()
    folder = result.save(tmp_path / "out", {"alpha": {"softness": 0}})
    _, pixels, _ = decoded(folder / "alpha.mov", "rgba")
    masks = np.stack([p > 0.5 for p in result.probabilities])
    np.testing.assert_array_equal(pixels[..., 3] > 127, masks)


def test_wrong_settings_are_refused(make_clip, tmp_path):
    with pytest.raises(ConfigError, match=r"softness must be between 0 \(hard edges\) and 1, got 2"):
        make_clip().save(tmp_path / "out", {"alpha": {"softness": 2}})
    with pytest.raises(ConfigError, match=r"codec = 'prorez' does not exist. Did you mean 'prores'"):
        make_clip().save(tmp_path / "out", {"alpha": {"codec": "prorez"}})
    with pytest.raises(ConfigError, match="unknown setting 'codek'"):
        make_clip().save(tmp_path / "out", {"alpha": {"codek": "vp9"}})


def test_odd_sizes_of_webm_are_padded(tmp_path):
    image = np.full((5, 7, 4), 200, np.uint8)
    with VideoWriter(tmp_path / "a.webm", (5, 7), rate=Fraction(25), encoding=VP9_ALPHA) as writer:
        writer.write(image, 0.0)
        writer.write(image, 0.5)
    times, pixels, _ = decoded(tmp_path / "a.webm", "rgb24")
    assert pixels.shape[1:3] == (6, 8)
    assert times == pytest.approx([0.0, 0.5], abs=1e-3)
