"""Examples with predictions, short names, and text width on pages."""

import dataclasses

import numpy as np
import pytest
import torch

from avseg.checkpoints.store import load
from avseg.data import build_dataset
from avseg.errors import CheckpointError, ConfigError, DataError
from avseg.figures.page import legend_height, shortened, width_of
from avseg.figures.scenes import choose, load_examples, need_maps, short_names
from avseg.metrics import AVSBench
from avseg.model_folder import save

SETTINGS = {"size": 32, "frames": 2, "test": 5}


@pytest.mark.parametrize(
    ("paths", "short"),
    [
        (["tiny"], ["tiny"]),
        (["runs/a/best", "runs/b/best"], ["a", "b"]),
        (["runs/a/best", "runs/a/last"], ["a/best", "a/last"]),
        (["x/run/best", "y/run/best"], ["x", "y"]),
        (["bench/a/seed0/last", "bench/b/seed0/last"], ["a", "b"]),
        (["bench/a/seed0/last", "bench/b/seed1/last"], ["seed0", "seed1"]),
        (["best"], ["best"]),
        (["."], ["."]),
        (["tiny", "tiny"], ["tiny", "tiny"]),
    ],
)
def test_short_names_are_distinct(paths, short):
    assert short_names(paths) == short


def test_choose_spreads_or_picks_clips():
    assert choose(101, 3) == [0, 50, 100]
    assert choose(2, 9) == [0, 1]
    assert choose(5, 1, [4, 4, 0]) == [4, 4, 0]
    for mistake, hint in (((5, 0), "got 0"), ((5, 1, [5]), "pick from 0 … 4"), ((5, 1, [-1]), "clip -1")):
        with pytest.raises(ConfigError, match=hint):
            choose(*mistake)
    with pytest.raises(DataError, match="no clip"):
        choose(0, 1)


def test_predictions_and_scores_equal_the_model(trained):
    examples = load_examples([str(trained)], None, split="test", clips=2, pick=None)
    sample, model = build_dataset("synthetic", "test", **SETTINGS)[4], load(trained)
    with torch.inference_mode():
        prediction = model(sample.clip, maps=True)
    clip = examples.clips[1]
    assert clip.name == sample.names[0]
    assert clip.times == ["0.5 s", "1.5 s"]
    assert (clip.predictions[0].labels == prediction.masks[0].numpy()).all()
    assert (clip.predictions[0].maps["mask/cim3"] == prediction.maps["mask/cim3"][0]).all()
    metric = AVSBench()
    metric.update(prediction, sample.target, sample.clip.valid)
    assert clip.predictions[0].score == pytest.approx(metric.compute()["j"].item())
    assert need_maps(examples, "mask/", "") == ["mask/cim4", "mask/cim3", "mask/cim2"]


def test_padding_is_removed_and_unlabelled_clips_have_no_score(trained, monkeypatch):
    sample = build_dataset("synthetic", "test", **SETTINGS)[0]
    clip = dataclasses.replace(sample.clip, valid=torch.tensor([[False, True]]))
    target = dataclasses.replace(sample.target, labelled=torch.tensor([[False, False]]))
    monkeypatch.setattr(
        "avseg.data.synthetic.Synthetic.__getitem__", lambda *_: sample._replace(clip=clip, target=target)
    )
    (scene,) = load_examples([str(trained)], None, split="test", clips=1, pick=None).clips
    assert scene.times == ["1.5 s"]
    assert len(scene.frames) == len(scene.truth) == len(scene.predictions[0].labels) == 1
    assert {len(m) for m in scene.predictions[0].maps.values()} == {1}
    assert scene.predictions[0].score is None


def test_broken_weights_raise(trained, tmp_path):
    model = load(trained)
    torch.nn.init.constant_(model.head["1"][-1].bias, float("nan"))
    broken = save(model, tmp_path / "broken", data=model.card["data"], class_names=model.card["class_names"])
    with pytest.raises(CheckpointError, match=r"NaN or infinite weights in head\.1\.3\.bias"):
        load_examples([str(broken)], None, split="test", clips=1, pick=None)


def test_predictions_of_nan_raise(trained, monkeypatch):
    model = load(trained)
    torch.nn.init.constant_(model.head["1"][-1].bias, float("nan"))
    monkeypatch.setattr("avseg.figures.scenes.load", lambda name: model)
    with pytest.raises(CheckpointError, match=r"broken predicts NaN or infinity for clip 'test-00000'"):
        load_examples(["broken"], None, split="test", clips=1, pick=None)


def test_several_classes_have_names_and_colours(several):
    examples = load_examples([str(several)], None, split="test", clips=5, pick=None)
    truth = sorted({int(k) for clip in examples.clips for k in np.unique(clip.truth)} - {0})
    assert truth
    legend = dict(entry for clip in examples.clips for entry in examples.legend(clip))
    assert {examples.names[k] for k in truth} <= set(legend)
    assert len(set(legend.values())) == len(legend)
    assert examples.score == "mIoU"


@pytest.mark.slow
def test_binary_task_has_one_colour_for_all_categories(trained):
    plain, told = (
        load_examples([str(trained)], {"categories": told}, split="test", clips=5, pick=None) for told in (False, True)
    )
    assert plain.names == told.names
    for one, other in zip(plain.clips, told.clips, strict=True):
        assert np.array_equal(one.truth, other.truth)
        assert one.predictions[0].score == other.predictions[0].score


def test_text_width_and_shortening():
    long = "category/a very long name of a clip, number 17"
    short = shortened(long, 60.0)
    assert width_of(short) <= 60.0 < width_of(long)
    assert short.startswith("cat")
    assert short.endswith("17")
    assert shortened("short", 60.0) == "short"
    legend = [(f"class {k}", (0, 0, 0)) for k in range(10)]
    assert legend_height([], 100.0) == 0.0 < legend_height(legend, 1000.0) < legend_height(legend, 100.0)
