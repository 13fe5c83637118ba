"""Exported files: equal predictions, cards, and files that are written completely or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import avseg
from avseg.cli import main
from avseg.errors import CheckpointError, ConfigError
from avseg.export import write
from avseg.export.static import LogitsOnly, static_form
from avseg.export.write import export
from avseg.files import sha256
from avseg.interface import AVSModel, Clip
from avseg.models import model_class
from avseg.pipeline.predict import ready
from avseg.testing import small_settings

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

pytestmark = pytest.mark.slow  # each export takes seconds
SIZE = 64


def small(name: str, classes: int = 3, **settings: Any) -> AVSModel:
    """Return a small model whose batch norms have statistics of some clips."""
    model = avseg.build(name, classes, **{**small_settings(model_class(name)), **settings})
    with torch.no_grad():
        model.train()(noise(2, 2))
    return model.eval()


def noise(b: int, t: int) -> Clip:
    return Clip(torch.randn(b, t, 3, SIZE, SIZE), torch.randn(b, t, 1, 96, 64))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[AVSModel, Path]:
    model = small("tpavi", 1, channels=8, stages=(4,))
    model.card = {"class_names": ["background", "cat"]}
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export(model, path, size=SIZE, frames=2)
    return model, path


def test_a_model_that_the_exporter_refuses_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("Failed to decompose the graph.\n\nno ONNX function for aten.unusual")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(CheckpointError) as error:
        export(small("pcmanet", 1), tmp_path / "model.onnx", size=SIZE, frames=2)
    assert str(error.value) == "pcmanet cannot be exported with these settings: no ONNX function for aten.unusual"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("b", "t"), [(1, 1), (1, 5), (3, 2)])
def test_exported_file_has_dynamic_batch_and_frames(exported: tuple[AVSModel, Path], b: int, t: int) -> None:
    model, path = exported
    clip = noise(b, t)
    with torch.no_grad():
        torch.testing.assert_close(avseg.load(path)(clip).logits, model(clip).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["cpm", "ama_ue"])
def test_models_with_clustering_and_queries_export(tmp_path: Path, name: str) -> None:
    model, clip = small(name), noise(1, 3)
    parity = export(model, tmp_path / "model.onnx", size=SIZE, frames=2)
    assert max(found.probabilities for found in parity) <= write.TOLERANCE
    with torch.no_grad():
        found, expected = avseg.load(tmp_path / "model.onnx")(clip), model(clip)
    assert (found.probabilities - expected.probabilities).abs().max() <= write.TOLERANCE


def test_padding_frames_do_not_change_exported_predictions(exported: tuple[AVSModel, Path]) -> None:
    model, path = exported
    clip = noise(2, 3)
    valid = torch.tensor([[True, True, False], [True, False, False]])
    clip = Clip(clip.frames, clip.audio, valid)
    with torch.no_grad():
        one, two = avseg.load(path)(clip).logits[valid], model(clip).logits[valid]
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)


def test_card_has_model_classes_size_parity_and_versions(exported: tuple[AVSModel, Path]) -> None:
    card = json.loads(exported[1].with_name("model.onnx.json").read_text())
    assert (card["model"], card["classes"], card["class_names"]) == ("tpavi", 1, ["background", "cat"])
    assert card["config"]["stages"] == [4]
    assert card["export"]["size"] == card["data"]["size"] == [SIZE, SIZE]
    assert card["export"]["opset"] == write.OPSET
    assert card["export"]["versions"]["torch"] == torch.__version__
    assert [found["input"] for found in card["export"]["parity"]] == [
        "random, B = 2, T = 2", "random, B = 1, T = 2", "random, B = 1, T = 1",
    ]  # fmt: skip
    assert all(found["probabilities"] < 1e-4 for found in card["export"]["parity"])


def test_load_refuses_a_file_without_its_card(exported: tuple[AVSModel, Path], tmp_path: Path) -> None:
    shutil.copy(exported[1], tmp_path)
    with pytest.raises(CheckpointError, match=r"has no model\.onnx\.json next to it"):
        avseg.load(tmp_path / "model.onnx")


def test_load_refuses_a_damaged_card(exported: tuple[AVSModel, Path], tmp_path: Path) -> None:
    shutil.copy(exported[1], tmp_path)
    card = tmp_path / "model.onnx.json"
    card.write_text('{"model": "tpavi"')
    with pytest.raises(CheckpointError, match=r"model\.onnx\.json is not a card"):
        avseg.load(tmp_path / "model.onnx")
    card.write_text('{"model": "tpavi", "classes": 1, "config": {}}')
    with pytest.raises(CheckpointError, match="describes no exported file"):
        avseg.load(tmp_path / "model.onnx")


def test_load_refuses_a_file_that_its_card_does_not_describe(exported: tuple[AVSModel, Path], tmp_path: Path) -> None:
    shutil.copy(exported[1].with_name("model.onnx.json"), tmp_path)
    (tmp_path / "model.onnx").write_bytes(exported[1].read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is not the file described"):
        avseg.load(tmp_path / "model.onnx")


def test_load_refuses_another_device_than_the_cpu(exported: tuple[AVSModel, Path]) -> None:
    with pytest.raises(ConfigError, match="runs on the CPU, not on cuda"):
        avseg.load(exported[1], "cuda")
    assert avseg.load(exported[1], "auto").name == "tpavi"


def test_predict_uses_an_exported_file_as_it_is(exported: tuple[AVSModel, Path]) -> None:
    loaded = ready(exported[1], "cpu")
    assert (loaded.network.optimized, loaded.weights_sha256) == (("onnx",), sha256(exported[1]))
    with pytest.raises(ConfigError, match=r"optimized already \(onnx\): give the original model"):
        ready(exported[1], "cpu", ["gated"])


def test_exported_model_refuses_maps_and_other_sizes(exported: tuple[AVSModel, Path]) -> None:
    model = avseg.load(exported[1])
    with pytest.raises(ConfigError, match="returns masks only"):
        model(noise(1, 1), maps=True)
    with pytest.raises(ConfigError, match="exported for frames of 64 x 64, got 32 x 32"):
        model(Clip(torch.randn(1, 1, 3, 32, 32), torch.randn(1, 1, 1, 96, 64)))
    with pytest.raises(ConfigError, match="or exported: give the original model"):
        export(model, "again.onnx")


def test_a_file_that_differs_from_its_model_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(model: AVSModel, path: Path, clip: Clip) -> None:
        other = static_form(model)
        with torch.no_grad():
            other.head[-1].bias += 1  # type: ignore[index, union-attr]
        write_graph(other, path, clip)

    write_graph = write._write
    monkeypatch.setattr(write, "_write", off)
    with pytest.raises(CheckpointError, match=r"differs from the model .* it is not written"):
        export(small("tpavi", 1, channels=8, stages=()), tmp_path / "model.onnx", size=SIZE, frames=2)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "find_spec", lambda name: None)
        assert main(["export", "small", "-o", str(tmp_path / "model.onnx")]) == 2
    assert "export needs onnx, onnxscript, onnxruntime, not installed: pip install" in capsys.readouterr().err


def test_static_form_keeps_the_logits_and_the_model(exported: tuple[AVSModel, Path]) -> None:
    model, clip = small("pcmanet", 1), noise(1, 2)
    static = static_form(model)
    assert model.config.gather
    assert not static.config.gather
    with torch.no_grad():
        torch.testing.assert_close(LogitsOnly(static)(clip.frames, clip.audio), model(clip).logits, atol=1e-4, rtol=0)
