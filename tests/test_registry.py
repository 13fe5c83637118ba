"""Models, data sets and outputs of another package, which each test writes into a folder with its metadata."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import avseg
from avseg.checkpoints.store import load
from avseg.data import build_dataset, list_datasets
from avseg.data.synthetic import Synthetic
from avseg.errors import CheckpointError, ConfigError
from avseg.model_folder import save
from avseg.models import MODELS, list_models, model_class
from avseg.outputs import list_outputs, output_class
from avseg.registry import is_class_path

NETWORK = '''
from dataclasses import dataclass
import torch
from avseg.interface import AVSModel, Prediction
from avseg.losses import bce, labelled

class Even(AVSModel):
    """The same logit in every pixel."""

    @dataclass(frozen=True)
    class Config:
        """Settings.

        Attributes:
            start: Initial logit.
        """
        start: float = 1.0

    paper = "none"
    parts = {}

    def __init__(self, config, classes):
        super().__init__(config, classes)
        self.logit = torch.nn.Parameter(torch.tensor(config.start))

    def forward(self, clip, target=None, *, maps=False):
        B, T, _, H, W = clip.frames.shape
        return Prediction(self.logit.expand(B, T, self.classes, H, W))

    def loss(self, prediction, target):
        return {"bce": bce(*labelled(prediction.logits, target))}
'''
CLIPS = '''
from dataclasses import dataclass
from avseg.data import AVSDataset
from avseg.data.synthetic import Synthetic

class Two(AVSDataset):
    """Two synthetic clips."""

    @dataclass(frozen=True)
    class Config:
        """Settings.

        Attributes:
            size: Height and width.
        """
        size: int = 16

    def __init__(self, config, split):
        settings = {"variant": "s4", "size": config.size, "frames": 2, "train": 2, "val": 2, "test": 2}
        self.clips = Synthetic(Synthetic.Config(**settings), split)
        self.class_names = self.clips.class_names

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.clips[index]
'''
TIMES = '''
from avseg.outputs import Output

class Times(Output):
    """The time of every frame."""

    files = ("times.txt",)

    def add(self, frame):
        with (self.folder / "times.txt").open("a") as file:
            print(frame.time, file=file)
'''
ENTRY_POINTS = """
[avseg.models]
even = toy_package.network:Even
pcmanet = toy_package.network:Even

[avseg.data]
two = toy_package.clips:Two

[avseg.outputs]
times = toy_package.times:Times
"""


def install(folder: Path, package: str, entry_points: str, **modules: str) -> None:
    """Write a package and its metadata, as pip does."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").touch()
    for name, code in modules.items():
        (folder / package / f"{name}.py").write_text(code)
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir()
    metadata.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\n"
    )
    metadata.joinpath("entry_points.txt").write_text(entry_points)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The folder ``site``, on ``sys.path``; modules imported from it are forgotten after the test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path / "site"
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("toy_package", "other_package"):
            del sys.modules[name]


@pytest.fixture
def toy(site):
    install(site, "toy_package", ENTRY_POINTS, network=NETWORK, clips=CLIPS, times=TIMES)
    return site


def run(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The command line in another process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(Path(avseg.__file__).parents[1])])}
    command = [sys.executable, "-m", "avseg", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=site.parent)


def test_names_of_other_packages_are_listed_without_importing_them(toy):
    assert list_models()[-1] == "even"
    assert list_datasets()[-1] == "two"
    assert list_outputs()[-1] == "times"
    assert not any(name.startswith("toy_package") for name in sys.modules)


def test_names_of_the_package_itself_precede(toy):
    assert model_class("pcmanet").__module__ == "avseg.models.pcmanet"
    assert list_models().count("pcmanet") == 1


def test_classes_of_other_packages_are_built(toy):
    model = avseg.build("even", classes=3, start=2.0)
    assert (model.name, model.classes, model.config.start) == ("even", 3, 2.0)
    assert len(build_dataset("two", "val", size=24)) == 2
    assert output_class("times").files == ("times.txt",)
    with pytest.raises(ConfigError, match=r"unknown setting 'strat' of Even\. Did you mean 'start'"):
        avseg.build("even", strat=1.0)


