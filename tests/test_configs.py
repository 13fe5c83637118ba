"""Every recipe loads, builds, and begins with its command."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import avseg
from avseg.bench.plan import read_plan
from avseg.cli import main
from avseg.config import read_run
from avseg.flags import recipes
from avseg.interface import make_config
from avseg.models import model_class

ROOT = Path(__file__).parents[1]
BENCHES = sorted((ROOT / "configs").glob("bench_*.yaml"))
OTHERS = sorted((ROOT / "configs").glob("distill_*.yaml"))
SLOW = [pytest.mark.slow]
CONFIGS = sorted({*(ROOT / "configs").glob("*.yaml")} - {*BENCHES, *OTHERS})


def commands(config: Path) -> list[list[str]]:
    """Return the ``avseg train`` lines of a recipe's comment."""
    lines = config.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("# avseg ")]


def every_command(*, quick: set[str] | None = None) -> list[Any]:
    """Return the commands of all recipes; if ``quick`` is given, all but the first command of these are slow."""
    return [
        pytest.param(c, id=f"{path.stem}-{i}", marks=[] if quick is None or (path.stem in quick and i == 0) else SLOW)
        for path in CONFIGS
        for i, c in enumerate(commands(path))
    ]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_first_line_is_the_command(config: Path) -> None:
    first = config.read_text(encoding="utf-8").splitlines()[0]
    assert (first + " ").startswith(f"# avseg train --config configs/{config.name} ")


@pytest.mark.slow
@pytest.mark.parametrize("config", BENCHES, ids=lambda path: path.stem)
def test_comparisons_load_and_build(config: Path) -> None:
    assert config.read_text(encoding="utf-8").splitlines()[0] == f"# avseg bench --config configs/{config.name}"
    plan = read_plan(["--config", str(config)])
    for label, runs in plan.runs.items():
        assert [run.train.seed for run in runs] == [0, 1, 2][: 1 if config.stem.endswith("_settings") else 3], label
        with torch.device("meta"):
            avseg.build(**runs[0].model)


@pytest.mark.parametrize("command", every_command())
def test_commands_load(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert command[0] == "train"
    run = read_run(command[1:])
    make_config(model_class(run.model["name"]), {k: v for k, v in run.model.items() if k != "name"})


ONE_OF_EACH_MODEL = {path.stem for path in {path.stem.partition("_")[0]: path for path in CONFIGS}.values()}


@pytest.mark.parametrize("command", every_command(quick=ONE_OF_EACH_MODEL))
def test_commands_build(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run = read_run(command[1:])
    with torch.device("meta"):
        model = avseg.build(classes=71 if run.data["name"] == "avss" else 1, **run.model)
    assert model.name == run.model["name"]


@pytest.mark.parametrize(("task", "epochs"), [("s4", 15), ("ms3", 30), ("avss", 60)])
@pytest.mark.parametrize("visual", ["resnet50", "pvt_v2_b5"])
def test_recipes_use_the_settings_of_the_paper(visual: str, task: str, epochs: int) -> None:
    run = read_run(["--config", str(ROOT / f"configs/pcmanet_{visual}_{task}.yaml")])
    t = run.train
    assert (t.epochs, t.batch_size, t.lr, t.optimizer, t.schedule, t.weight_decay) == (
        epochs,
        4,
        1e-4,
        "adam",
        "constant",
        0,
    )
    assert (run.model["visual"], run.model["groups"], run.model["confidence"]) == (visual, 8, 0.99)
    assert run.data["size"] == 224


def test_table_4_has_five_ablations() -> None:
    _, *ablations = commands(ROOT / "configs/pcmanet_resnet50_s4.yaml")
    assert [set(words[4:]) - {"-o", "false", words[4]} for words in ablations] == [
        {"--model.avga", "--model.qsca"},
        {"--model.qsca"},
        {"--model.select"},
        {"--model.progression"},
        {"--model.continuity"},
    ]


def test_recipe_without_data_names_the_missing_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(ROOT / "configs/pcmanet_resnet50_s4.yaml")]) == 2
    assert "no data/avsbench_data/Single-source/s4_meta_data.csv" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_smoke_recipe_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(ROOT / "configs/pcmanet_smoke.yaml")]) == 0
    assert avseg.load(tmp_path / "runs/pcmanet_smoke/last").card["epoch"] == 2


def test_package_contains_every_recipe() -> None:
    assert sorted(recipes()) == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


def test_recipes_lists_name_command_and_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    rows = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == [path.stem for path in sorted({*CONFIGS, *BENCHES})]
    assert all(row[1] == ("bench" if row[0].startswith("bench_") else "train") for row in rows)
    for name, _, purpose in rows:
        assert re.fullmatch(r".{20,110}\.", purpose), name


@pytest.mark.slow
def test_recipe_is_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    by_path = read_run(["--config", str(ROOT / "configs/pcmanet_resnet50_s4.yaml"), "--train.lr", "1e-3"])
    assert read_run(["--config", "pcmanet_resnet50_s4", "--train.lr", "1e-3"]) == by_path
    assert read_run(["--train.lr=1e-3", "--config=pcmanet_resnet50_s4"]).train.out == "runs/pcmanet_resnet50_s4"
    assert read_plan(["--config", "bench_table4"]) == read_plan(["--config", str(ROOT / "configs/bench_table4.yaml")])


def test_file_precedes_recipe_of_the_same_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pcmanet_smoke").write_text("train: {epochs: 7}")
    assert read_run(["--config", "pcmanet_smoke"]).train.epochs == 7


@pytest.mark.parametrize("verb", ["train", "bench"])
@pytest.mark.parametrize("given", ["bench_table5", "configs/bench_table4.yml"])
def test_unknown_recipe_is_refused_with_the_closest_name(
    verb: str, given: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([verb, "--config", given]) == 2
    error = capsys.readouterr().err
    assert f"cannot read config {given!r}" in error
    assert "Did you mean 'bench_table4'?" in error
