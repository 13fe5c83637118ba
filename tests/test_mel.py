import math
from pathlib import Path

import numpy as np
import pytest
import torch

import avseg
from avseg.mel import _BINS, SAMPLE_RATE, _mel_matrix, log_mel_at, mono16k

GOLDEN = np.load(Path(__file__).parent / "parity" / "vggish.npz")


def test_equals_the_public_vggish_front_end() -> None:
    mel = avseg.log_mel(GOLDEN["waveform"], SAMPLE_RATE)
    assert mel.shape == (1, 1, 96, 64)
    np.testing.assert_allclose(mel.numpy(), GOLDEN["log_mel"], atol=1e-4)


def _slow_frame(samples: np.ndarray) -> np.ndarray:
    """Compute one 25 ms frame from the definition: DFT sums, triangles linear in mel."""
    n = np.arange(400)
    windowed = samples * (0.5 - 0.5 * np.cos(2 * np.pi * n / 400))
    magnitude = [abs(np.sum(windowed * np.exp(-2j * np.pi * k * n / 512))) for k in range(257)]

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    edges = [mel(125) + (mel(7500) - mel(125)) * i / 65 for i in range(66)]
    bands = []
    for left, centre, right in zip(edges, edges[1:], edges[2:], strict=False):
        total = 0.0
        for k in range(1, 257):
            m = mel(k * 8000 / 256)
            total += magnitude[k] * max(0.0, min((m - left) / (centre - left), (right - m) / (right - centre)))
        bands.append(math.log(total + 0.01))
    return np.array(bands)


def test_equals_the_definition_computed_slowly() -> None:
    waveform = np.random.default_rng(0).normal(size=16_000) * 0.1
    mel = avseg.log_mel(waveform, SAMPLE_RATE)[0, 0]
    for frame in (0, 57, 95):
        np.testing.assert_allclose(mel[frame].numpy(), _slow_frame(waveform[frame * 160 :][:400]), atol=1e-4)


def test_a_loud_tone_does_not_change_silent_bands() -> None:
    tone = np.sin(2 * np.pi * 997 * np.arange(16_000) / SAMPLE_RATE).astype(np.float32)
    np.testing.assert_allclose(avseg.log_mel(tone, SAMPLE_RATE)[0, 0, 0].numpy(), _slow_frame(tone[:400]), atol=2e-5)


@pytest.mark.parametrize(("seconds", "patches"), [(5, 5), (10, 10), (0.98, 1), (0.97, 0), (0, 0)])
def test_incomplete_patches_are_dropped(seconds: float, patches: int) -> None:
    assert avseg.log_mel(np.zeros(int(seconds * SAMPLE_RATE)), SAMPLE_RATE).shape == (patches, 1, 96, 64)


def test_silence_is_the_logarithm_of_the_offset() -> None:
    assert torch.allclose(avseg.log_mel(np.zeros(16_000), SAMPLE_RATE), torch.tensor(math.log(0.01)))


def test_tone_has_energy_in_its_band_at_any_rate() -> None:
    for rate in (16_000, 44_100, 8_000):
        t = np.arange(rate * 2) / rate
        band = avseg.log_mel(np.sin(2 * np.pi * 1000 * t), rate)[0, 0].mean(0).argmax().item()
        expected = (1127 * math.log(1 + 1000 / 700) - 1127 * math.log(1 + 125 / 700)) / (
            (1127 * math.log(1 + 7500 / 700) - 1127 * math.log(1 + 125 / 700)) / 65
        ) - 1
        assert abs(band - expected) <= 1, rate


def test_channels_are_averaged_and_int16_is_scaled() -> None:
    left, right = np.random.default_rng(1).uniform(-1, 1, (2, 16_000))
    both = mono16k(np.stack([left, right]), SAMPLE_RATE)
    np.testing.assert_allclose(both.numpy(), (left + right) / 2, atol=1e-6)
    whole = mono16k((left * 32767).astype(np.int16), SAMPLE_RATE)
    np.testing.assert_allclose(whole.numpy(), left, atol=1e-4)


def test_patches_are_centred_with_silence_outside() -> None:
    waveform = torch.zeros(3 * SAMPLE_RATE)
    waveform[SAMPLE_RATE : 2 * SAMPLE_RATE] = torch.randn(SAMPLE_RATE)
    before, within, after, outside = log_mel_at(waveform, torch.tensor([0.5, 1.5, 2.5, 99.0]))
    assert before.shape == (1, 96, 64)
    assert within.mean() > 0
    for silent in (before, after, outside):
        assert torch.allclose(silent, torch.tensor(math.log(0.01)), atol=1e-4)


def test_patch_around_the_middle_of_a_patch_is_that_patch() -> None:
    waveform = mono16k(GOLDEN["waveform"], SAMPLE_RATE)
    assert torch.equal(log_mel_at(waveform, torch.tensor([0.4875])), avseg.log_mel(waveform, SAMPLE_RATE))


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (np.zeros((2, 3, 4)), 16_000, r"got \(2, 3, 4\)"),
        (np.zeros(9), 0, "rate above 0 Hz"),
        (np.zeros(9, np.int32), 16_000, "got int32"),
        (np.array([0.0, np.nan]), 16_000, "NaN or infinity"),
    ],
)
def test_invalid_waveform_is_refused(waveform: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(avseg.AvsegError, match=message):
        avseg.log_mel(waveform, rate)


def test_all_bins_with_weight_are_used() -> None:
    matrix = _mel_matrix()
    assert matrix[_BINS].count_nonzero() == matrix.count_nonzero()


def test_values_do_not_depend_on_the_length_of_the_sound() -> None:
    waveform = np.random.default_rng(0).normal(size=5 * SAMPLE_RATE) * 0.1
    whole = avseg.log_mel(waveform, SAMPLE_RATE)
    for k in range(5):
        start = k * 96 * 160
        part = avseg.log_mel(waveform[start : start + 95 * 160 + 400], SAMPLE_RATE)
        assert torch.allclose(part[0], whole[k], rtol=0, atol=1e-6)
