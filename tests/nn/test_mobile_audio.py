from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import avseg
from avseg.checkpoints.pretrained import load_audio
from avseg.checkpoints.store import take_part
from avseg.errors import CheckpointError, ConfigError
from avseg.mel import log_mel
from avseg.model_folder import save
from avseg.nn.audio import AudioEncoder
from avseg.nn.mobile_audio import AUDIOSET_CLASSES, MobileAudio, YamnetLogMel, audioset_classes

SETTINGS = {"visual": "resnet18", "channels": 8, "groups": 2}


@pytest.mark.parametrize("n", [0, 1, 5])
def test_shapes_for_any_number_of_patches(n: int) -> None:
    net = MobileAudio()
    mel = torch.randn(n, 1, 96, 64)
    embedding = net(mel)
    assert net.features(mel).shape == (n, 512, 3, 2)
    assert embedding.shape == (n, 512)
    assert net.scores(embedding).shape == (n, AUDIOSET_CLASSES)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    net = MobileAudio()
    net.scores(net(torch.randn(8, 1, 96, 64))).square().mean().backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_number_of_parameters() -> None:
    count = sum(p.numel() for p in MobileAudio().parameters())
    assert 2_900_000 < count < 3_000_000


def slow_log_mel(wave: np.ndarray, offset: float) -> np.ndarray:
    """Compute log-mel frames from the definition, one DFT sum and one triangle at a time."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    hertz = np.arange(257) * 16000 / 512
    mels = 1127 * np.log(1 + hertz / 700)
    edges = np.linspace(*(1127 * np.log(1 + np.array([125.0, 7500.0]) / 700)), 66)
    frames = []
    for start in range(0, 96 * 160, 160):
        piece = wave[start : start + 400] * window
        magnitude = np.abs(np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512) @ piece)
        bands = []
        for left, centre, right in zip(edges, edges[1:], edges[2:], strict=False):
            triangle = np.minimum((mels - left) / (centre - left), (right - mels) / (right - centre)).clip(0)
            bands.append(triangle @ magnitude)
        frames.append(np.log(np.array(bands) + offset))
    return np.array(frames)


@pytest.mark.parametrize("gain", [0.5, 1e-3, 1e-5, 0.0])
def test_front_end_is_the_log_mel_of_yamnet(gain: float) -> None:
    wave = gain * np.random.default_rng(0).uniform(-1, 1, 15600).astype(np.float32)
    ours = YamnetLogMel()(log_mel(wave, 16000))[0, 0]
    np.testing.assert_allclose(ours.numpy(), slow_log_mel(wave, 0.001), atol=2e-4)


def test_front_end_computes_in_32_bits_and_returns_the_dtype_it_was_given() -> None:
    quiet = torch.full((1, 1, 96, 64), float(np.log(0.0105)))
    half = YamnetLogMel()(quiet.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, YamnetLogMel()(quiet.bfloat16().float()).bfloat16())


def test_strided_convolutions_pad_after_the_end_alone() -> None:
    # SAME of TensorFlow on 96 x 64: the first output sees rows 0-2, the last one rows 94 and 95 and one of zeros.
    net = MobileAudio()
    stem = net.features[1:3]
    x = torch.randn(1, 1, 96, 64)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    out = stem(x)
    assert out.shape == (1, 32, 48, 32)
    weight, bias = stem[1].weight, stem[1].bias
    for i, j in ((0, 0), (20, 7), (47, 31)):
        expected = (padded[0, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * weight).sum((1, 2, 3)) + bias
        torch.testing.assert_close(out[0, :, i, j], expected, rtol=1e-4, atol=1e-5)


def test_class_names() -> None:
    names = audioset_classes()
    assert len(names) == len(set(names)) == AUDIOSET_CLASSES
    assert (names[0], names[494], names[520]) == ("Speech", "Silence", "Field recording")


@pytest.mark.parametrize("ears", [1, 2])
def test_the_encoder_embeds_and_scores(ears: int) -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder("mobile", train=True, stereo=ears == 2)
    audio = torch.randn(2, 3, ears, 96, 64)
    heard = encoder.features(audio)
    assert heard.embeddings.shape == (2, 3, encoder.dim) == (2, 3, 512 * ears)
    assert heard.maps.shape == (2, 3, encoder.channels, 3, 2) == (2, 3, 512 * ears, 3, 2)
    torch.testing.assert_close(heard.maps.mean((3, 4)), heard.embeddings)
    assert torch.equal(encoder(audio), heard.embeddings)
    each = [encoder.net.scores(encoder.net(audio[:, :, i].flatten(0, 1).unsqueeze(1))) for i in range(ears)]
    expected = torch.stack(each).mean(0).view(2, 3, AUDIOSET_CLASSES)
    torch.testing.assert_close(encoder.scores(heard.embeddings), expected)


@pytest.mark.parametrize(
    ("name", "dim", "message"),
    [
        ("compact", 128, "does not score AudioSet classes: build the model with audio='mobile'"),
        ("none", 128, "does not score AudioSet classes"),
        ("mobile", 128, "D = 128, this model was built for 512"),
    ],
)
def test_embeddings_that_cannot_be_scored(name: str, dim: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AudioEncoder(name, train=False).scores(torch.zeros(1, 2, dim))


def test_keys_of_the_other_encoders_are_those_of_published_weights() -> None:
    compact = [f"net.features.{i}" for i in (0, 1, 2, 4, 5, 7, 8, 10, 11)]
    assert {k.rpartition(".")[0] for k in AudioEncoder("compact", train=True).state_dict()} == {*compact, "net.project"}
    vggish = {f"net.features.{i}" for i in (0, 3, 6, 8, 11, 13)} | {f"net.embeddings.{i}" for i in (0, 2, 4)}
    assert {k.rpartition(".")[0] for k in AudioEncoder("vggish", train=True).state_dict()} == vggish


@pytest.mark.slow
def test_weights_come_from_a_file_or_from_a_saved_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = MobileAudio()
    save_file(net.state_dict(), tmp_path / "mobile_audio.safetensors")
    model = avseg.build("pcmanet", audio="mobile", **SETTINGS)
    load_audio(model, str(tmp_path / "mobile_audio.safetensors"))
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in model.audio.net.state_dict().items())
    save(model, tmp_path / "model")
    other = avseg.build("pcmanet", audio="mobile", **SETTINGS)
    take_part(other, "audio", str(tmp_path / "model"))
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in other.audio.net.state_dict().items())
    with pytest.raises(CheckpointError, match="does not fit CompactAudio"):
        load_audio(avseg.build("pcmanet", audio="compact", **SETTINGS), str(tmp_path / "mobile_audio.safetensors"))
