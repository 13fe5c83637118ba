"""Tests of training: optimisation, stopping, and exact resume of interrupted runs."""

import csv
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import avseg
from avseg.checkpoints.store import load
from avseg.cli import main
from avseg.config import TrainConfig
from avseg.data import AVSDataset, Sample, build_dataset
from avseg.errors import CheckpointError, ConfigError
from avseg.interface import Clip, Prediction, Target
from avseg.models.pcmanet import PCMANet
from avseg.nn.fast_training import FastConv2d
from avseg.training.checkpoint import _writing
from avseg.training.module import AVSLightningModule, mirror, rate_factor, score_names
from avseg.training.sampler import Position, ResumableSampler

SMALL = [
    *("train", "--model.visual", "pvt_v2_b0", "--model.audio", "compact", "--model.train_audio", "true"),
    *("--model.channels", "8", "--data.size", "32", "--data.frames", "2", "--data.train", "9", "--data.val", "2"),
    *("--train.epochs", "2", "--train.batch_size", "2", "--train.lr", "1e-3", "--train.flip", "true"),
    *("--train.accelerator", "cpu", "--train.workers", "0", "--train.log_every", "1", "--train.save_every", "2"),
]
"""Ten steps of a small PCMANet with dropout; each epoch ends with a batch of one."""


def curves(folder: Path) -> list[tuple[int, str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)]


def same_run(a: Path, b: Path) -> bool:
    """Return whether curves, last and best weights, and their scores are equal bit for bit."""
    files = ("metrics.csv", "last/model.safetensors", "best/model.safetensors")
    cards = [json.loads((folder / "best/avseg.json").read_text()) for folder in (a, b)]
    keys = ("metrics", "epoch", "step")
    return all((a / f).read_bytes() == (b / f).read_bytes() for f in files) and all(
        cards[0][key] == cards[1][key] for key in keys
    )


Start = Callable[[Sequence[str]], BaseProcess]


