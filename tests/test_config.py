"""Training settings that would exhaust the machine or make no sense are refused before anything starts."""

from typing import Any

import pytest

from avseg.config import TrainConfig, read_run
from avseg.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": float("nan")}, "train.lr must be float, got nan"),
        ({"weight_decay": float("inf")}, "train.weight_decay must be float, got inf"),
        ({"workers": 1000}, "train.workers must be at most 16 on a machine of 2 cores, got 1000"),
        ({"devices": 5, "accelerator": "cpu"}, "train.devices must be at most 2 on the CPU"),
        ({"loggers": None}, "train.loggers must be list of"),
        ({"epochs": 1.5}, "train.epochs must be int, got 1.5"),
        ({"batch_size": 2**63}, "train.batch_size must be at most 2147483647, got 9223372036854775808"),
        ({"devices": 0}, "train.devices must be 1 or more"),
    ],
)
def test_impossible_training_settings_raise(
    settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


def test_learning_rate_nan_in_a_flag_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"train\.lr must be float, got nan"):
        read_run(["--train.lr", ".nan"])
