"""Command lines and files are parsed into the runs of a comparison."""

from pathlib import Path

import pytest

from avseg.bench.plan import read_plan
from avseg.errors import ConfigError

FILE = """
models:
  small: {name: pcmanet, groups: 4}
  base: {name: tpavi}
model: {visual: resnet18, audio: compact, train_audio: true, channels: 16, groups: 2, stages: [1, 4]}
data: {name: synthetic, size: 32, train: 8}
train: {lr: 1.0e-3, workers: 0}
budget: 7
seeds: 2
split: val
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_shared_setting_is_applied_to_models_that_have_it(file: Path) -> None:
    plan = read_plan(["--config", str(file), "--model.channels", "24", "--model.heads=4", "--train.lr", "0.01"])
    assert (plan.name, plan.split, plan.results) == ("mine", "val", Path("benchmarks/results"))
    assert [*plan.runs] == ["small", "base"]
    small, base = plan.runs["small"][0].model, plan.runs["base"][0].model
    assert (small["groups"], small["heads"], small["channels"]) == (4, 4, 24)
    assert (base["stages"], base["channels"]) == ((1, 4), 24)
    assert "heads" not in base


def test_runs_differ_only_in_model_and_seed(file: Path) -> None:
    plan = read_plan(["--config", str(file), "-o", "here"])
    for label, runs in plan.runs.items():
        assert [run.train.seed for run in runs] == [0, 1]
        assert [run.train.out for run in runs] == [f"here/{label}/seed{k}" for k in (0, 1)]
        assert {run.train.max_steps for run in runs} == {7}
        assert {run.train.resume for run in runs} == {"auto"}
        assert runs[0].data == plan.runs["base"][0].data
        assert runs[0].train.lr == 1e-3


def test_comparison_without_file() -> None:
    words = "--models pcmanet,tpavi --data.name synthetic --seeds 1 --budget 5 --data.size 32 --results there"
    plan = read_plan(words.split())
    assert (plan.name, plan.split, plan.results) == ("bench_pcmanet_tpavi_synthetic", "test", Path("there"))
    for runs in plan.runs.values():
        assert len(runs) == 1
        assert (runs[0].train.max_steps, runs[0].data["size"], runs[0].model["audio"]) == (5, 32, "compact")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("", "no models given"),
        ("--models pcmanet,pcmanet", "models must differ"),
        ("--models pcmanet,tpavo", "unknown model 'tpavo'. Did you mean 'tpavi'"),
        ("--models pcmanet --seeds 0", "seeds must be a number, 1 or more, got 0"),
        ("--models pcmanet --budget -4", "budget must be a number"),
        ("--models pcmanet --seeds many", "seeds must be int"),
        ("--models pcmanet --split train", "split must be one of val, test"),
        ("--models pcmanet --buget 5", "unknown setting 'buget'"),
        ("--models pcmanet --data.sise 5", "unknown setting 'data.sise'"),
        ("--models tpavi --model.groups 4", "none of the models has a setting 'groups'"),
        ("--config nowhere.yaml", "cannot read config"),
        ("--models pcmanet --configx nowhere.yaml", "unknown setting 'configx'"),
        ("--models pcmanet --train.max_steps 5", "train.max_steps cannot be set in a comparison: use --budget"),
        ("--models pcmanet --train.seed=5", "train.seed cannot be set in a comparison"),
    ],
)
def test_wrong_arguments_raise_one_line(words: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_plan(words.split())
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("groups: 2", "grups: 2", "none of the models has a setting 'grups'"),
        ("budget:", "budgets:", "unknown section 'budgets'"),
        ("{name: tpavi}", "tpavi", "model 'base' must be a plain label and settings"),
        ("base: {name: tpavi}", "a/b: {name: tpavi}", "model 'a/b' must be a plain label"),
        ("{name: synthetic, size: 32, train: 8}", "synthetic", "section 'data' in"),
        ("seeds: 2", "seeds: true", "seeds must be a number"),
    ],
)
def test_wrong_file_raises(file: Path, old: str, new: str, hint: str) -> None:
    file.write_text(FILE.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=hint):
        read_plan(["--config", str(file)])