def code(process: BaseProcess) -> int | None:
    process.join(200)
    return process.exitcode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted run."""
    folder, threads = tmp_path_factory.mktemp("whole"), torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests: another number of threads gives other last bits
    assert main([*SMALL, "--train.out", str(folder)]) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_run_equals_an_uninterrupted_run(
    start: Start, whole: Path, tmp_path: Path, workers: int
) -> None:
    command = [*SMALL, "--train.workers", str(workers), "--train.out", str(tmp_path), "--train.resume", "auto"]
    for step, blow in ((0, signal.SIGKILL), (3, signal.SIGKILL), (4, signal.SIGTERM), (7, signal.SIGKILL)):
        process = start(command)
        while process.is_alive() and not _reached(tmp_path, step):
            time.sleep(0.002)
        assert process.pid is not None
        os.kill(process.pid, blow)
        assert code(process) == (-9 if blow == signal.SIGKILL else 143)
    assert code(start(command)) == 0
    assert same_run(whole, tmp_path)


def _reached(folder: Path, step: int) -> bool:
    path = folder / "metrics.csv"
    return path.exists() and any(line.startswith(f"{step},") for line in path.read_text().splitlines())


@pytest.mark.slow
def test_terminated_run_saves_its_position(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = AVSLightningModule.training_step

    def step(self: AVSLightningModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(AVSLightningModule, "training_step", step)
    command = [*SMALL, "--train.out", str(tmp_path), "--train.save_every", "1000"]
    assert main(command) == 143
    assert "--train.resume auto" in capsys.readouterr().err
    state = torch.load(tmp_path / "resume.ckpt", weights_only=True)
    assert state["avseg"]["position"] == (0, 3)
    assert state["global_step"] == 3


@pytest.mark.slow
def test_keep_every_keeps_weights(whole: Path, tmp_path: Path) -> None:
    assert main([*SMALL, "--train.keep_every", "5", "--train.out", str(tmp_path)]) == 0
    assert same_run(tmp_path, whole)
    assert sorted(p.name for p in tmp_path.glob("step*")) == ["step10", "step5"]
    assert load(tmp_path / "step5").card["step"] == 5
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("step5", "step10", "last")]
    assert weights[0] != weights[1] == weights[2]


@pytest.mark.slow
def test_run_of_constant_rate_can_be_extended(whole: Path, tmp_path: Path) -> None:
    command = [*SMALL, "--train.out", str(tmp_path), "--train.resume", "auto"]
    for limit in (["--train.max_steps", "3"], ["--train.max_steps", "3"], ["--train.epochs", "1"], []):
        assert main([*command, *limit]) == 0
    files = ("metrics.csv", "last/model.safetensors")
    assert all((tmp_path / file).read_bytes() == (whole / file).read_bytes() for file in files)


CPM = [
    *("--model", "cpm", "--model.visual", "resnet18", "--model.channels", "32", "--model.heads", "4"),
    *("--model.feedforward", "32", "--model.queries", "6", "--model.layers", "1", "--model.pixel_layers", "1"),
    *(
        "--model.points",
        "64",
        "--model.components",
        "1",
        "--model.mixture_min_samples",
        "1",
        "--model.mixture_fit_every",
        "1",
    ),
    *("--model.mixture_memory", "32", "--model.warmup", "1", "--train.batch_size", "3"),
]


@pytest.mark.slow
def test_cpm_resumes_bit_for_bit_with_its_mixtures(tmp_path: Path) -> None:
    one, two = ([*SMALL, *CPM, "--train.out", str(tmp_path / name)] for name in ("one", "two"))
    assert main(one) == 0
    assert main([*two, "--train.max_steps", "2"]) == 0
    assert main([*two, "--train.resume", "auto"]) == 0
    assert same_run(tmp_path / "one", tmp_path / "two")
    model = load(tmp_path / "one/last")
    assert model.steps == 6  # type: ignore[comparison-overlap]
    assert model.mixtures.fitted.any()  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_after_step_gets_the_batches_of_each_optimizer_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    calls: list[tuple[str, int]] = []
    step, after_step = torch.optim.Adam.step, PCMANet.after_step

    def counted(self: torch.optim.Adam, closure: Callable[[], float] | None = None) -> object:
        found = step(self, closure)
        calls.append(("step", 0))
        return found

    def recorded(self: PCMANet, prediction: Prediction, target: Target) -> None:
        assert self.training
        assert not torch.is_grad_enabled()
        assert prediction.logits.shape[:2] == target.masks.shape[:2]
        calls.append(("after", len(target.masks)))
        after_step(self, prediction, target)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    monkeypatch.setattr(PCMANet, "after_step", recorded)
    command = [*SMALL, "--train.epochs", "1", "--train.accumulate", str(accumulate), "--train.out", str(tmp_path)]
    assert main(command) == 0
    two, rest, optimizer = ("after", 2), ("after", 1), ("step", 0)
    if accumulate == 1:
        assert calls == [optimizer, two] * 4 + [optimizer, rest]
    else:
        assert calls == [optimizer, two, two] * 2 + [optimizer, rest]


@pytest.mark.slow
def test_training_on_a_cpu_uses_fast_convolutions_and_frees_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    step = AVSLightningModule.training_step

    def recorded(self: AVSLightningModule, batch: Sample, batch_idx: int) -> torch.Tensor:
        convs = [m for m in self.model.modules() if isinstance(m, torch.nn.Conv2d)]
        freed = all(p.grad is None for p in self.model.parameters())
        seen.append((all(type(conv) is FastConv2d for conv in convs), freed))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(AVSLightningModule, "training_step", recorded)
    assert main([*SMALL, "--train.max_steps", "2", "--train.out", str(tmp_path)]) == 0
    assert seen == [(True, True)] * 2


@pytest.mark.slow
def test_categories_do_not_change_loss_and_scores(whole: Path, tmp_path: Path) -> None:
    assert main([*SMALL, "--data.categories", "true", "--train.out", str(tmp_path)]) == 0
    assert same_run(tmp_path, whole)


def test_run_writes_the_documented_files(whole: Path) -> None:
    card = load(whole / "best").card
    assert "NaN" not in (whole / "best" / "avseg.json").read_text()
    assert card["class_names"] == ["background", "sounding"]
    assert card["data"]["size"] == 32
    assert card["train"]["lr"] == 1e-3
    assert {"commit", "epoch", "step"} <= set(card)
    assert card["metrics"]["val/avsbench/j"] == max(v for _, name, v in curves(whole) if name == "val/avsbench/j")
    assert yaml.safe_load((whole / "config.yaml").read_text())["model"]["visual"] == "pvt_v2_b0"
    assert list(whole.glob("events.out.tfevents.*"))
    assert {"train/loss", "train/bce/1", "train/keep_ratio/4", "train/lr", "val/loss"} <= {
        n for _, n, _ in curves(whole)
    }
    assert [step for step, name, _ in curves(whole) if name == "train/loss"] == list(range(10))
    assert [name for step, name, _ in curves(whole) if step == 10] == score_names(1)


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return the error line of a command that is refused."""
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("avseg: error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.slow
def test_run_starts_from_a_model_with_other_classes(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--weights.model", str(whole / "best"), "--data.variant", "avss", "--train.max_steps", "1"]
    assert main([*SMALL, *words, "--train.out", str(tmp_path)]) == 0
    assert "initialised randomly: head.4.3.weight" in capsys.readouterr().out


def test_new_run_does_not_overwrite_an_old_run(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--train.resume auto" in fails(capsys, *SMALL, "--train.out", str(whole))


@pytest.mark.parametrize("resume", [[], ["--train.resume", "auto"]])
@pytest.mark.parametrize("name", ["best", "last", "step7", "config.yaml", "metrics.csv"])
def test_new_run_replaces_nothing_in_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, resume: list[str]
) -> None:
    mine = tmp_path / name / "model.safetensors" if "." not in name else tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("data: {name: synthetic}\n")
    error = fails(capsys, *SMALL, "--train.out", str(tmp_path), *resume)
    assert f"contains {name}, which the run would replace" in error
    assert mine.read_text() == "data: {name: synthetic}\n"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_config_in_the_folder_of_the_run_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "config.yaml"
    mine.write_text("# my notes\ntrain: {lr: 1.0e-3}\n")
    error = fails(capsys, *SMALL, "--config", str(mine), "-o", str(tmp_path))
    assert "contains config.yaml, which the run would replace" in error
    assert mine.read_text().startswith("# my notes")


def test_resume_from_elsewhere_does_not_overwrite_an_old_run(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "resume.ckpt"
    copy.write_bytes((whole / "resume.ckpt").read_bytes())
    assert "contains a run" in fails(capsys, *SMALL, "--train.out", str(whole), "--train.resume", str(copy))


@pytest.mark.slow
def test_second_training_in_a_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], start: Start
) -> None:
    code_of_second: list[int | None] = []
    original = AVSLightningModule.training_step
    command = [*SMALL, "--train.max_steps", "1", "--train.out", str(tmp_path), "--train.resume", "auto"]

    def step(self: AVSLightningModule, batch: object, batch_idx: int) -> torch.Tensor:
        if not code_of_second:
            code_of_second.append(code(start(command)))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(AVSLightningModule, "training_step", step)
    assert main(command) == 0
    assert code_of_second == [2]
    assert load(tmp_path / "last").card["step"] == 1


@pytest.mark.parametrize(
    ("trouble", "line"),
    [
        (OSError(28, "No space left on device"), "No space left on device): free disk space, then"),
        (OSError(5, "Input/output error"), "Input/output error): remove the cause, then"),
        (RuntimeError("unexpected pos 64 vs 0"), "(unexpected pos 64 vs 0): remove the cause, then"),
    ],
)
def test_failed_save_names_its_reason(tmp_path: Path, trouble: Exception, line: str) -> None:
    def save() -> None:
        try:
            raise trouble
        except Exception:
            raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904 - as torch does

    with pytest.raises(CheckpointError) as caught, _writing(tmp_path / "resume.ckpt"):
        save()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_interrupted_save_is_an_interruption(tmp_path: Path) -> None:
    def save() -> None:
        try:
            raise KeyboardInterrupt
        except BaseException:
            raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904 - as torch does

    with pytest.raises(KeyboardInterrupt), _writing(tmp_path / "resume.ckpt"):
        save()


def test_resume_checkpoint_keeps_the_state_key_of_its_callback(whole: Path) -> None:
    state = torch.load(whole / "resume.ckpt", weights_only=True)
    assert state["callbacks"]["Keeper"].keys() == {"best"}


def test_resume_refuses_missing_broken_and_other_checkpoints(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resume = [*SMALL, "--train.out", str(tmp_path / "new"), "--train.resume"]
    assert "no such file" in fails(capsys, *resume, str(tmp_path / "nothing.ckpt"))
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes((whole / "resume.ckpt").read_bytes()[:-1000])
    assert "broken" in fails(capsys, *resume, str(broken))
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    assert "not written by avseg train" in fails(capsys, *resume, str(tmp_path / "foreign.ckpt"))
    other = fails(capsys, *resume, str(whole / "resume.ckpt"), "--model.channels", "16")
    assert "model.channels = 8, this run 16" in other
    assert not (tmp_path / "new").exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))])
