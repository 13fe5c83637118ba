"""Fig. 5 with an untrained model that is confident in some pixels."""

import numpy as np
import pytest

from avseg.cli import main
from avseg.errors import ConfigError
from avseg.figures.confidence import QUERY, confidence
from avseg.figures.scenes import load_examples


def share(picture, colour):
    """Return the share of an image's pixels with a colour."""
    return (picture == colour).all(-1).mean()


@pytest.mark.slow
def test_vermilion_area_equals_share_of_queries(trained, tmp_path, pixels):
    picture = pixels(confidence(str(trained), tmp_path / "x.png", pick=[1], dpi=144))
    (clip,) = load_examples([str(trained)], None, split="test", clips=1, pick=[1]).clips
    masks = [m for name, m in clip.predictions[0].maps.items() if name.startswith("mask/")]
    queries = sum(m.bool().float().mean((1, 2, 3)).sum().item() for m in masks)
    assert 0 < queries < len(masks) * len(clip.frames)
    height, width = picture.shape[:2]
    assert width == 1008
    cell = 98**2  # nine columns on 504 points, twice that many dots
    assert share(picture, QUERY) * height * width == pytest.approx(queries * cell, rel=0.08)


@pytest.mark.slow
def test_page_grows_with_frames_and_clips(trained, tmp_path, pixels):
    def size(**settings):
        return pixels(confidence(str(trained), tmp_path / "x.png", dpi=72, **settings)).shape[:2]

    one, more, longer = size(), size(clips=3), size(data={"frames": 4})
    assert one[1] == more[1] == longer[1]
    assert one[0] < longer[0] < more[0]
    flat = size(data={"size": (32, 64)})
    assert flat[0] < one[0]


@pytest.mark.slow
def test_unlabelled_frame_is_marked_in_white(trained, tmp_path, pixels):
    data = {"variant": "s4", "train": 1, "frames": 1}
    labelled = pixels(confidence(str(trained), tmp_path / "x.png", data, split="train", dpi=144))
    data["frames"] = 2
    both = pixels(confidence(str(trained), tmp_path / "x.png", data, split="train", dpi=144))
    truth = both[labelled.shape[0] - 8 : -8 - 22, -106:-8]  # the second row, without its line of text
    assert (truth == 255).all(-1).any()
    assert ((truth == 255).all(-1) | (np.ptp(truth.astype(int), -1) < 3)).mean() > 0.95


def test_command_with_several_classes(several, tmp_path, capsys, pixels):
    out = tmp_path / "x.png"
    assert main(["figures", "confidence", str(several), "-o", str(out), "--clips", "2", "--dpi", "72"]) == 0
    assert capsys.readouterr().out == f"avseg: wrote {out}\n"
    assert np.ptp(pixels(out)) == 255


def test_model_without_masks_raises(without_maps, tmp_path):
    with pytest.raises(ConfigError, match=r"plain has no 'mask/' maps, it has no maps at all: PCMANet makes them"):
        confidence(str(without_maps), tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("nothing -o x.png", "no model 'nothing'"),
        ("small -o x.bmp", "give a .png"),
        ("small", "out"),
        ("small -o x.png --split tset", "Did you mean 'test'?"),
        ("small -o x.png --data synthetic --pick 200", "pick from 0 … 199"),
        ("small -o x.png --data synthetic --data.variant avss", "the model has 1 classes, the data set 13"),
        ("small -o x.png --data sinthetic", "Did you mean 'synthetic'?"),
        ("small -o x.png --data synthetic --data.szie 9", "Did you mean 'data.size'?"),
    ],
)
def test_user_error_prints_one_line(words, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["figures", "confidence", *words.split()]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert hint in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
