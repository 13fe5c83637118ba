"""Fig. 7: rows, columns and scores."""

import dataclasses

import numpy as np
import pytest
import torch

from avseg.cli import main
from avseg.colours import palette
from avseg.data import build_dataset
from avseg.figures.panel import panel
from avseg.interface import Clip, Prediction
from avseg.models.pcmanet import PCMANet


@pytest.mark.slow
def test_row_per_model_and_column_per_frame(trained, tmp_path, pixels):
    def size(models, clips, **data):
        return pixels(panel([str(trained)] * models, tmp_path / "x.png", data, clips=clips, dpi=72)).shape[:2]

    one = size(1, 1)
    row = size(2, 1)[0] - one[0]
    assert 90 < row < 100
    assert size(3, 1)[0] == one[0] + 2 * row
    assert size(1, 2)[1] > 1.7 * one[1] - 60
    assert size(1, 1, frames=20)[1] > 20 * 33
    assert size(1, 1, size=(32, 64))[0] < one[0]


def test_mask_is_drawn_at_its_position(trained, tmp_path, monkeypatch, pixels):
    """Use a model that predicts the left half of the second frame."""

    def forward(self, clip, target=None, *, maps=False):
        logits = torch.full((1, 2, 1, 32, 32), -9.0)
        logits[:, 1, :, :, :16] = 9.0
        return Prediction(logits)

    monkeypatch.setattr(PCMANet, "forward", forward)
    picture = pixels(panel([str(trained)], tmp_path / "x.png", clips=1, dpi=72)).astype(int)
    magenta = picture[-20 - 96 : -20, :, 0] - picture[-20 - 96 : -20, :, 1] > 60
    columns = np.flatnonzero(magenta.mean(0) > 0.9)
    assert 44 <= len(columns) <= 48
    assert columns[-1] - columns[0] == len(columns) - 1
    assert palette(2)[1, 0] > palette(2)[1, 1]


@pytest.mark.slow
def test_no_spectrogram_row_for_embeddings(trained, tmp_path, monkeypatch, pixels):
    sample = build_dataset("synthetic", "test", size=32, frames=2)[0]
    with_sound = pixels(panel([str(trained)], tmp_path / "x.png", clips=1, dpi=72))
    embedded = dataclasses.replace(sample.clip)
    object.__setattr__(embedded, "audio", torch.zeros(1, 2, 128))
    monkeypatch.setattr("avseg.data.synthetic.Synthetic.__getitem__", lambda *_: sample._replace(clip=embedded))
    monkeypatch.setattr(
        PCMANet, "forward", lambda self, clip, target=None, *, maps=False: Prediction(torch.zeros(1, 2, 1, 32, 32))
    )
    silent = pixels(panel([str(trained)], tmp_path / "x.png", clips=1, dpi=72))
    assert Clip(embedded.frames, embedded.audio).audio.ndim == 3
    assert 45 < with_sound.shape[0] - silent.shape[0] < 55


@pytest.mark.slow
def test_command_with_two_models_and_picked_clips(several, tmp_path, capsys, pixels):
    out = tmp_path / "x.jpg"
    words = ["figures", "panel", str(several), str(several), "-o", str(out), "--pick", "1", "3", "--dpi", "72"]
    assert main(words) == 0
    assert capsys.readouterr().out == f"avseg: wrote {out}\n"
    assert pixels(out).shape[1] > 400
    assert [p.name for p in tmp_path.iterdir()] == ["x.jpg"]


def test_models_of_different_tasks_raise(trained, several, tmp_path, capsys):
    assert main(["figures", "panel", str(trained), str(several), "-o", str(tmp_path / "x.png")]) == 2
    assert "the model has 13 classes, the data set 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