def test_resume_runs_no_code_of_a_pickle(write: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write({"avseg": Trap(tmp_path / "sprung")}, tmp_path / "evil.ckpt")  # type: ignore[operator]
    fails(capsys, *SMALL, "--train.out", str(tmp_path / "run"), "--train.resume", str(tmp_path / "evil.ckpt"))
    assert not (tmp_path / "sprung").exists()


def test_infinite_loss_stops_and_names_the_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*SMALL, "--train.lr", "1e30", "--train.save_every", "1", "--train.out", str(tmp_path)]
    error = fails(capsys, *argv)
    assert "the loss is nan at step 1" in error
    assert "clips train-0000" in error
    assert torch.load(tmp_path / "resume.ckpt", weights_only=True)["global_step"] == 1


@pytest.mark.slow
def test_full_disk_is_one_line_and_keeps_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = torch.save, []

    def save(state: object, file: BinaryIO) -> None:
        calls.append(file.name)
        if len(calls) == 2:
            file.write(b"a bit of it")
            raise OSError(28, "No space left on device")
        original(state, file)

    monkeypatch.setattr(torch, "save", save)
    assert "No space left" in fails(capsys, *SMALL, "--train.out", str(tmp_path))
    assert torch.load(tmp_path / "resume.ckpt", weights_only=True)["global_step"] == 2
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize("setting", [["strategy", "magic"], ["precision", "16-mixed"]])
def test_missing_devices_are_one_line(setting: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, f"--train.{setting[0]}", setting[1], "--train.out", str(tmp_path / "run")]
    assert "these devices cannot be used" in fails(capsys, *words)
    assert not (tmp_path / "run").exists()


