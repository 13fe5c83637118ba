import json
from hashlib import sha256

import numpy as np
import pytest

from avseg.errors import ConfigError
from avseg.media.sound import Sound, sound_blocks

from .conftest import DOG, SIREN, SIZE, TIMES, decoded, packets, picture

STRIPES = picture(0, SIZE).astype(int)


def redacted(result, folder, **settings):
    """Return times and pixels of redact.mp4, and the audit file."""
    result.save(folder, {"redact": settings})
    times, pixels, _ = decoded(folder / "redact.mp4", "rgb24")
    return times, pixels.astype(int), json.loads((folder / "redact.json").read_text())


def changed(pixels):
    """Return the pixels (N, H, W) where the stripes are gone, apart from their borders."""
    return np.abs(pixels - STRIPES).max(-1) > 45


@pytest.mark.parametrize("mode", ["blur", "pixelate", "black"])
def test_only_the_objects_are_covered(make_clip, tmp_path, mode):
    result = make_clip(sound_codec="aac")
    times, pixels, audit = redacted(result, tmp_path / "out", mode=mode, padding=0, dilation=0)
    assert times == pytest.approx(TIMES, abs=1e-4)
    hidden = changed(pixels)
    for index, mask in enumerate(result.masks):
        assert (hidden[index] & mask).sum() >= 0.45 * mask.sum()
        assert hidden[index][~mask].mean() < 0.04  # cells and blocks of H.264 reach beyond the mask
    contrast = np.abs(np.diff(pixels[1][25:55, 35:65].mean(-1), axis=1)).max()
    assert contrast < 40  # 128 between stripes
    assert [entry["frame"] for entry in audit["frames"]] == [1, 2, 3, 4]
    assert audit["frames"][0] == {
        "frame": 1,
        "start": 0.05,
        "end": 0.1,
        "pixels": 40 * 44,  # cells of 4 pixels
        "box": [28, 20, 44, 40],
        "classes": ["dog"],
    }
    assert audit["intervals"] == [{"start": 0.05, "end": 0.9}]
    assert audit["source_sha256"] == sha256(result.source.read_bytes()).hexdigest()
    assert audit["settings"]["mode"] == mode
    assert packets(tmp_path / "out" / "redact.mp4") == packets(result.source)


def test_padding_covers_before_the_onset_and_after_the_offset(make_clip, tmp_path):
    _, pixels, audit = redacted(make_clip(), tmp_path / "out", mode="black", padding=0.2, dilation=0)
    dog = pixels[:, DOG].mean((1, 2)) < 40
    assert dog.tolist() == [True, True, True, True, True]  # 0 s is 0.05 s early, 0.8 s follows its end
    siren = pixels[:, SIREN].mean((1, 2)) < 40
    assert siren.tolist() == [False, False, True, True, True]  # the frame at 0.1 s lasts until 0.4 s
    assert audit["intervals"] == [{"start": 0.0, "end": 0.9}]


def test_dilation_enlarges_every_side(make_clip, tmp_path):
    _, pixels, audit = redacted(make_clip(), tmp_path / "out", mode="black", padding=0, dilation=10 / 150)
    assert pixels[1][10:70, 20:80].mean() < 30
    assert audit["frames"][0]["box"][0] <= 20
    assert not changed(pixels)[1][:4].any()


def test_keep_covers_all_else(make_clip, tmp_path):
    settings = {"mode": "black", "keep": True, "padding": 0, "dilation": 0, "classes": ["dog"]}
    _, pixels, audit = redacted(make_clip(), tmp_path / "out", **settings)
    shown = pixels[1][24:56, 32:68]
    assert np.abs(shown - STRIPES[24:56, 32:68]).mean() < 12
    assert pixels[1][~DOG].max() < 80
    assert pixels[1][~DOG].mean() < 8
    assert pixels[0].max() < 40
    assert len(audit["frames"]) == 5


def test_keep_with_padding_shows_only_what_all_masks_share(make_clip, tmp_path):
    _, pixels, _ = redacted(make_clip(), tmp_path / "out", mode="black", keep=True, padding=0.06, dilation=0)
    assert pixels[1].max() < 40  # nothing sounds in the frame before


def test_muting_silences_the_covered_time(make_clip, tmp_path, make_beep):
    result = make_clip(sound=make_beep(0.9, 0, 0.9, 48_000), sound_codec="pcm_s16le")
    settings = {"mute": True, "padding": 0, "classes": ["siren"]}
    _, _, audit = redacted(result, tmp_path / "out", **settings)
    assert audit["muted"] == [{"start": 0.4, "end": 0.9}]
    wave = Sound(sound_blocks(tmp_path / "out" / "redact.mp4")).waveform_at(0.4).abs().numpy()
    centre = len(wave) // 2
    assert wave[centre - 5000 : centre - 1200].mean() > 0.2
    assert wave[centre + 1200 : centre + 6000].max() < 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "blurr"}, "Did you mean 'blur'"),
        ({"padding": -1}, "padding must be 0 or more, got -1"),
        ({"strength": 0}, "strength must be 0.01 or more, got 0"),
        ({"classes": ["dogs"]}, "tiny has no class 'dogs'. Did you mean 'dog'"),
    ],
)
def test_wrong_settings_are_refused(make_clip, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_clip().save(tmp_path / "out", {"redact": settings})
    assert not (tmp_path / "out").exists()
