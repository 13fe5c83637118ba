from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from avseg.errors import ConfigError
from avseg.nn.audio import AudioEncoder, VGGish

GOLDEN = np.load(Path(__file__).parents[1] / "parity" / "vggish.npz")


def test_vggish_equals_the_public_port(layouts: dict, weights: Callable) -> None:
    net = VGGish()
    net.load_state_dict(weights(layouts["vggish"], gain=1.4))
    with torch.no_grad():
        embedding = net(torch.from_numpy(GOLDEN["log_mel"]))
    np.testing.assert_allclose(embedding.numpy(), GOLDEN["embedding"], rtol=1e-3, atol=1e-3)


def test_a_frozen_encoder_stays_frozen() -> None:
    encoder = AudioEncoder("compact", train=False).train()
    assert not encoder.training
    assert encoder.net is not None
    assert not encoder.net.training
    embedding = encoder(torch.randn(1, 2, 1, 96, 64))
    assert not embedding.requires_grad
    assert embedding.shape == (1, 2, 128)


def test_a_learning_encoder_learns() -> None:
    encoder = AudioEncoder("compact", train=True).train()
    encoder(torch.randn(2, 3, 1, 96, 64)).square().mean().backward()
    assert not [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]


def test_embeddings_pass_through() -> None:
    embeddings = torch.randn(1, 2, 128)
    assert AudioEncoder("compact", train=True)(embeddings) is embeddings
    assert AudioEncoder("none", train=False, dim=7)(embeddings[..., :7]).shape == (1, 2, 7)


def test_two_ears_embed_their_channels_side_by_side() -> None:
    encoder = AudioEncoder("compact", train=True, stereo=True).eval()
    both = torch.randn(2, 3, 2, 96, 64)
    embeddings = encoder(both)
    assert embeddings.shape == (2, 3, encoder.dim) == (2, 3, 256)
    one = AudioEncoder("compact", train=True).eval()
    one.load_state_dict(encoder.state_dict())
    for ear in range(2):
        alone = one(both[:, :, ear : ear + 1])
        assert torch.allclose(embeddings[..., 128 * ear : 128 * (ear + 1)], alone, atol=1e-5)
    centred = encoder(both[:, :, :1])
    assert torch.equal(centred[..., :128], centred[..., 128:])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("compact", (1, 2, 64), "D = 64, this model was built for 128"),
        ("none", (1, 2, 1, 96, 64), "no audio encoder"),
        ("compact", (1, 2, 2, 96, 64), "hears one channel, got 2"),
    ],
)
def test_audio_that_does_not_fit(name: str, shape: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AudioEncoder(name, train=False)(torch.zeros(shape))