def audio_flags(line: str) -> list[str]:
    """Return the flags that the error line for a frozen audio encoder names first."""
    found = re.search(r"add (--model\.audio \w+ --weights\.audio \w+) for", line)
    assert found is not None, line
    return found[1].split()


@pytest.fixture
def own_videos(tmp_path: Path, make_video: Callable, make_beep: Callable) -> Path:
    """Return a folder of the layout ``videos``: three videos of 2 s, the first second of each labelled."""
    root = tmp_path / "mine"
    (root / "videos").mkdir(parents=True)
    for name in ("first", "second", "third"):
        make_video(f"mine/videos/{name}.mkv", times=[k / 5 for k in range(10)], sound=make_beep(2, 0, 1))
        (root / f"masks/{name}").mkdir(parents=True)
        Image.fromarray(np.eye(48, 64, dtype=np.uint8) * 255).save(root / f"masks/{name}/0.png")
    (root / "split.csv").write_text("video,split\nfirst,train\nsecond,val\nthird,test\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "model"), [("folder", "pcmanet"), *(("videos", model) for model in avseg.list_models())]
)
def test_frozen_audio_encoder_without_weights_names_flags_that_work(
    data: str, model: str, own_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if data == "folder":
        prepared = tmp_path / "prepared"
        assert main(["data", "prepare", str(own_videos), "-o", str(prepared)]) == 0
        own_videos = prepared
    argv = ["train", "--model", model, "--data", data, "--data.root", str(own_videos), "--data.size", "64"]
    argv += [
        "--model.visual",
        "pvt_v2_b0",
        "--model.channels",
        "32",
        "--train.max_steps",
        "1",
        "--train.workers",
        "0",
        "-o",
        str(tmp_path / "r"),
    ]
    line = fails(capsys, *argv)
    assert "the audio encoder 'vggish' is frozen and has no weights" in line
    assert not (tmp_path / "r").exists()
    flags = audio_flags(line)
    assert main([*argv, *flags]) == 0
    bundled, trained = load(flags[-1]).audio.state_dict(), load(tmp_path / "r/last").audio.state_dict()
    assert bundled.keys() == trained.keys()
    assert all(torch.equal(value, trained[key]) for key, value in bundled.items())


@pytest.mark.slow
def test_weights_model_without_a_matching_audio_encoder_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*SMALL, "--model.audio", "vggish", "--model.train_audio", "false", "--weights.model", str(whole / "last")]
    error = fails(capsys, *argv, "--train.out", str(tmp_path / "run"))
    assert "the audio encoder 'vggish' is frozen and has no weights" in error


