import pytest
import torch

from avseg.devices import check_computes, find_device, move
from avseg.errors import ConfigError


@pytest.mark.parametrize(
    ("cuda", "mps", "found"), [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_prefers_cuda_then_mps_then_cpu(
    cuda: bool, mps: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert find_device("auto") == torch.device(found)


def test_names_and_devices_pass() -> None:
    assert find_device("cuda:1") == torch.device("cuda", 1)
    assert find_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("wrong", ["warp", "", 3.5, None])
def test_unknown_device_is_one_line(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"device .* cannot be used \(.*\): choose auto or cpu") as caught:
        find_device(wrong)
    assert "\n" not in str(caught.value)


def test_device_without_support_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = torch.nn.Linear(2, 2)

    def refuse(device: torch.device) -> None:
        raise AssertionError("Torch not compiled with CUDA enabled\nsecond line")

    monkeypatch.setattr(module, "to", refuse)
    with pytest.raises(ConfigError, match=r"device 'cuda' cannot be used \(Torch not compiled with CUDA enabled\):"):
        move(module, "cuda")


def test_move_returns_the_moved_module() -> None:
    module = torch.nn.Linear(2, 2)
    assert move(module, "meta") is module
    assert module.weight.device.type == "meta"


def test_meta_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="it holds shapes without values"):
        check_computes("meta")
    check_computes("cpu")
