"""The benchmark script speed.py: ratios on a clock that the test sets, and the mask of its gated rows."""

from itertools import accumulate

import pytest
import torch

import speed
from avseg.costs import all_macs
from avseg.models.pcmanet import QSCA


def test_ratios_are_of_the_same_round_and_leave_out_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [9.0, 9.0, 4.0, 2.0, 8.0, 2.0, 3.0, 1.0]  # warm-up, then plain and fast in turns
    ticks = accumulate(step for duration in seconds for step in (0.0, duration))
    monkeypatch.setattr(speed.time, "process_time", lambda: next(ticks))
    found = speed.alternate({"plain": lambda: None, "fast": lambda: None}, rounds=3)
    assert found["fast"] == {"seconds": 2.0, "times_as_fast": 3.0, "ratios": [2.0, 4.0, 3.0]}
    assert found["plain"]["times_as_fast"] == 1.0


def test_ring_covers_the_share() -> None:
    mask = speed.ring(torch.Size((2, 8, 56, 56)), 0.1)
    assert mask.shape == (2, 56, 56)
    assert 0.08 < mask.float().mean() < 0.12
    assert not mask[0, 28, 28]


def test_operations_of_qsca_follow_equation_6() -> None:
    block = QSCA(16, 2, update_audio=False, scatter_grad=True, transpose=True, gather=True).eval()
    frames, audio, valid = 3, torch.randn(1, 3, 16), torch.ones(1, 3, dtype=torch.bool)
    maps = torch.randn(frames, 16, 8, 8)
    for share in (1.0, 0.5, 0.25):
        mask = (torch.arange(64) < share * 64).view(1, 1, 8, 8).expand(frames, -1, -1, -1)
        with all_macs() as macs, torch.no_grad():
            block(maps, audio, mask, valid)
            counted = macs()
        of_audio = frames * (16 * 16 + 16 * 32)
        assert counted - of_audio == speed.qsca_macs(share, frames * 64, frames, 16)
