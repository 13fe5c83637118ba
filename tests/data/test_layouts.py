"""Training and evaluation on each released layout, by the command line."""

import json
from pathlib import Path

import pytest

import avseg
from avseg.cli import main

SMALL = ("--model.visual", "resnet18", "--model.audio", "compact", "--model.train_audio", "true")
STEP = ("--train.max_steps", "1", "--train.epochs", "1", "--train.batch_size", "2", "--train.workers", "0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "protocol"), [("s4", "avsbench"), ("ms3", "avsbench"), ("avss", "avsbench_semantic_padded")]
)
def test_train_step_and_eval(tiny, tmp_path: Path, name: str, protocol: str) -> None:
    root, run, scores = getattr(tiny, name)(), tmp_path / "run", tmp_path / "scores.json"
    data = ("--data", name, "--data.root", str(root), "--data.size", "32")
    assert main(["train", *SMALL, "--model.channels", "16", *data, *STEP, "--train.out", str(run)]) == 0
    for original in ("false", "true"):  # squashed, and at the masks' own resolution
        command = ["eval", str(run / "last"), "--negatives", "false", "--data.original_masks", original]
        assert main([*command, "-o", str(scores)]) == 0
    numbers = json.loads(scores.read_text())["numbers"]
    assert numbers["clips"] == (2 if name != "avss" else 6)
    assert numbers["frames"] == (10 if name != "avss" else 40)
    assert all(value is not None for value in numbers["scores"][protocol].values())
    assert ("per_category" in numbers) == (name == "s4")


CONFIGS = Path(__file__).parents[2] / "configs"
SMALL_CPM = (
    *("--weights.visual", "null", "--weights.audio", "null", "--model.channels", "32", "--model.heads", "4"),
    *("--model.queries", "4", "--model.layers", "1", "--model.pixel_layers", "1", "--model.feedforward", "64"),
    *(
        "--model.points",
        "64",
        "--model.warmup",
        "0",
        "--model.mixture_min_samples",
        "3",
        "--model.mixture_fit_every",
        "1",
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "layout"), [("s4", "s4"), ("ms3", "avss"), ("avss", "avss")])
def test_cpm_recipes_train_with_prompts_of_the_categories(tiny, tmp_path: Path, task: str, layout: str) -> None:
    run, data = tmp_path / "run", ("--data.root", str(getattr(tiny, layout)()), "--data.size", "64")
    steps = ("--train.max_steps", "4", "--train.epochs", "4", "--train.batch_size", "2", "--train.workers", "0")
    recipe = ("train", "--config", str(CONFIGS / f"cpm_resnet50_{task}.yaml"))
    assert main([*recipe, *SMALL, *SMALL_CPM, *data, *steps, "--train.log_every", "1", "-o", str(run)]) == 0
    model = avseg.load(run / "last")
    assert model.classes == (len(model.card["class_names"]) if task == "avss" else 1)
    assert model.config.categories == model.labels - 1 > 1
    assert model.mixtures.filled.any()
    curve = (run / "metrics.csv").read_text()
    assert all(f"train/{term}," in curve for term in ("classes", "masks", "dice", "acp", "vcp", "pcl", "generative"))
    assert main(["eval", str(run / "last"), "--negatives", "false", "-o", str(tmp_path / "scores.json")]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("task", ["s4", "ms3", "avss"])
def test_ama_ue_recipes_train(tiny, tmp_path: Path, task: str) -> None:
    run, data = tmp_path / "run", ("--data.root", str(getattr(tiny, task)()), "--data.size", "64")
    small = (
        "--weights.visual",
        "null",
        "--weights.audio",
        "null",
        "--model.channels",
        "16",
        "--model.kl_anneal_steps",
        "10",
    )
    steps = ("--train.max_steps", "2", "--train.batch_size", "2", "--train.workers", "0", "--train.log_every", "1")
    recipe = ("train", "--config", str(CONFIGS / f"ama_ue_pvt_v2_b5_{task}.yaml"), *SMALL)
    assert main([*recipe, *small, *data, *steps, "-o", str(run)]) == 0
    model = avseg.load(run / "last")
    assert (model.classes, int(model.steps)) == (len(model.card["class_names"]) if task == "avss" else 1, 2)
    curve = (run / "metrics.csv").read_text()
    ce = "ce" if task == "avss" else "bce"
    assert all(f"train/{term}," in curve for term in (ce, "dice", "iou", "contrast", "evidence"))
    assert main(["eval", str(run / "last"), "--negatives", "false", "-o", str(tmp_path / "scores.json")]) == 0
