"""Shared fixtures: one thread and one seed, tiny videos, models of known masks or uncertainty, releases' layouts."""

import csv
import gc
import gzip
import json
import multiprocessing
import os
import runpy
import shutil
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import wavfile
from torch import Tensor

from avseg.data import build_dataset
from avseg.data._masks import palette_colours
from avseg.data.synthetic import KINDS
from avseg.interface import AVSModel, Clip, Prediction, Target
from avseg.outputs.json import Json, schema
from avseg.synthesis.scene import Scene

TICK = Fraction(1, 12_800)
PARITY = Path(__file__).parent / "parity"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker consecutive tests, so that it makes few of the fixtures that a module shares."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave modules and tests, some 10⁶ objects, out of all garbage collections."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _valid_results() -> Iterator[None]:
    """Validate every result.json that a test writes against its schema."""
    if find_spec("jsonschema") is None:  # the extra "dev" has it
        yield
        return
    from jsonschema import Draft202012Validator

    validator, finish = Draft202012Validator(schema()), Json.finish

    def finish_and_validate(output: Json) -> None:
        finish(output)
        validator.validate(json.loads((output.folder / "result.json").read_text(encoding="utf-8")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Json, "finish", finish_and_validate)
        yield


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    """Make numbers reproducible, and use one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def grey(index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image with its number as brightness."""
    return np.full((*size, 3), 20 + index * 5 % 200, np.uint8)


def write_video(
    path: Path,
    *,
    times: Sequence[float] = tuple(k / 25 for k in range(25)),
    size: tuple[int, int] = (48, 64),
    picture: Callable[[int, tuple[int, int]], NDArray[np.uint8]] = grey,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sound: NDArray[np.float32] | None = None,
    rate: int = 16_000,
    sound_codec: str = "flac",
    sound_start: float = 0.0,
    faststart: bool = False,
) -> Path:
    """Write a video with frames at given times and (channels, n) audio in -1..1 from ``sound_start`` on."""
    with av.open(str(path), "w", options={"movflags": "+faststart"} if faststart else {}) as container:
        video = container.add_stream(codec, rate=25)
        video.height, video.width = size
        video.pix_fmt = pix_fmt
        video.codec_context.time_base = TICK
        audio = None
        if sound is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
            audio = container.add_stream(sound_codec, rate=rate, layout=layout)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index, size))
            frame.pts, frame.time_base = round(time / TICK), TICK
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            for first in range(0, sound.shape[1], 1024):
                piece = np.ascontiguousarray(sound[:, first : first + 1024], np.float32)
                frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = first + round(sound_start * rate)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Write a tiny video in the test's temporary folder: ``make_video("clip.mp4", times=[0, 0.1], ...)``."""
    return lambda name="clip.mkv", **settings: write_video(tmp_path / name, **settings)