def test_classes_that_are_not_registered_are_built_by_path(site):
    install(site, "toy_package", "", network=NETWORK, clips=CLIPS, times=TIMES)
    assert "even" not in list_models()
    assert avseg.build("toy_package.network:Even").name == "toy_package.network:Even"
    assert len(build_dataset("toy_package.clips:Two", "test")) == 2
    assert output_class("toy_package.times:Times").__name__ == "Times"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("evan", r"unknown model 'evan'\. Did you mean 'even'\?"),
        ("no_package.net:Net", r"cannot import the model no_package\.net:Net \(ModuleNotFoundError: .*PYTHONPATH"),
        ("toy_package.network:Odd", r"cannot import the model toy_package\.network:Odd \(AttributeError"),
        ("toy_package.clips:Two", r"toy_package\.clips:Two is no subclass of avseg\.interface\.AVSModel"),
        ("toy_package.network:torch", r"toy_package\.network:torch is no subclass of avseg\.interface\.AVSModel"),
        ("avseg.interface:AVSModel", r"AVSModel has no dataclass Config"),
    ],
)
def test_wrong_names_are_refused_in_one_line(toy, name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        model_class(name)
    assert "\n" not in str(caught.value)


def test_a_broken_entry_point_is_one_line_that_names_the_package(toy):
    broken = "[avseg.models]\nbroken = other_package.net:Net\nmissing = other_package:Net\n"
    install(toy, "other_package", broken, net="import torch\n\n1 / 0\n")
    for name in ("broken", "missing"):
        with pytest.raises(
            ConfigError, match=rf"cannot import the model '{name}' of the package other-package"
        ) as caught:
            model_class(name)
        assert "\n" not in str(caught.value)
    assert avseg.build("even").name == "even"


def test_two_packages_with_one_name_are_refused(toy):
    install(toy, "other_package", "[avseg.models]\neven = other_package.net:Net\n", net=NETWORK)
    with pytest.raises(ConfigError, match=r"other-package.* both register the model 'even': uninstall one"):
        model_class("even")


def test_saved_models_of_other_packages_load(toy, tmp_path):
    folder = save(avseg.build("even", start=3.0), tmp_path / "model")
    assert json.loads((folder / "avseg.json").read_text())["model"] == "even"
    assert load(folder).logit.item() == 3.0


def test_cards_of_the_hub_do_not_import_modules(site, tmp_path, monkeypatch):
    install(site, "toy_package", "", network=NETWORK)
    folder = save(avseg.build("toy_package.network:Even"), tmp_path / "model")
    monkeypatch.setattr("avseg.checkpoints.store._from_hub", lambda *_, **__: folder)
    assert load("owner/name").name == "toy_package.network:Even"  # its module is imported
    del sys.modules["toy_package.network"]
    with pytest.raises(CheckpointError, match=r"names the class toy_package\.network:Even.* import it first"):
        load("owner/name")
    assert "toy_package.network" not in sys.modules
    assert load(folder).name == "toy_package.network:Even"


@pytest.mark.parametrize(
    ("word", "expected"),
    [("a.b:C", True), ("a:C", True), ("cuda:0", False), ("a.b", False), ("a:", False), (":C", False), ("a:b:c", False)],
)
def test_is_class_path(word, expected):
    assert is_class_path(word) is expected


def test_registry_finds_the_one_class_of_a_file():
    assert MODELS.find("tpavi").__name__ == "TPAVI"
    assert Synthetic.__module__ == "avseg.data.synthetic"


@pytest.mark.slow
def test_command_line_with_another_package(toy, make_video, make_beep):
    listed = run(toy, "models")
    assert "The same logit in every pixel." in listed.stdout, listed.stderr
    assert "Two synthetic clips." in run(toy, "datasets").stdout
    options = ["--train.max_steps", 1, "--train.workers", 0, "--train.accelerator", "cpu", "-o", "run"]
    trained = run(toy, "train", "--model.name", "toy_package.network:Even", "--data.name", "two", *options)
    assert trained.returncode == 0, trained.stderr
    assert json.loads((toy.parent / "run/last/avseg.json").read_text())["model"] == "even"
    video = make_video("clip.mkv", times=[0.0, 0.5], size=(16, 16), sound=make_beep(1, 0, 1))
    done = run(toy, "predict", video, "--model", "run/last", "--save", "times,json", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (toy.parent / "out").iterdir()) == ["result.json", "times.txt"]
    assert (toy.parent / "out/times.txt").read_text() == "0.0\n0.5\n"
    wrong = run(toy, "predict", video, "--save", "time", "-o", "out2")
    assert (wrong.returncode, wrong.stderr) == (2, "avseg: error: unknown output 'time'. Did you mean 'times'?\n")
