import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import avseg
from avseg.checkpoints.pretrained import load_audio, load_visual
from avseg.checkpoints.state import read_state
from avseg.checkpoints.store import start_from
from avseg.errors import AvsegError, CheckpointError
from avseg.interface import AVSModel
from avseg.model_folder import bundled, read_card, save


def model(**config: object) -> avseg.AVSModel:
    return avseg.build("pcmanet", visual="pvt_v2_b0", audio="none", channels=16, **config)


class Trap:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1), "b": Trap(tmp_path / "owned")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="no plain tensors"):
        avseg.from_release(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_broken_files_are_one_line(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_state(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_numbers_is_no_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    with pytest.raises(CheckpointError, match="no state dict"):
        read_state(tmp_path / "numbers.pth")


def test_unknown_name_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no model 'nowhere'"):
        avseg.load("nowhere")
    with pytest.raises(CheckpointError, match=r"no weights at .*nowhere\.pth"):
        avseg.from_release("nowhere.pth")


def test_missing_hub_id_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="the Hub reports") as caught:
        avseg.load("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_a_weights_file_alone_has_no_card(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="avseg convert first"):
        avseg.load(tmp_path / "model.safetensors")


def test_incomplete_cards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no avseg\.json"):
        read_card(tmp_path)
    (tmp_path / "avseg.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not a card of avseg"):
        read_card(tmp_path)
    (tmp_path / "avseg.json").write_text(json.dumps({"model": "pcmanet"}))
    with pytest.raises(CheckpointError, match="lacks model, classes or config"):
        read_card(tmp_path)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    save(model(), tmp_path)
    card = json.loads((tmp_path / "avseg.json").read_text())
    card["config"]["channels"] = 32
    (tmp_path / "avseg.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"wrongly shaped: .*audio_linear\.bias"):
        avseg.load(tmp_path)


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model()
    save(first, tmp_path, score=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save(model(), tmp_path, score=2)
    monkeypatch.undo()
    again = avseg.load(tmp_path)
    assert again.card["score"] == 1
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_visual_weights_in_the_names_of_torchvision_and_of_transformers(tmp_path: Path) -> None:
    donor, taker = model(), model()
    net = donor.visual.net.state_dict()
    save_file({f"resnet.{k}": v.contiguous() for k, v in net.items()}, tmp_path / "model.safetensors")
    load_visual(taker, str(tmp_path / "model.safetensors"))
    assert all(torch.equal(v, taker.visual.net.state_dict()[k]) for k, v in net.items())

    from avseg.nn.visual import original_source

    original = {original_source("resnet18", k).key: v for k, v in net.items()} | {"fc.weight": torch.zeros(1000, 512)}
    torch.save({"model": original}, tmp_path / "resnet18.pth")
    other = model()
    load_visual(other, str(tmp_path / "resnet18.pth"))
    assert all(torch.equal(v, other.visual.net.state_dict()[k]) for k, v in net.items())


def test_pvt_weights_of_their_authors_have_joined_keys_and_values(tmp_path: Path) -> None:
    donor, taker = (avseg.build("pcmanet", visual="pvt_v2_b0", audio="none", channels=16) for _ in range(2))
    from avseg.nn.visual import original_source

    joined: dict[str, list[torch.Tensor]] = {}
    for key, tensor in donor.visual.net.state_dict().items():
        joined.setdefault(original_source("pvt_v2_b0", key).key, []).append(tensor)
    assert "block1.0.attn.kv.weight" in joined
    torch.save({k: torch.cat(v) for k, v in joined.items()} | {"head.weight": torch.zeros(1)}, tmp_path / "pvt.pth")
    load_visual(taker, str(tmp_path / "pvt.pth"))
    assert all(torch.equal(a, b) for a, b in zip(donor.visual.parameters(), taker.visual.parameters(), strict=True))


def test_swin_classifier_weights_keep_stage_norms(tmp_path: Path) -> None:
    donor, taker = (avseg.build("pcmanet", visual="swin_tiny", audio="none", channels=16) for _ in range(2))
    state = {k: v for k, v in donor.visual.net.state_dict().items() if k.startswith("swin.")}
    state["swin.layernorm.weight"] = torch.ones(768)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "swin.safetensors")
    load_visual(taker, str(tmp_path / "swin.safetensors"))
    assert torch.equal(donor.visual.net.swin.embeddings.norm.weight, taker.visual.net.swin.embeddings.norm.weight)


def test_audio_weights_need_an_encoder() -> None:
    with pytest.raises(CheckpointError, match="no audio encoder"):
        load_audio(model(), "vggish-10086976.pth")


def test_bundled_models_load() -> None:
    for name in bundled():
        assert avseg.load(name).card["model"] in avseg.list_models()


def test_start_from_loads_matching_shapes_and_names_the_rest(tmp_path: Path) -> None:
    donor, taker = model(), avseg.build("pcmanet", 5, visual="pvt_v2_b0", audio="none", channels=16)
    save(donor, tmp_path)
    fresh = start_from(taker, str(tmp_path))
    assert fresh == [f"head.{i}.3.{kind}" for i in (4, 3, 2, 1) for kind in ("weight", "bias")]
    assert torch.equal(taker.audio_linear.weight, donor.audio_linear.weight)


def test_start_from_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save(model(), tmp_path)
    taker = model()
    monkeypatch.setattr(AVSModel, "name", property(lambda self: "ours" if self is taker else "theirs"))
    with pytest.raises(CheckpointError, match="is a theirs, the model to train a ours"):
        start_from(taker, str(tmp_path))


def test_half_as_large_and_almost_the_same(tmp_path: Path) -> None:
    whole = model()
    save(whole, tmp_path / "32")
    save(whole, tmp_path / "16", half=True)
    sizes = [(tmp_path / bits / "model.safetensors").stat().st_size for bits in ("16", "32")]
    assert sizes[0] < 0.51 * sizes[1]
    again = avseg.load(tmp_path / "16")
    assert all(p.dtype == torch.float32 for p in again.parameters())
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    broken = model()
    with torch.no_grad():
        next(iter(broken.visual.parameters())).view(-1)[3] = value
    save(broken, tmp_path)
    with pytest.raises(CheckpointError, match=r"NaN or infinite weights in visual\.net\."):
        avseg.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model", 3, "model must be the name of a model"),
        ("classes", "1", "classes must be a number"),
        ("classes", 10**9, "classes must be a number"),
        ("classes", True, "classes must be a number"),
        ("config", [], "config must be an object"),
        ("config", {"channels": "64"}, "channels of PCMANet must be int"),
        ("config", {"channels": 0}, "channels of pcmanet must be 1 or more"),
        ("config", {"channels": 100_000}, "more than 2e\\+09 parameters"),
        ("config", {"stage_weights": [[1.0]]}, "stage_weights of PCMANet must be"),
        ("class_names", "dog", "class_names must be a list of names"),
        ("class_names", ["background"], "names 1 classes, expected 2"),
        ("data", [1], "data must be an object"),
        ("data", {"size": "large"}, "size must be a number of pixels"),
        ("data", {"size": 10**6}, "size must be a number of pixels"),
        ("data", {"frames": 0}, "frames must be a number"),
        ("metrics", 1, "metrics must be an object"),
    ],
)
def test_card_with_a_wrong_field_is_one_line(field: str, value: object, message: str, tmp_path: Path) -> None:
    save(model(), tmp_path)
    card = json.loads((tmp_path / "avseg.json").read_text())
    (tmp_path / "avseg.json").write_text(json.dumps({**card, field: value}))
    with pytest.raises(AvsegError, match=message) as caught:
        avseg.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_card_nested_too_deeply_is_one_line(tmp_path: Path) -> None:
    save(model(), tmp_path)
    (tmp_path / "avseg.json").write_text('{"model": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(CheckpointError, match="nested too deeply"):
        avseg.load(tmp_path)


def test_hostile_checkpoint_gives_no_advice_of_torch(tmp_path: Path) -> None:
    torch.save({"b": Trap(tmp_path / "owned")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError) as caught:
        read_state(tmp_path / "evil.pth")
    assert "may run code" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreachable_hub_is_one_line_after_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = []

    class Session:
        def head(self, address: str, timeout: float) -> None:
            requests.append((address, timeout))
            raise OSError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(CheckpointError, match=r"cannot be reached \(no route to host\)") as caught:
        load_visual(model(), "nobody/nothing")
    assert len(requests) == 1
    assert requests[0][1] <= 10
    assert "\n" not in str(caught.value)