@pytest.fixture(scope="session")
def make_shared_video(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a tiny video in a folder of its own, for a fixture that several tests share."""
    return lambda name, **settings: write_video(tmp_path_factory.mktemp("video") / name, **settings)


@pytest.fixture(scope="session")
def layouts() -> dict[str, dict[str, list[int]]]:
    """Return case → key → shape of the released state dicts."""
    return json.loads(gzip.decompress((PARITY / "layouts.json.gz").read_bytes()))


@pytest.fixture(scope="session")
def weights() -> Callable[..., dict[str, torch.Tensor]]:
    """Return layout → tensors of the parity files, generated from the names of their keys."""
    return lambda layout, gain=1.0: {
        name: torch.from_numpy(_weight(name, tuple(shape), gain)) for name, shape in layout.items()
    }


def _weight(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    x = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        x = 0.75 + 0.25 * np.abs(x)
    elif name.endswith("running_mean"):
        x = 0.1 * x
    elif len(shape) >= 2:
        x = gain * x / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight") and gain == 1.0:
        x = 1 + 0.1 * x
    else:
        x = 0.05 * x
    # Only in PCMANet's parity files: keeps some tokens and drops others.
    return np.asarray(x * 12 if "output_conv" in name and name.endswith(".3.weight") else x, np.float32)


class Ear(AVSModel):
    """Predict the whole frame as sounding if there is sound at its centre time, else nothing."""

    @dataclass(frozen=True)
    class Config:
        pass

    paper = ""

    def __init__(self, classes: int = 1) -> None:
        super().__init__(self.Config(), classes)
        self.clips: list[Clip] = []
        self.card = {"data": {"size": 16, "frames": 5}}

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        self.clips.append(clip)
        loud = clip.audio[:, :, 0, 46:50].mean((-2, -1)) > -4.0  # silence is -4.6
        return Prediction(self.answer(loud[..., None, None].expand(*loud.shape, *clip.frames.shape[-2:])))

    def answer(self, sounding: Tensor) -> Tensor:
        """Return logits for (B, T, H, W) bool."""
        return torch.where(sounding, 8.0, -8.0)[:, :, None]

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        return {}


@pytest.fixture
def ear() -> Ear:
    """Return a model that depends only on the audio."""
    return Ear().eval()


def beep(seconds: float, start: float, end: float, rate: int = 16_000, channels: int = 1) -> NDArray[np.float32]:
    """Return a tone from ``start`` to ``end`` in silence, (channels, n)."""
    time = np.arange(round(seconds * rate)) / rate
    wave = np.where((time >= start) & (time < end), 0.5 * np.sin(2 * np.pi * 997 * time), 0.0)
    return np.repeat(wave[None], channels, 0).astype(np.float32)


@pytest.fixture(scope="session")
def make_beep() -> Callable[..., NDArray[np.float32]]:
    """Return :func:`beep`: ``make_beep(seconds, start, end, rate, channels)``."""
    return beep


@dataclass(frozen=True)
class Tiny:
    """Writer of the released layouts with a few rendered clips of 40 x 48 pixels in every split."""

    root: Path
    stock: Path
    clips: int = 2
    size: tuple[int, int] = (40, 48)

    def s4(self) -> Path:
        """Write AVSBench-object, single source; return its folder."""
        return self._copy("Single-source", self._write_s4)

    def ms3(self) -> Path:
        """Write AVSBench-object, multiple sources; return its folder."""
        return self._copy("Multi-sources", self._write_ms3)

    def avss(self) -> Path:
        """Write AVSBench-semantic with both kinds of masks; return its folder."""
        return self._copy("AVSBench-semantic", self._write_avss)

    def _copy(self, name: str, write: Callable[[Path], object]) -> Path:
        """Copy a layout from the folder of the session, where it is rendered once."""
        if not (self.stock / name).exists():
            write(self.stock / name)
        return shutil.copytree(self.stock / name, self.root / name, copy_function=shutil.copyfile, dirs_exist_ok=True)

    def _write_s4(self, root: Path) -> None:
        rows = []
        for split, number, scene in self._scenes("s4"):
            category, name = ("dog", "cat")[number % 2], f"{split}-{number}_{number}"
            rows.append((name, number, category, split))
            for k, (frame, mask) in enumerate(zip(scene.frames, scene.masks, strict=True), 1):
                picture = f"{split}/{category}/{name}/{name}_{k}.png"
                self.picture(root / "s4_data/visual_frames" / picture, frame)
                if k == 1 or split != "train":
                    self.picture(root / "s4_data/gt_masks" / picture, 255 * (mask > 0))
            self.sound(root / "s4_data/audio_wav" / split / category / f"{name}.wav", scene.waveform)
        self.table(root / "s4_meta_data.csv", ("name", "start", "category", "split"), rows)

    def _write_ms3(self, root: Path) -> None:
        rows = []
        for split, number, scene in self._scenes("ms3"):
            name = f"{split}-{number}"
            rows.append((name, split))
            for k, (frame, mask) in enumerate(zip(scene.frames, scene.masks, strict=True), 1):
                self.picture(root / f"ms3_data/visual_frames/{name}/{name}.mp4_{k}.png", frame)
                self.picture(root / f"ms3_data/gt_masks/{split}/{name}/{name}_{k}.png", mask > 0)
            self.sound(root / f"ms3_data/audio_wav/{split}/{name}.wav", scene.waveform)
        self.table(root / "ms3_meta_data.csv", ("video_id", "split"), rows)

    def _write_avss(self, root: Path) -> None:
        rows = []
        for label, frames in (("v1s", 5), ("v1m", 5), ("v2", 10)):
            for split, number, scene in self._scenes("avss", frames):
                uid = f"{label}-{split}-{number}"
                rows.append((uid, split, label, "dog"))
                for k, (frame, mask) in enumerate(zip(scene.frames, scene.masks, strict=True)):
                    self.picture(root / label / uid / f"frames/{k}.jpg", frame)
                    if k == 0 or (label, split) != ("v1s", "train"):
                        self.picture(root / label / uid / f"labels_semantic/{k}.png", mask)
                        self.picture(root / label / uid / f"labels_rgb/{k}.png", palette_colours()[mask])
                self.sound(root / label / uid / "audio.wav", scene.waveform)
        names = ("background", *(kind.name for kind in KINDS))
        (root / "label2idx.json").write_text(json.dumps({name: k for k, name in enumerate(names)}))
        self.table(root / "metadata.csv", ("uid", "split", "label", "a_obj"), rows)

    def _scenes(self, variant: str, frames: int = 5) -> Iterator[tuple[str, int, Scene]]:
        for split in ("train", "val", "test"):
            for number in range(self.clips):
                yield split, number, _scene(split, number, variant, self.size, frames)

    @staticmethod
    def picture(path: Path, pixels: NDArray[Any]) -> None:
        """Write an image, and create its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    @staticmethod
    def sound(path: Path, waveform: NDArray[Any], rate: int = 16_000) -> None:
        """Write a WAV file of 16 bits from (n,) in -1..1."""
        path.parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(path, rate, (np.asarray(waveform) * 32767).round().astype(np.int16))

    @staticmethod
    def table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
        """Write a CSV file; return its folder."""
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
        return path.parent


@cache
def _scene(split: str, number: int, variant: str, size: tuple[int, int], frames: int) -> Scene:
    """Return a rendered clip, cached for all tests."""
    return build_dataset("synthetic", split, variant=variant, size=size, frames=frames).scene(number)


@pytest.fixture(scope="session")
def _stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture(scope="session")
def shared_tiny(tmp_path_factory: pytest.TempPathFactory, _stock: Path) -> Tiny:
    """Return a writer of released layouts that several tests read and none changes."""
    return Tiny(tmp_path_factory.mktemp("shared"), _stock)


@pytest.fixture
def tiny(tmp_path: Path, _stock: Path) -> Tiny:
    """Return a writer of released layouts in the test's temporary folder: ``root = tiny.s4()``."""
    return Tiny(tmp_path, _stock)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return a headless Chromium; a test that needs it is skipped where Chromium or playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs Chromium (apt install chromium)")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no sandbox
        chromium = driver.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()


_COMMAND = """
import multiprocessing, signal, sys
import torch
from avseg.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job that a shell runs in the background ignores it
torch.set_num_threads(1)  # as in this process: another number of threads gives other last bits
multiprocessing.set_start_method("fork", force=True)
sys.exit(main({argv!r}))
"""


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], BaseProcess]:
    """Return a function that runs ``avseg`` in another process without importing everything again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["avseg.training.train", "avseg.models.pcmanet", "avseg.models.tpavi"])
    script = tmp_path_factory.mktemp("script") / "run.py"

    def run(argv: Sequence[str]) -> BaseProcess:
        script.write_text(_COMMAND.format(argv=list(argv)))
        process = context.Process(target=runpy.run_path, args=(str(script),))
        process.start()
        return process

    return run


class UncertainModel(AVSModel):
    """Mark the left half of every frame; the uncertainty of the k-th input frame is ``uncertainty_of(k)``."""

    @dataclass(frozen=True)
    class Config:
        pass

    paper = ""

    def __init__(self) -> None:
        super().__init__(self.Config(), classes=1)
        self.card = {"data": {"size": 16, "frames": 3}}
        self.frame_numbers = count()
        self.maps_requested: list[bool] = []

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        self.maps_requested.append(maps)
        logits = torch.where(torch.arange(16) < 8, 8.0, -8.0).expand(*clip.frames.shape[:2], 1, 16, 16)
        uncertainty = torch.stack([self.uncertainty_of(next(self.frame_numbers)) for _ in range(clip.frames.shape[1])])
        return Prediction(logits, maps={"uncertainty": uncertainty[None, :, None]} if maps else {})

    def uncertainty_of(self, k: int) -> Tensor:
        """(6, 8), rising from left to right: 0.1 on, first to 0.8, from frame to frame a quarter less."""
        return 0.1 + 0.7 * 0.75**k * torch.arange(8.0).expand(6, 8) / 7

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        return {}


@pytest.fixture
def uncertain_model() -> UncertainModel:
    """A model that predicts its uncertainty."""
    return UncertainModel().eval()


@pytest.fixture
def grey_video(make_video: Callable, make_beep: Callable):
    """2 s at 10 fps, 96 × 128, grey, nearly lossless, with sound."""
    times = [k / 10 for k in range(20)]
    return make_video("grey.mkv", times=times, size=(96, 128), sound=make_beep(2, 0, 2), codec="ffv1", pix_fmt="bgr0")
