"""A complete comparison: training, scores, result files, and resuming."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avseg.bench import bench as module
from avseg.cli import main
from avseg.figures.trend import read_curves

Start = Callable[[Sequence[str]], BaseProcess]
MODEL = "--model.visual pvt_v2_b0 --model.channels 16"
SIZE = "--data.size 32 --data.frames 2 --data.train 8 --data.val 2 --data.test 3"
TRAIN = "--seeds 2 --budget 4 --train.batch_size 4 --train.workers 0 --train.log_every 1"
WORDS = f"bench --models tpavi,pcmanet --data synthetic {TRAIN} {MODEL} {SIZE} --results results".split()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a comparison; return its folder, with the printed text in printed.txt."""
    folder = tmp_path_factory.mktemp("bench")
    with (
        pytest.MonkeyPatch.context() as patch,
        (folder / "printed.txt").open("w", encoding="utf-8") as printed,
        contextlib.redirect_stdout(printed),
    ):
        patch.chdir(folder)
        assert main(WORDS) == 0
    return folder


NAME = "bench_tpavi_pcmanet_synthetic"


@pytest.mark.slow
def test_json_has_scores_costs_and_provenance(done: Path) -> None:
    result = json.loads((done / f"results/{NAME}.json").read_text(encoding="utf-8"))
    assert {"command", "commit", "date", "hardware", "versions", "config", "numbers"} == set(result)
    numbers = result["numbers"]
    assert (numbers["clips"], numbers["headline"], numbers["compared_with"]) == (3, "avsbench/j", "tpavi")
    for label, entry in numbers["models"].items():
        j = entry["scores"]["avsbench/j"]
        reports = [
            json.loads((done / f"runs/{NAME}/{label}/seed{k}/scores.json").read_text(encoding="utf-8"))["report"]
            for k in (0, 1)
        ]
        assert j["values"] == [r["scores"]["avsbench"]["j"] for r in reports]
        assert j["mean"] == pytest.approx(np.mean(j["values"]))
        assert j["std"] == pytest.approx(np.std(j["values"], ddof=1))
        assert entry["scores"]["drop/swap"]["values"] == [r["negatives"]["swap"]["drop"] for r in reports]
        assert entry["cost"]["clip"] == {"frames": 2, "height": 32, "width": 32}
        assert entry["cost"]["parameters"] > 3e6
    difference = numbers["models"]["pcmanet"]["difference"]
    means = {label: entry["scores"]["avsbench/j"]["mean"] for label, entry in numbers["models"].items()}
    assert difference["mean"] == pytest.approx(means["pcmanet"] - means["tpavi"])
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert "difference" not in numbers["models"]["tpavi"]


@pytest.mark.slow
def test_table_has_one_row_per_model(done: Path) -> None:
    lines = (done / f"results/{NAME}.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"`avseg {' '.join(WORDS)}`".replace("--data ", "--data.name ")
    assert lines[2].startswith("| model | J | F | IoU, sounding | drop, swap | drop, silence")
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| tpavi", "| pcmanet"]
    assert len({line.count("|") for line in lines[2:]}) == 1


@pytest.mark.slow
def test_plot_has_one_curve_per_model(done: Path) -> None:
    pixels = np.asarray(Image.open(done / f"results/{NAME}.png").convert("RGB")).reshape(-1, 3)
    for colour in ((0, 114, 178), (213, 94, 0)):
        assert (pixels == colour).all(1).sum() > 20
    curve = read_curves(done / f"runs/{NAME}/tpavi/seed0")["val/avsbench/j"]
    assert curve.steps.tolist() == [2, 4]


@pytest.mark.slow
def test_epochs_are_counted_up_to_the_budget(done: Path) -> None:
    printed = (done / "printed.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"epoch \d+/\d+, step \d+", printed)) == {"epoch 1/2, step 2", "epoch 2/2, step 4"}


@pytest.mark.slow
def test_second_call_repeats_no_run(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(done)
    before = {p: p.stat().st_mtime_ns for p in done.glob("runs/**/model.safetensors")}
    assert len(before) >= 4
    scored = []
    monkeypatch.setattr(module, "evaluate", lambda *a, **k: scored.append(a))
    assert main(WORDS) == 0
    assert not scored
    assert {p: p.stat().st_mtime_ns for p in done.glob("runs/**/model.safetensors")} == before


@pytest.mark.slow
def test_other_recipe_in_same_folder_raises(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done)
    assert main([*WORDS, "--train.lr", "0.1"]) == 2
    assert "train.lr = 0.0005, this run 0.1" in capsys.readouterr().err


@pytest.mark.slow
def test_other_schedule_in_same_folder_raises(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done)
    assert main([*WORDS, "--budget", "2", "--train.schedule", "constant"]) == 2
    assert "train.schedule" in capsys.readouterr().err


@pytest.mark.slow
def test_budget_of_a_run_of_constant_rate_may_grow_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, "--train.schedule", "constant", "-o", "runs", "--seeds", "1", "--models", "tpavi"]
    assert main(words) == 0
    assert main([*words, "--budget", "2"]) == 2
    assert "holds a run of 4 steps, the budget is 2: choose another --out" in capsys.readouterr().err
    assert main([*words, "--budget", "6"]) == 0
    kept = json.loads((tmp_path / "runs/tpavi/seed0/scores.json").read_text(encoding="utf-8"))
    assert kept["of"] == {"split": "test", "step": 6}


@pytest.mark.slow
def test_killed_comparison_continues(done: Path, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, "--train.save_every", "1"]
    blows = (  # in the first training, in the second one, and after three of four
        (signal.SIGINT, "runs/*/*/seed0/metrics.csv", 1),
        (signal.SIGKILL, "runs/*/*/seed0/metrics.csv", 2),
        (signal.SIGKILL, "runs/*/*/seed*/scores.json", 3),
    )
    written: dict[Path, int] = {}
    for blow, pattern, count in blows:
        process = start(words)
        while process.is_alive() and len(list(tmp_path.glob(pattern))) < count:
            time.sleep(0.002)
        os.kill(process.pid, blow)
        process.join(200)
        assert process.exitcode == (-9 if blow == signal.SIGKILL else 130)
        assert {path: path.stat().st_mtime_ns for path in written} == written
        scored = [path.with_name("last") / "model.safetensors" for path in tmp_path.glob("runs/*/*/seed*/scores.json")]
        written = {path: path.stat().st_mtime_ns for path in scored}
    assert len(written) == 3
    process = start(words)
    process.join(200)
    assert process.exitcode == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert scores(tmp_path) == scores(done)


def scores(folder: Path) -> dict[str, object]:
    models = json.loads((folder / f"results/{NAME}.json").read_text(encoding="utf-8"))["numbers"]["models"]
    return {label: model["scores"] for label, model in models.items()}


def test_unwritable_results_raise_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").write_text("a file", encoding="utf-8")
    assert main(WORDS) == 2
    assert "choose another --results" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