def test_unknown_monitor_is_refused_with_a_suggestion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = fails(capsys, *SMALL, "--train.monitor", "val/avsbench/g", "--train.out", str(tmp_path / "run"))
    assert "Did you mean 'val/avsbench/" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_last_weights_are_saved_without_validation(tmp_path: Path) -> None:
    words = ["--train.val_every", "5", "--train.epochs", "1", "--train.out", str(tmp_path)]
    assert main([*SMALL, *words]) == 0
    assert load(tmp_path / "last").card["metrics"] == {}
    assert not (tmp_path / "best").exists()


class Again(AVSDataset):
    """Data set that repeats the first clip of another forty times."""

    def __init__(self, data: AVSDataset) -> None:
        self.class_names, self.sample = data.class_names, data[0]

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Sample:
        return self.sample


@pytest.mark.slow
def test_overfits_one_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(split: str, **settings: object) -> AVSDataset:
        data = build_dataset(split=split, **settings)  # type: ignore[arg-type]
        return Again(data) if split == "train" else data

    monkeypatch.setattr("avseg.training.train.build_dataset", again)
    argv = [*SMALL, "--train.epochs", "1", "--train.batch_size", "1", "--train.lr", "5e-3", "--train.flip", "false"]
    argv += ["--model.channels", "32", "--data.size", "64", "--train.save_every", "100"]
    assert main([*argv, "--train.out", str(tmp_path)]) == 0
    losses = [value for _, name, value in curves(tmp_path) if name == "train/bce/1"]
    assert len(losses) == 40
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path: Path) -> None:
    argv = [*SMALL, "--train.devices", "2", "--train.epochs", "1", "--data.val", "3", "--train.out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "avseg", *argv], check=True, timeout=300, env=environment)
    assert [step for step, name, _ in curves(tmp_path) if name == "train/loss"] == [0, 1, 2]
    assert avseg.load(tmp_path / "last").card["step"] == 3


def order(*args: object) -> list[int]:
    return list(ResumableSampler(*args))  # type: ignore[arg-type]


def test_sampler_order_depends_on_seed_and_epoch() -> None:
    first, second = order(10, 7, 3), order(10, 7, 3, Position(1))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second != order(10, 8, 3, Position(1))
    assert order(10, 7, 3, Position(0, 2)) == first[6:]
    sampler = ResumableSampler(10, 7, 3, Position(0, 2))
    assert len(sampler) == 10
    sampler.set_epoch(0)
    assert list(sampler) == first[6:]
    sampler.set_epoch(1)
    assert list(sampler) == second


@pytest.mark.parametrize("world", [2, 3, 4])
def test_sampler_splits_clips_among_processes(world: int) -> None:
    dealt = [order(10, 7, 3, Position(), rank, world) for rank in range(world)]
    assert len({len(mine) for mine in dealt}) == 1
    assert {clip for mine in dealt for clip in mine} == set(range(10))


def test_rate_rises_then_stays_or_falls_to_zero() -> None:
    constant = rate_factor(TrainConfig(warmup=3), 10)
    assert [constant(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    cosine = rate_factor(TrainConfig(schedule="cosine", warmup=2), 10)
    assert cosine(2) == 1.0
    assert cosine(6) == pytest.approx(0.5)
    assert cosine(10) == pytest.approx(0.0)
    poly = rate_factor(TrainConfig(schedule="poly", warmup=2), 10)
    assert [poly(step) for step in range(3)] == [1 / 3, 2 / 3, 1.0]
    assert poly(6) == pytest.approx(0.5**0.9)
    assert poly(10) == poly(11) == 0.0


def lesson(**settings: object) -> AVSLightningModule:
    model = avseg.build("pcmanet", visual="pvt_v2_b0", audio="compact", train_audio=True, channels=8)
    data = build_dataset("synthetic", split="train", size=32, frames=1, train=4)
    made = AVSLightningModule(model, data, data, TrainConfig(**settings))  # type: ignore[arg-type]
    made.trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    return made


def test_backbone_lr_scales_the_rate_of_the_backbone() -> None:
    made = lesson(lr=0.1, backbone_lr=0.25, schedule="poly", epochs=8, weight_decay=0.05, optimizer="adamw")
    found = made.configure_optimizers()
    optimizer, schedule = found["optimizer"], found["lr_scheduler"]["scheduler"]
    _, backbone = optimizer.param_groups
    assert {id(p) for p in backbone["params"]} == {id(p) for p in made.model.visual.parameters()}
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in made.model.parameters())
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.025]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.05]
    for _ in range(4):
        optimizer.step()
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 * 0.5**0.9, 0.025 * 0.5**0.9])


