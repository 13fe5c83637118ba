"""Tests of checkpoints of the authors' releases: recognition, equal outputs, and errors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import avseg
from avseg.checkpoints.release import convert
from avseg.errors import CheckpointError
from avseg.interface import Clip, Target
from avseg.models.pcmanet import PCMANet
from avseg.models.tpavi import TPAVI

PARITY = Path(__file__).parents[1] / "parity"
PCMANET = [f"pcmanet_{v}_{task}" for v in ("resnet50", "pvt_v2_b5") for task in ("s4", "ms3", "avss")]
TPAVI_CASES = ["tpavi_resnet50_s4", "tpavi_resnet50_avss", "tpavi_pvt_v2_b5_s4"]
QUICK = {"pcmanet_resnet50_s4", "pcmanet_pvt_v2_b5_avss", "tpavi_resnet50_avss"}
"""Both backbones, one and 71 classes, 4 and 8 groups."""


def quick_first(cases: list[str]) -> list[Any]:
    """Mark the cases that are not in QUICK as slow."""
    return [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def empty(layout: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Return a state dict of zeros with the shapes of a release and int64 counters."""
    return {
        k: torch.zeros(s, dtype=torch.int64 if k.endswith("num_batches_tracked") else torch.float32)
        for k, s in layout.items()
    }


