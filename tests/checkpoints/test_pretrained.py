"""Tests of loading weights written by transformers: a small Mask2Former, and a Swin."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig, SwinForImageClassification

import avseg
from avseg.checkpoints.pretrained import load_decoder, load_visual
from avseg.cli import main
from avseg.errors import CheckpointError
from avseg.nn import visual

SWIN = {"depths": [1, 1, 2, 1], "embed_dim": 12, "num_heads": [1, 2, 3, 4]}
SMALL = {
    "channels": 32,
    "queries": 5,
    "layers": 4,
    "pixel_layers": 2,
    "heads": 4,
    "feedforward": 64,
    "audio": "compact",
}


@pytest.fixture(autouse=True)
def small_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(visual._RECIPES, "swin_tiny", visual._Recipe("nobody/nothing", SWIN))


@pytest.fixture(scope="module")
def theirs() -> Mask2FormerForUniversalSegmentation:
    torch.manual_seed(0)
    config = Mask2FormerConfig(
        backbone_config=SwinConfig(**SWIN, out_features=["stage1", "stage2", "stage3", "stage4"]),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        num_queries=5,
        decoder_layers=5,
        encoder_layers=2,
        num_attention_heads=4,
        dim_feedforward=64,
        encoder_feedforward_dim=32,
    )
    model = Mask2FormerForUniversalSegmentation(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)  # no bias is zero, no norm the identity
    return model


@pytest.fixture(scope="module")
def folder(theirs: Mask2FormerForUniversalSegmentation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mask2former")
    theirs.save_pretrained(path)
    return path


def cpm(**settings: Any) -> avseg.AVSModel:
    return avseg.build("cpm", 3, **{"visual": "swin_tiny", "audio": "compact", **SMALL, **settings}).eval()


def refused(load: Callable[[avseg.AVSModel, str], None], model: avseg.AVSModel, source: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load(model, str(source))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_decoder_weights_equal_transformers(theirs: Mask2FormerForUniversalSegmentation, folder: Path) -> None:
    ours = cpm()
    before = ours.head.weight.clone(), ours.visual.state_dict()
    load_decoder(ours, str(folder / "model.safetensors"))
    expected = {k: v for k, v in theirs.model.state_dict().items() if not k.startswith("pixel_level_module.encoder.")}
    assert set(ours.transformer.state_dict()) == set(expected)
    assert all(torch.equal(v, expected[k]) for k, v in ours.transformer.state_dict().items())
    assert torch.equal(ours.head.weight, before[0])
    assert all(torch.equal(v, before[1][k]) for k, v in ours.visual.state_dict().items())


@torch.no_grad()
def test_outputs_equal_transformers(theirs: Mask2FormerForUniversalSegmentation, folder: Path) -> None:
    ours, pictures = cpm(), torch.randn(2, 3, 64, 96)
    load_visual(ours, str(folder))
    load_decoder(ours, str(folder))
    pixels = ours.transformer.pixels(ours.visual(pictures))
    queries, positions = (q.expand(2, -1, -1) for q in ours.transformer.queries)
    drawn = ours.transformer.decode(pixels, queries, positions, lambda _, x: x)
    expected = theirs(pixel_values=pictures)
    torch.testing.assert_close(drawn.masks[-1], expected.masks_queries_logits)
    torch.testing.assert_close(theirs.class_predictor(drawn.queries[-1]), expected.class_queries_logits)
    torch.testing.assert_close(pixels.masks, expected.pixel_decoder_last_hidden_state)


def in_memory(state: dict[str, Tensor], theirs: Mask2FormerForUniversalSegmentation) -> dict[str, Tensor]:
    return theirs.state_dict()


def with_indices(state: dict[str, Tensor], theirs: Mask2FormerForUniversalSegmentation) -> dict[str, Tensor]:
    """Add index buffers, which old files contain."""
    tables = [k for k in state if k.endswith("relative_position_bias_table")]
    assert tables
    return state | {k.replace("bias_table", "index"): torch.zeros(49, 49).long() for k in tables}


def without_head(state: dict[str, Tensor], theirs: Mask2FormerForUniversalSegmentation) -> dict[str, Tensor]:
    return {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}


@pytest.mark.parametrize("form", [in_memory, with_indices, without_head])
def test_every_form_of_the_file_is_read(
    form: Callable[..., dict[str, Tensor]],
    theirs: Mask2FormerForUniversalSegmentation,
    folder: Path,
    tmp_path: Path,
) -> None:
    state = form(load_file(folder / "model.safetensors"), theirs)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "m.safetensors")
    ours = cpm()
    load_visual(ours, str(tmp_path / "m.safetensors"))
    load_decoder(ours, str(tmp_path / "m.safetensors"))
    encoder = theirs.model.pixel_level_module.encoder.state_dict()
    assert all(torch.equal(v, encoder[k]) for k, v in ours.visual.net.state_dict().items())


def test_swin_as_transformers_writes_a_classifier(tmp_path: Path) -> None:
    theirs, ours = SwinForImageClassification(SwinConfig(**SWIN)), cpm()
    theirs.save_pretrained(tmp_path)
    load_visual(ours, str(tmp_path))
    expected = theirs.swin.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in ours.visual.net.swin.state_dict().items())
    assert all(bool((norm.weight == 1).all()) for norm in ours.visual.net.hidden_states_norms.values())


def test_size_mismatch_names_our_settings(folder: Path) -> None:
    source = folder / "model.safetensors"
    error = refused(load_decoder, cpm(queries=7, channels=64), source)
    assert "queries 5, the model 7; channels 32, the model 64: give" in error
    assert "it has layers 4, the model 3: give" in refused(load_decoder, cpm(layers=3), source)
    assert "feedforward 64, the model 128" in refused(load_decoder, cpm(feedforward=128), source)
    assert "attention_weights.bias (48,) ≠ (24,)" in refused(load_decoder, cpm(heads=2), source)
    assert "wrongly shaped: pixel_level_module.decoder" in refused(load_decoder, cpm(visual="resnet18"), source)


def test_other_weights_and_models_are_refused(folder: Path, tmp_path: Path) -> None:
    ours = cpm()
    save_file({k: v.contiguous() for k, v in ours.visual.net.state_dict().items()}, tmp_path / "swin.safetensors")
    assert "is no Mask2Former" in refused(load_decoder, ours, tmp_path / "swin.safetensors")
    assert "no weights at" in refused(load_decoder, ours, tmp_path / "nothing.safetensors")
    other = avseg.build("pcmanet", visual="resnet18", channels=16, audio="none")
    assert "pcmanet has no decoder" in refused(load_decoder, other, folder / "model.safetensors")


TRAIN = [
    *("train", "--model", "cpm", "--model.visual", "swin_tiny", "--model.audio", "compact"),
    *("--model.train_audio", "true", *(f"--model.{name}={value}" for name, value in SMALL.items())),
    *("--data.size", "64", "--data.frames", "1", "--data.train", "2", "--data.val", "1", "--train.accelerator", "cpu"),
    *("--train.batch_size", "2", "--train.max_steps", "1", "--train.workers", "0", "--train.lr", "1e-9"),
]


@pytest.mark.slow
def test_runs_start_from_pretrained_and_trained_weights(
    theirs: Mask2FormerForUniversalSegmentation, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(folder / "model.safetensors")
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*TRAIN, "--weights.visual", file, "--weights.decoder", file, "-o", str(first)]) == 0
    assert main([*TRAIN, "--weights.decoder", str(first / "last"), "-o", str(second)]) == 0
    queries = theirs.model.transformer_module.queries_features.weight
    for run in (first, second):
        torch.testing.assert_close(avseg.load(run / "last").transformer.queries[0], queries, atol=1e-6, rtol=0)
    capsys.readouterr()
    assert main([*TRAIN, "--weights.decoder", "small", "-o", str(tmp_path / "third")]) == 2
    assert "small is a pcmanet, which has no part 'transformer'" in capsys.readouterr().err
