"""benchmarks/gpu.py: the refusal where there is no GPU."""

from pathlib import Path

import pytest
import torch

import gpu


def test_without_a_gpu_it_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as end:
        gpu.main([str(tmp_path / "gpu.json")])
    assert end.value.code == 2
    assert "torch finds no CUDA GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