@pytest.mark.slow
def test_equal_to_the_release_on_resnet50_s4(layouts: dict, weights: Callable) -> None:
    model = avseg.from_release(weights(layouts["pcmanet_resnet50_s4"]))
    recorded = np.load(PARITY / "pcmanet_resnet50_s4.npz")
    frames = np.random.RandomState(1).standard_normal((10, 3, 224, 224)).astype(np.float32)
    audio = np.random.RandomState(2).standard_normal((10, 128)).astype(np.float32)
    clip = Clip(torch.from_numpy(frames).view(2, 5, 3, 224, 224), torch.from_numpy(audio).view(2, 5, 128))
    with torch.no_grad():
        prediction = model(clip)
    for name, logits in zip(("out1", "out2", "out3", "out4"), (prediction.logits, *prediction.aux), strict=True):
        error = np.abs(logits.flatten(0, 1)[:, :, ::8, ::8].numpy() - recorded[name])
        assert (error < 1e-3).mean() > 0.999, name
    ratios = [prediction.scalars[f"keep_ratio/{i}"].item() for i in (4, 3, 2)]
    np.testing.assert_allclose(ratios, recorded["mask_keep_ratio_432"], atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("case", quick_first(PCMANET))
def test_every_released_layout_loads(case: str, layouts: dict) -> None:
    model = avseg.from_release(empty(layouts[case]))
    assert isinstance(model, PCMANet)
    assert model.classes == (71 if case.endswith("avss") else 1)
    assert model.config.visual == case.removeprefix("pcmanet_").rsplit("_", 1)[0]
    assert model.config.groups == (4 if case == "pcmanet_resnet50_s4" else 8)
    assert {k: getattr(model.config, k) for k in PCMANet.RELEASE} == PCMANet.RELEASE
    assert not model.training


@pytest.mark.slow
@pytest.mark.parametrize("case", quick_first(TPAVI_CASES))
def test_every_layout_of_tpavi_loads(case: str, layouts: dict) -> None:
    model = avseg.from_release(empty(layouts[case]))
    assert isinstance(model, TPAVI)
    assert model.classes == (71 if case.endswith("avss") else 1)
    assert model.config.visual == case.removeprefix("tpavi_").rsplit("_", 1)[0]
    assert model.config.align_bias is not case.endswith("avss")
    assert {k: getattr(model.config, k) for k in TPAVI.RELEASE} == TPAVI.RELEASE


@pytest.mark.slow
@pytest.mark.parametrize("case", TPAVI_CASES)
def test_tpavi_is_equal_to_the_release(case: str, layouts: dict, weights: Callable) -> None:
    released = avseg.from_release(weights(layouts[case]))
    model = TPAVI(replace(released.config, matching=1.0), released.classes).eval()
    model.load_state_dict(released.state_dict())
    b, t = (1, 10) if case.endswith("avss") else (2, 5)
    valid = torch.ones(b, t, dtype=torch.bool)
    valid[:, 5:] = False
    frames = np.random.RandomState(1).standard_normal((10, 3, 224, 224)).astype(np.float32)
    audio = np.random.RandomState(2).standard_normal((10, 128)).astype(np.float32)
    clip = Clip(torch.from_numpy(frames).view(b, t, 3, 224, 224), torch.from_numpy(audio).view(b, t, 128), valid)
    with torch.no_grad():
        prediction = model(clip)
        loss = model.loss(prediction, Target(torch.zeros(b, t, 224, 224).long(), valid))
    recorded = np.load(PARITY / "tpavi.npz")
    name = case.removeprefix("tpavi_")
    error = np.abs(prediction.logits.flatten(0, 1)[:, :, ::28, ::28].numpy() - recorded[name])
    assert error.max() < 1e-4
    assert loss["matching"].item() == pytest.approx(recorded[f"{name}_matching"].item(), rel=1e-4)


@pytest.mark.slow
def test_tpavi_of_some_stages_loads(layouts: dict) -> None:
    state = {
        k: v for k, v in empty(layouts["tpavi_resnet50_s4"]).items() if "tpavi_b1" not in k and "tpavi_b3" not in k
    }
    assert avseg.from_release(state).config.stages == (2, 4)


def test_mismatched_keys_are_listed_in_release_names(layouts: dict) -> None:
    state = empty(layouts["pcmanet_resnet50_s4"])
    del state["gf1.seq3.0.weight"], state["resnet.layer3_1.2.conv1.weight"]
    state["surprise"] = torch.zeros(1)
    state["conv2.0.weight"] = torch.zeros(256, 99, 3, 3)
    with pytest.raises(CheckpointError) as caught:
        avseg.from_release(state)
    message = str(caught.value)
    assert "2 missing: gf1.seq3.0.weight, resnet.layer3_1.2.conv1.weight" in message
    assert "1 unexpected: surprise" in message
    assert "1 wrongly shaped: conv2.0.weight (256, 99, 3, 3) ≠ (256, 512, 3, 3)" in message
    assert "\n" not in message


@pytest.mark.slow
def test_dataparallel_prefixes_and_wrappers_are_removed(layouts: dict, tmp_path: Path) -> None:
    state = {f"module.{k}": v for k, v in empty(layouts["pcmanet_resnet50_ms3"]).items()}
    torch.save({"state_dict": state}, tmp_path / "MS3_best.pth")
    assert avseg.from_release(tmp_path / "MS3_best.pth").config.groups == 8


def test_unknown_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no released checkpoint of .*: among its 1 keys are backbone\.x"):
        avseg.from_release({"backbone.x": torch.zeros(1)})


@pytest.mark.slow
def test_convert_writes_what_load_reads(layouts: dict, tmp_path: Path) -> None:
    torch.save(empty(layouts["pcmanet_resnet50_s4"]), tmp_path / "S4_best.pth")
    folder = convert(tmp_path / "S4_best.pth", tmp_path / "out")
    model = avseg.load(folder)
    assert model.card["source"] == "S4_best.pth"
    assert model.config.scatter_grad is False
    with pytest.raises(CheckpointError, match="already contains avseg"):
        convert(tmp_path / "S4_best.pth", tmp_path / "out")


def test_convert_does_not_overwrite_foreign_weights(tmp_path: Path) -> None:
    mine = tmp_path / "out" / "model.safetensors"
    mine.parent.mkdir()
    mine.write_bytes(b"weeks of training")
    with pytest.raises(CheckpointError, match=r"already contains model\.safetensors"):
        convert(tmp_path / "release.pth", mine.parent)
    assert mine.read_bytes() == b"weeks of training"


@pytest.mark.slow
def test_without_vggish_log_mel_is_refused(layouts: dict) -> None:
    model = avseg.from_release(empty(layouts["pcmanet_resnet50_s4"]))
    with pytest.raises(avseg.AvsegError, match="no audio encoder"):
        model(Clip(torch.zeros(1, 1, 3, 32, 32), torch.zeros(1, 1, 1, 96, 64)))


@pytest.mark.slow
def test_with_vggish_log_mel_is_accepted(layouts: dict, tmp_path: Path) -> None:
    vggish = {k: torch.full(s, 0.5) for k, s in layouts["vggish"].items()}
    torch.save(vggish, tmp_path / "vggish.pth")
    model = avseg.from_release(empty(layouts["pcmanet_resnet50_s4"]), vggish=str(tmp_path / "vggish.pth"))
    assert model.config.audio == "vggish"
    assert torch.equal(model.audio.net.embeddings[4].bias, vggish["embeddings.4.bias"])
    assert model(Clip(torch.zeros(1, 1, 3, 32, 32), torch.zeros(1, 1, 1, 96, 64))).logits.shape == (1, 1, 1, 32, 32)
