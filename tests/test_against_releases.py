"""The benchmark against_releases.py: weights of both sides, settings, and a folder that is no release."""

from pathlib import Path

import pytest
import torch

import against_releases
import avseg
from avseg.errors import ConfigError
from avseg.models.pcmanet import PCMANet


def test_a_folder_that_is_no_release_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"no clone of a release: it has no folder avs_scripts/avs_s4"),
        against_releases.program(tmp_path),
    ):
        pass


def test_modules_of_a_release_are_imported_without_unused_packages(tmp_path: Path) -> None:
    folder = tmp_path / "avs_scripts" / "avs_s4"
    folder.mkdir(parents=True)
    (folder / "of_a_release.py").write_text("import cv2\nimport torchvision.models as models\n", encoding="utf-8")
    (folder / "needs_more.py").write_text("import no_such_package\n", encoding="utf-8")
    with against_releases.program(tmp_path) as load:
        assert load("of_a_release").models.__name__ == "torchvision.models"
        assert torch.ones(1).cuda().device.type == "cpu"
        with pytest.raises(ConfigError, match="imports no_such_package: install it"):
            load("needs_more")


def test_settings_of_the_paper_keep_the_weights() -> None:
    settings = {"visual": "resnet18", "audio": "none", "channels": 16, "groups": 2, "heads": 2}
    release = avseg.build("pcmanet", **settings, **PCMANet.RELEASE).eval()
    with torch.no_grad():
        against_releases.fill(release)
    paper = against_releases.with_settings_of_the_paper(release)
    assert not paper.config.pool_tokens
    state = release.state_dict()
    for key, value in paper.state_dict().items():
        given = state[key]
        assert torch.equal(value, given[-len(value) :] if value.ndim else given), key
