import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from avseg.data._pickles import read_log_mel
from avseg.errors import DataError

MEL = torch.randn(5, 1, 96, 64, generator=torch.Generator().manual_seed(0))


def stored(folder: Path, thing: object, protocol: int = 4) -> Path:
    path = folder / "clip.pkl"
    path.write_bytes(pickle.dumps(thing, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "form",
    [
        lambda: MEL.clone().requires_grad_(),  # as stored by AVSBench's front end
        lambda: torch.nn.Parameter(MEL),
        lambda: MEL.double(),
        lambda: torch.cat([MEL, MEL])[5:],
        lambda: MEL.numpy(),
        lambda: MEL.numpy().astype(np.float64),
    ],
)
def test_log_mel_read_from_any_protocol(tmp_path: Path, protocol: int, form: Callable[[], object]) -> None:
    mel = read_log_mel(stored(tmp_path, form(), protocol))
    assert torch.allclose(mel, MEL)
    assert (mel.dtype, mel.requires_grad) == (torch.float32, False)


class Call:
    """A pickle that calls a function when it is opened."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(mark: Path) -> dict[str, tuple[Call, str]]:
    run = Call(os.system, f"touch {mark}")
    return {
        "plainly": (run, "it calls posix.system"),
        "by eval": (Call(eval, f"open({str(mark)!r}, 'w')"), "it calls builtins.eval"),
        "through a storage": (Call(torch.storage._load_from_bytes, pickle.dumps(run, 2)), "it calls posix.system"),
        "through a newer storage": (
            Call(torch.storage._load_from_bytes, pickle.dumps(run, 4)),
            "not in torch's storage format",
        ),
        "by its state": (Call(torch.load, str(mark)), "it calls torch.serialization.load"),
        "in a list": ([MEL, run], "it calls posix.system"),
    }


@pytest.mark.parametrize("way", attacks(Path()))
def test_pickle_that_calls_functions_raises(tmp_path: Path, way: str) -> None:
    attack, reason = attacks(tmp_path / "owned")[way]
    with pytest.raises(DataError) as caught:
        read_log_mel(stored(tmp_path, attack))
    assert f"cannot read log-mel safely from {tmp_path / 'clip.pkl'}" in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_attack_works_with_plain_pickle(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(attacks(tmp_path / "owned")["plainly"][0]))
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("thing", "got"),
    [({"a": 1}, "got dict"), (MEL[:, :, :50], r"got \(5, 1, 50, 64\)"), (MEL / 0, r"finite"), ("x", "got str")],
)
def test_other_content_raises(tmp_path: Path, thing: object, got: str) -> None:
    with pytest.raises(DataError, match=got):
        read_log_mel(stored(tmp_path, thing))


def test_missing_or_damaged_file_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .*none.pkl: .*'wav' needs no .pkl"):
        read_log_mel(tmp_path / "none.pkl")
    path = stored(tmp_path, MEL)
    for data in (b"", path.read_bytes()[:5000], b"EOF", bytes(range(256))):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"cannot read log-mel safely from .*clip.pkl \(.+\): set audio"):
            read_log_mel(path)
