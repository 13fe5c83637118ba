"""Models as users of transformers know them: save_pretrained, push_to_hub, load with revision and token."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import avseg
from avseg.errors import CheckpointError, ConfigError
from avseg.interface import AVSModel
from avseg.model_folder import CARD, WEIGHTS


@pytest.fixture(params=["pcmanet", "tpavi", "cpm", "ama_ue"])
def model(request: pytest.FixtureRequest) -> AVSModel:
    """Return a small model of each kind, with a card as training records it."""
    built = avseg.build(request.param, classes=3, visual="pvt_v2_b0", audio="compact", channels=32).eval()
    built.card = {"data": {"name": "synthetic"}, "class_names": ["background", "cat", "dog"], "metrics": {"j": 0.5}}
    return built


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, dict]]:
    """Replace the transfer to and from the Hub by a folder; return the calls that arrive there."""
    calls: list[tuple[str, dict]] = []

    class Api:
        def __init__(self, token: object = None) -> None:
            calls.append(("token", {"token": token}))

        def create_repo(self, repo_id: str, **settings: object) -> "Url":
            calls.append(("create_repo", {"repo_id": repo_id, **settings}))
            return Url(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, repo_id: str, folder_path: Path, **settings: object) -> None:
            calls.append(("upload_folder", {"repo_id": repo_id, **settings}))
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id)

    class Url(str):
        @property
        def repo_id(self) -> str:
            return self.removeprefix("https://huggingface.co/")

    def snapshot_download(repo_id: str, **settings: object) -> str:
        calls.append(("snapshot_download", {"repo_id": repo_id, **settings}))
        return str(tmp_path / "hub" / repo_id)

    monkeypatch.setattr("avseg.checkpoints.download._unreachable", lambda: None)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return calls


def same(a: AVSModel, b: AVSModel) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_save_pretrained_then_load_gives_the_same_model(model: AVSModel, tmp_path: Path) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    assert folder == tmp_path / "model"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", CARD, WEIGHTS]
    loaded = avseg.load(folder)
    assert same(model, loaded)
    assert (loaded.name, loaded.classes, loaded.config) == (model.name, model.classes, model.config)
    assert {key: loaded.card[key] for key in model.card} == model.card
    assert not loaded.training
    again = loaded.save_pretrained(tmp_path / "again")
    for name in (CARD, WEIGHTS):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_push_to_hub_then_load_gives_the_same_model(model: AVSModel, hub: list) -> None:
    address = model.push_to_hub("me/sounding", token="secret", private=True, revision="v1")
    assert address == "https://huggingface.co/me/sounding"
    loaded = avseg.load("me/sounding", revision="v1", token="secret")
    assert same(model, loaded)
    assert hub == [
        ("token", {"token": "secret"}),
        ("create_repo", {"repo_id": "me/sounding", "private": True, "exist_ok": True}),
        (
            "upload_folder",
            {"repo_id": "me/sounding", "revision": "v1", "commit_message": "Upload model with avseg"},
        ),
        (
            "snapshot_download",
            {
                "repo_id": "me/sounding",
                "revision": "v1",
                "token": "secret",
                "allow_patterns": [CARD, WEIGHTS],
            },
        ),
    ]


def test_uploaded_folder_has_a_model_card(hub: list, tmp_path: Path) -> None:
    model = avseg.build("pcmanet", visual="pvt_v2_b0", audio="none", channels=16)
    model.card = {
        "data": {"name": "synthetic"},
        "class_names": ["background", "sounding"],
        "metrics": {"val/avsbench/j": 0.60242, "val/loss": 4},
    }
    model.push_to_hub("me/small")
    folder = tmp_path / "hub/me/small"
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {"library_name": "avseg", "tags": ["audio-visual-segmentation", "pcmanet"]}
    assert 'avseg.load("me/small")' in text
    assert "- Classes: background, sounding\n- Training data: `synthetic`\n" in text
    assert text.endswith("| metric | value |\n|---|---|\n| `val/avsbench/j` | 0.6024 |\n| `val/loss` | 4 |\n")
    assert json.loads((folder / CARD).read_text())["metrics"] == model.card["metrics"]


def test_model_card_without_records_states_the_number_of_classes(tmp_path: Path) -> None:
    folder = avseg.build("pcmanet", visual="pvt_v2_b0", audio="none", channels=16).save_pretrained(tmp_path)
    text = (folder / "README.md").read_text()
    assert "- Classes: 1\n" in text
    assert "Training data" not in text
    assert "| metric |" not in text


def test_save_pretrained_keeps_a_readme(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    avseg.build("pcmanet", visual="pvt_v2_b0", audio="none", channels=16).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_save_pretrained_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"file is a file: give a folder"):
        avseg.build("pcmanet", visual="pvt_v2_b0", audio="none", channels=16).save_pretrained(tmp_path / "file")


def test_refusal_of_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = avseg.build("pcmanet", visual="pvt_v2_b0", audio="none", channels=16)
    with pytest.raises(CheckpointError, match="me/model was not uploaded, the Hub reports: ") as caught:
        model.push_to_hub("me/model", token=False)
    assert "\n" not in str(caught.value)


def test_revision_of_a_local_model_is_refused(tmp_path: Path) -> None:
    folder = avseg.build("pcmanet", visual="pvt_v2_b0", audio="none", channels=16).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is not read from the Hub and has no revision 'v1'"):
        avseg.load(folder, revision="v1")


@pytest.mark.parametrize("wrong", [None, b"tiny", 3])
def test_name_of_a_wrong_type_is_refused(wrong: object) -> None:
    with pytest.raises(CheckpointError, match=f"as str or Path, got {type(wrong).__name__}"):
        avseg.load(wrong)


def test_load_moves_the_model(tmp_path: Path) -> None:
    folder = avseg.build("pcmanet", visual="pvt_v2_b0", audio="none", channels=16).save_pretrained(tmp_path)
    assert {p.device.type for p in avseg.load(folder, "meta").parameters()} == {"meta"}
    with pytest.raises(ConfigError, match="device 'warp' cannot be used"):
        avseg.load(folder, device="warp")
