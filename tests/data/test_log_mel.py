import os
from pathlib import Path

import numpy as np
import pytest
import torch

from avseg.data._log_mel import cached, consecutive
from avseg.errors import DataError
from avseg.mel import log_mel

NOISE = torch.randn(200_000, generator=torch.Generator().manual_seed(1)) * 0.1


def test_patch_k_starts_at_k_times_096_seconds() -> None:
    mel = consecutive(NOISE[:80_000], 5, "last", Path("a.wav"))
    assert mel.shape == (5, 1, 96, 64)
    for k in range(5):
        start = k * 15_360  # 0.96 s
        assert torch.allclose(mel[k], log_mel(NOISE[start : start + 15_600], 16_000)[0], atol=1e-5)


def test_padding_repeats_last_patch_or_is_zero() -> None:
    three = consecutive(NOISE[:48_000], 3, "last", Path("a.wav"))
    assert torch.equal(consecutive(NOISE[:48_000], 5, "last", Path("a.wav")), three[[0, 1, 2, 2, 2]])
    zero = consecutive(NOISE[:48_000], 5, "zero", Path("a.wav"))
    assert torch.equal(zero[:3], three)
    assert not zero[3:].any()


@pytest.mark.parametrize(
    ("samples", "hint"),
    [
        (0, "is too short for one patch of 0.96 s"),
        (15_000, "is too short for one patch of 0.96 s"),
        (5 * 16_000 + 13_000, "holds 6 patches of 0.96 s, the clip has 5 frames"),
    ],
)
def test_audio_of_wrong_length_raises(samples: int, hint: str) -> None:
    with pytest.raises(DataError, match=f"a.wav {hint}"):
        consecutive(NOISE[:samples], 5, "last", Path("a.wav"))


class Costly:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        return torch.full((2, 3), float(self.calls))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").write_bytes(b"1234")
    return tmp_path / "a.wav"


def test_cache_is_valid_until_file_changes(file: Path, tmp_path: Path) -> None:
    folder, make = str(tmp_path / "new" / "cache"), Costly()
    for _ in range(2):
        assert cached(folder, [file], "wav", make)[0, 0] == 1
    assert cached(folder, [file], "centred", make)[0, 0] == 2
    file.write_bytes(b"12345")
    assert cached(folder, [file], "wav", make)[0, 0] == 3
    os.utime(file, ns=(0, 0))
    assert cached(folder, [file], "wav", make)[0, 0] == 4
    assert cached(None, [file], "wav", make)[0, 0] == 5
    assert not [p for p in Path(folder).iterdir() if p.suffix != ".npy"]


def test_damaged_cache_file_is_recomputed(file: Path, tmp_path: Path) -> None:
    folder, make = tmp_path / "cache", Costly()
    cached(str(folder), [file], "wav", make)
    (kept,) = folder.iterdir()
    for damage in (b"", kept.read_bytes()[:-4], b"no numpy"):
        kept.write_bytes(damage)
        before = make.calls
        assert cached(str(folder), [file], "wav", make)[0, 0] == before + 1
        assert np.load(kept)[0, 0] == before + 1


def test_unwritable_cache_raises(file: Path) -> None:
    with pytest.raises(DataError, match=r"cannot write .*a.wav \(.*\): give another cache"):
        cached(str(file), [file], "wav", Costly())
