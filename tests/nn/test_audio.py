from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from avseg.errors import ConfigError
from avseg.nn.audio import AudioEncoder, VGGish, statistics_kept

GOLDEN = np.load(Path(__file__).parents[1] / "parity" / "vggish.npz")


@pytest.mark.slow
def test_vggish_equals_the_public_port(layouts: dict, weights: Callable) -> None:
    net = VGGish()
    net.load_state_dict(weights(layouts["vggish"], gain=1.4))
    with torch.no_grad():
        embedding = net(torch.from_numpy(GOLDEN["log_mel"]))
    np.testing.assert_allclose(embedding.numpy(), GOLDEN["embedding"], rtol=1e-3, atol=1e-3)


def test_frozen_encoder_stays_frozen() -> None:
    encoder = AudioEncoder("compact", train=False).train()
    assert not encoder.training
    assert encoder.net is not None
    assert not encoder.net.training
    embedding = encoder(torch.randn(1, 2, 1, 96, 64))
    assert not embedding.requires_grad
    assert embedding.shape == (1, 2, 128)


def test_frozen_encoder_is_in_evaluation_mode_from_the_start() -> None:
    encoder = AudioEncoder("compact", train=False)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder(torch.randn(1, 2, 1, 96, 64))
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_trainable_encoder_receives_gradient() -> None:
    encoder = AudioEncoder("compact", train=True).train()
    encoder(torch.randn(2, 3, 1, 96, 64)).square().mean().backward()
    assert not [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]


def test_embeddings_pass_through() -> None:
    embeddings = torch.randn(1, 2, 128)
    assert AudioEncoder("compact", train=True)(embeddings) is embeddings
    assert AudioEncoder("none", train=False, dim=7)(embeddings[..., :7]).shape == (1, 2, 7)


def test_stereo_concatenates_channel_embeddings() -> None:
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
        ("compact", (1, 2, 2, 96, 64), "takes one audio channel, got 2"),
    ],
)
def test_audio_of_wrong_shape_is_refused(name: str, shape: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AudioEncoder(name, train=False)(torch.zeros(shape))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "channels"), [("compact", 128), ("vggish", 512)])
@pytest.mark.parametrize("ears", [1, 2])
def test_embeddings_are_pooled_maps(name: str, channels: int, ears: int) -> None:
    encoder = AudioEncoder(name, train=True, stereo=ears == 2).eval()
    audio = torch.randn(2, 3, ears, 96, 64)
    with torch.no_grad():
        features = encoder.features(audio)
        assert features.maps.shape == (2, 3, encoder.channels, 6, 4) == (2, 3, channels * ears, 6, 4)
        assert torch.equal(features.embeddings, encoder(audio))
        each = [encoder.net.embed(ear) for ear in features.maps.flatten(0, 1).split(channels, 1)]
        torch.testing.assert_close(features.embeddings, torch.cat(each, 1).view(2, 3, -1))
        # The axes are time, then frequency: a late onset is late in the map.
        quiet = torch.zeros(1, 1, ears, 96, 64)
        late = quiet.clone()
        late[..., 80:, :] += 3
        changed = (encoder.features(late).maps - encoder.features(quiet).maps).abs().amax((0, 1, 2, 4))
    assert not changed[:3].any()
    assert changed[-1] > 0


def test_maps_have_gradient_if_the_encoder_is_trainable() -> None:
    audio = torch.randn(1, 2, 1, 96, 64)
    learns = AudioEncoder("compact", train=True).train()
    learns.features(audio).maps.square().mean().backward()
    assert learns.net.features[1].weight.grad.any()
    assert not AudioEncoder("compact", train=False).features(audio).maps.requires_grad


def test_embeddings_are_a_map_of_one_position() -> None:
    embeddings = torch.randn(1, 2, 7)
    encoder = AudioEncoder("none", train=False, dim=7)
    features = encoder.features(embeddings)
    assert features.embeddings is embeddings
    assert features.maps.shape == (1, 2, encoder.channels, 1, 1)
    assert torch.equal(features.maps.flatten(2), embeddings)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("compact", (1, 2, 128), r"feature maps of its audio encoder: give log-mel, got \(1, 2, 128\)"),
        ("none", (1, 2, 64), "D = 64, this model was built for 128"),
        ("none", (1, 2, 1, 96, 64), "no audio encoder"),
        ("compact", (1, 2, 2, 96, 64), "takes one audio channel, got 2"),
    ],
)
def test_audio_without_map_is_refused(name: str, shape: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AudioEncoder(name, train=True).features(torch.zeros(shape))


def test_statistics_kept_does_not_update_batch_norm() -> None:
    encoder = AudioEncoder("compact", train=True).train()
    encoder(torch.randn(2, 2, 1, 96, 64))

    def statistics() -> dict[str, torch.Tensor]:
        return {name: b.clone() for name, b in encoder.named_buffers()}

    before = statistics()
    other = 5 + torch.randn(2, 2, 1, 96, 64)
    with statistics_kept(encoder):
        inside = encoder.features(other).maps
    assert inside.requires_grad
    assert all(torch.equal(b, before[name]) for name, b in statistics().items())
    with pytest.raises(RuntimeError, match="halfway"), statistics_kept(encoder):
        raise RuntimeError("halfway")
    assert all(module.training for module in encoder.modules())
    encoder(other)
    assert not [name for name, b in statistics().items() if torch.equal(b, before[name])]


def test_statistics_kept_normalises_with_running_statistics() -> None:
    encoder = AudioEncoder("compact", train=True).train()
    audio = 5 + torch.randn(2, 2, 1, 96, 64)
    with statistics_kept(encoder):
        inside = encoder.features(audio).maps
    assert torch.equal(inside, encoder.eval().features(audio).maps)
    with statistics_kept(encoder):
        pass
    assert not any(module.training for module in encoder.modules())