def test_single_rate_is_one_group_in_model_order() -> None:
    made = lesson(lr=0.1)
    (group,) = made.configure_optimizers()["optimizer"].param_groups
    assert all(a is b for a, b in zip(group["params"], made.model.parameters(), strict=True))


def test_backbone_lr_of_a_frozen_backbone_is_refused() -> None:
    made = lesson(backbone_lr=0.1)
    made.model.visual.requires_grad_(False)
    with pytest.raises(ConfigError, match="no trainable backbone"):
        made.configure_optimizers()


@pytest.mark.parametrize("name", ["lr", "backbone_lr", "clip_grad"])
def test_rates_must_be_above_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.{name} must be above 0, got 0"):
        TrainConfig(**{name: 0.0})  # type: ignore[arg-type]


@pytest.mark.slow
def test_backbone_lr_resumes_and_decay_fixes_the_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "--train.backbone_lr", "0.1", "--train.schedule", "poly"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*words, "-o", str(whole)]) == 0

    original = AVSLightningModule.training_step

    def step(self: AVSLightningModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(AVSLightningModule, "training_step", step)
        assert main([*words, "-o", str(parts)]) == 143
    capsys.readouterr()
    resumed = [*words, "-o", str(parts), "--train.resume", "auto"]
    assert "train.epochs = 2, this run 3" in fails(capsys, *resumed, "--train.epochs", "3")
    assert "train.backbone_lr = 0.1, this run 1.0" in fails(capsys, *resumed, "--train.backbone_lr", "1")
    assert main(resumed) == 0
    assert same_run(whole, parts)
    rates = [value for _, name, value in curves(whole) if name == "train/lr"]
    assert rates == pytest.approx([1e-3 * (1 - step / 10) ** 0.9 for step in range(10)])


def test_mirror_flips_frames_masks_and_stereo_together() -> None:
    frames, audio = torch.randn(16, 2, 3, 4, 6), torch.randn(16, 2, 2, 96, 64)
    masks = torch.randint(0, 2, (16, 2, 4, 6))
    clip, target = mirror(Clip(frames, audio), Target(masks, torch.ones(16, 2, dtype=torch.bool)))
    turned = [not torch.equal(a, b) for a, b in zip(clip.frames, frames, strict=True)]
    assert 0 < sum(turned) < 16
    for i, was_turned in enumerate(turned):
        assert torch.equal(clip.frames[i], frames[i].flip(-1) if was_turned else frames[i])
        assert torch.equal(target.masks[i], masks[i].flip(-1) if was_turned else masks[i])
        assert torch.equal(clip.audio[i], audio[i].flip(1) if was_turned else audio[i])


def test_one_value_per_channel_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lonely = [
        "--model.visual",
        "resnet18",
        "--data.frames",
        "1",
        "--train.batch_size",
        "1",
        "-o",
        str(tmp_path / "run"),
    ]
    assert main([*SMALL, *lonely]) == 2
    assert "1 clips of 1 frames of 32x32 leave one value per channel in the deepest stage" in capsys.readouterr().err


@pytest.mark.slow
def test_kill_in_the_last_validation_keeps_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*SMALL, "--train.max_steps", "7", "-o", str(tmp_path / "run")]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        calls = iter(range(99))
        whole = AVSLightningModule.validation_step
        # two clips end the first epoch, the third is of the validation after the last step
        patch.setattr(AVSLightningModule, "validation_step", lambda *a: killed() if next(calls) == 2 else whole(*a))
        assert main(words) == 130
    assert load(tmp_path / "run/last").card["step"] == 7
    assert main([*words, "--train.resume", "auto"]) == 0
    assert load(tmp_path / "run/last").card["step"] == 7
