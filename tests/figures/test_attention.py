"""Fig. 9: colour scale, rows of stages, columns of groups."""

import matplotlib
import numpy as np
import pytest
import torch

from avseg.cli import main
from avseg.errors import ConfigError
from avseg.figures.attention import Scale, attention
from avseg.figures.scenes import load_examples
from avseg.models.pcmanet import PCMANet


def test_scale_is_shared_and_zero_is_end_or_middle():
    plain = Scale([np.full((1, 2, 2), 0.5, np.float32), np.full((1, 4, 4), 2.0, np.float32)])
    assert plain.ticks == ["2", "1", "0"]
    bar = np.asarray(plain.bar())
    assert (bar[0] == np.asarray(plain.paint(np.array([[2.0]], np.float32)))).all()
    assert (bar[-1] == np.asarray(plain.paint(np.array([[0.0]], np.float32)))).all()
    signed = Scale([np.array([[[-3.0, 1.0]]], np.float32)])
    assert signed.ticks == ["3", "0", "-3"]
    assert np.asarray(signed.paint(np.zeros((1, 1), np.float32))).min() > 240
    assert Scale([np.zeros((1, 1, 1), np.float32)]).ticks == ["1", "0.5", "0"]


@pytest.mark.slow
def test_page_has_every_cell_of_every_map(trained, tmp_path, pixels):
    picture = pixels(attention(str(trained), tmp_path / "x.png", pick=[0], frame=1, dpi=144))
    (clip,) = load_examples([str(trained)], None, split="test", clips=1, pick=[0]).clips
    maps = [m[1].numpy() for name, m in clip.predictions[0].maps.items() if name.startswith("attention/")]
    assert [m.shape for m in maps] == [(8, 8, 8), (8, 4, 4), (8, 2, 2), (8, 1, 1)]
    top = max(m.max() for m in maps)
    painted = {tuple(p) for p in picture.reshape(-1, 3).tolist()}
    for values in maps:
        colours = (matplotlib.colormaps["viridis"](values / top)[..., :3] * 255).round().astype(int)
        assert {tuple(c) for c in colours.reshape(-1, 3).tolist()} <= painted


@pytest.mark.slow
def test_default_frame_has_largest_sounding_area(trained, tmp_path, pixels):
    (clip,) = load_examples([str(trained)], {"frames": 5}, split="test", clips=1, pick=[0]).clips
    most = int((clip.truth != 0).sum((1, 2)).argmax())
    assert most != 0
    left, shown = (
        pixels(attention(str(trained), tmp_path / "x.png", {"frames": 5}, pick=[0], frame=k, dpi=72))
        for k in (None, most)
    )
    assert (left == shown).all()
    with pytest.raises(ConfigError, match=r"frame 5 does not exist, clip 'test-00000' has 0 … 4"):
        attention(str(trained), tmp_path / "x.png", {"frames": 5}, frame=5)


def test_any_model_with_attention_maps_is_plotted(trained, tmp_path, monkeypatch, pixels):
    """One group with signed values, as in TPAVI."""
    whole = PCMANet.forward

    def forward(self, clip, target=None, *, maps=False):
        prediction = whole(self, clip, target)
        return type(prediction)(
            prediction.logits, maps={"attention/tpavi2": torch.linspace(-1, 1, 32).view(1, 2, 1, 4, 4)}
        )

    monkeypatch.setattr(PCMANet, "forward", forward)
    picture = pixels(attention(str(trained), tmp_path / "x.png", {"size": (32, 64)}, clips=2, dpi=144))
    purple, orange = (np.array(matplotlib.colormaps["PuOr_r"](end)[:3]) * 255 for end in (0.0, 1.0))
    assert (np.abs(picture - purple.round()) < 1.5).all(-1).any()
    assert (np.abs(picture - orange.round()) < 1.5).all(-1).any()


@pytest.mark.slow
def test_command_and_model_without_attention(several, without_maps, tmp_path, capsys):
    assert main(["figures", "attention", str(several), "-o", str(tmp_path / "x.svg"), "--dpi", "72"]) == 0
    assert "<svg" in (tmp_path / "x.svg").read_text()
    capsys.readouterr()
    assert main(["figures", "attention", str(without_maps), "-o", str(tmp_path / "y.png")]) == 2
    assert capsys.readouterr().err.startswith("avseg: error: plain has no 'attention/' maps, it has no maps at all")
    assert not (tmp_path / "y.png").exists()
