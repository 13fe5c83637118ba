import numpy as np
import pytest
import torch

from avseg.data.synthetic import KINDS
from avseg.mel import SAMPLE_RATE, log_mel_at
from avseg.synthesis.sprites.traits import Traits

SECONDS = 4


def patches(kind: int, split: str, clip: int) -> np.ndarray:
    """Return (4, 96, 64) log-mel of one sound at random level over a noise floor."""
    rng = np.random.default_rng([kind, clip])
    wave = KINDS[kind].sound(Traits(rng, split), SECONDS * SAMPLE_RATE)
    wave = wave * rng.uniform(0.15, 0.6) + 0.001 * rng.standard_normal(len(wave))
    return log_mel_at(torch.from_numpy(wave.astype(np.float32)), torch.arange(SECONDS) + 0.5).numpy()[:, 0]


def features(patch: np.ndarray) -> np.ndarray:
    """Return mean spectrum, its deviation, roughness and rhythm, independent of the level."""
    patch = patch - patch.mean()
    rhythm = np.abs(np.fft.rfft(patch - patch.mean(0), axis=0))[1:45].reshape(11, 4, 8, 8).mean((1, 3))
    rough = np.abs(np.diff(patch, axis=0)).mean(0)
    return np.concatenate([2 * patch.mean(0), 2 * patch.std(0), 4 * rough, np.log1p(rhythm).ravel()])


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=[k.name for k in KINDS])
def test_sound_has_full_length_and_is_audible_in_every_patch(kind):
    for clip in range(3):
        wave = KINDS[kind].sound(Traits(np.random.default_rng(clip), "train"), SECONDS * SAMPLE_RATE)
        assert wave.shape == (SECONDS * SAMPLE_RATE,)
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() == pytest.approx(1.0)
        audio = log_mel_at(torch.from_numpy(wave.astype(np.float32)), torch.arange(SECONDS) + 0.5)
        assert (audio.amax((1, 2, 3)) > np.log(0.01) + 3.0).all()


@pytest.mark.slow
def test_nearest_centroid_classifies_test_sounds():
    kinds = range(len(KINDS))
    train = np.array([[features(p) for c in range(10) for p in patches(k, "train", c)] for k in kinds])
    mean, spread = train.mean((0, 1)), train.std((0, 1)) + 1e-6
    centroids = ((train - mean) / spread).mean(1)
    test = np.array([[features(p) for c in range(5) for p in patches(k, "test", 100 + c)] for k in kinds])
    far = (((test - mean) / spread)[:, :, None] - centroids) ** 2
    right = far.sum(-1).argmin(-1) == np.arange(len(KINDS))[:, None]
    assert right.mean() > 0.8
    assert right.mean(1).min() > 0.3
