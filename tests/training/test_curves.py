"""Loggers of training curves."""

import csv
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from avseg.cli import main
from avseg.config import TrainConfig
from avseg.errors import ConfigError
from avseg.training.curves import CurveLogger, make_loggers


def test_csv_has_one_row_per_value(tmp_path: Path) -> None:
    logger = CurveLogger(tmp_path)
    logger.log_metrics({"a": 1 / 3, "b": 2.0}, 5)
    logger.finalize("success")
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["step", "name", "value"], ["5", "a", repr(1 / 3)], ["5", "b", "2.0"]]


def test_resume_truncates_rows_after_the_checkpoint(tmp_path: Path) -> None:
    logger = CurveLogger(tmp_path)
    logger.log_metrics({"a": 1.0}, 0)
    size = logger.size()
    kept = (tmp_path / "metrics.csv").read_bytes()
    assert size == len(kept)
    logger.log_metrics({"a": 2.0}, 1)
    logger.finalize("failed")
    resumed = CurveLogger(tmp_path, size)
    assert (tmp_path / "metrics.csv").read_bytes() == kept
    resumed.log_metrics({"a": 3.0}, 1)
    resumed.finalize("success")
    assert (tmp_path / "metrics.csv").read_text().splitlines()[-1] == "1,a,3.0"


def test_shorter_file_than_at_the_checkpoint_starts_again(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("x")
    CurveLogger(tmp_path, 100).finalize("success")
    assert (tmp_path / "metrics.csv").read_bytes() == b"step,name,value\r\n"


def test_tensorboard_writes_events_only_and_purges_after_resume(tmp_path: Path) -> None:
    for step in (0, 1):
        (logger,) = make_loggers(["tensorboard"], tmp_path, step=step)
        logger.log_hyperparams({"lr": 1.0})
        for k in range(step, 3):
            logger.log_metrics({"loss": float(10 * step + k)}, k)
        logger.save()
        logger.finalize("success")
    assert all(path.name.startswith("events.out.tfevents") for path in tmp_path.iterdir())
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(e.step, e.value) for e in events] == [(0, 0.0), (1, 11.0), (2, 12.0)]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_package_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avseg.training.curves.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=f"^train.loggers has {name}, which is not installed: pip install {name}$"):
        make_loggers(["csv", name], tmp_path)  # type: ignore[list-item]
    assert "wandb" not in sys.modules
    assert not list(tmp_path.iterdir()), "nothing is written before all loggers are known to work"


@pytest.mark.parametrize("loggers", [("csv", "csv"), ("tensorbord",)])
def test_repeated_or_unknown_logger_is_refused(loggers: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"train\.loggers"):
        TrainConfig(loggers=loggers)  # type: ignore[arg-type]


RUN = (
    *(
        "train",
        "--model",
        "tpavi",
        "--model.visual",
        "pvt_v2_b0",
        "--model.audio",
        "compact",
        "--model.train_audio",
        "true",
    ),
    *("--model.channels", "8", "--data.size", "32", "--data.frames", "2", "--data.train", "2", "--data.val", "1"),
    *("--train.epochs", "1", "--train.accelerator", "cpu", "--train.workers", "0", "--train.log_every", "1"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loggers", "files"), [("[]", set()), ("[csv]", {"metrics.csv"}), ("[tensorboard]", {"events"})]
)
def test_run_has_the_files_of_its_loggers(loggers: str, files: set[str], tmp_path: Path) -> None:
    assert main([*RUN, "--train.loggers", loggers, "-o", str(tmp_path)]) == 0
    found = {path.name.partition(".out.")[0] for path in tmp_path.iterdir()}
    assert found == {"config.yaml", "resume.ckpt", "best", "last", *files}
