"""Hostile inputs of all kinds, each a function of a seed."""

import json
import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

import avseg
from _attack_media import SIZE, sound, videos
from _attack_mutations import HOSTILE, mutated_bytes, mutated_tree
from _attack_runner import OWNED, Case
from avseg.checkpoints.state import read_state
from avseg.cli import main
from avseg.config import Run, TrainConfig, read_run
from avseg.data import build_dataset
from avseg.data._pickles import read_log_mel
from avseg.interface import AVSModel, Clip, Prediction, Target
from avseg.media.rle import encode
from avseg.media.sound import read_sound
from avseg.models import build
from avseg.outputs import list_outputs, output_class
from avseg.prediction.predict import predict
from avseg.prediction.result import Result
from avseg.training.checkpoint import find_resume

Random = random.Random


class Loudness(AVSModel):
    """Foreground where the sound is loud: a model without weights, so that a run takes milliseconds."""

    @dataclass(frozen=True)
    class Config:
        """No settings."""

    paper = "none"

    def __init__(self, classes: int = 1) -> None:
        super().__init__(self.Config(), classes)
        self.card = {"data": {"size": 16, "frames": 5}}

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        """Return logits that are positive in the frames with loud sound."""
        loud = clip.audio.flatten(2).mean(2) > -4.0
        return Prediction(torch.where(loud, 4.0, -4.0)[..., None, None, None].expand(*loud.shape, 1, 16, 16))

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """Return nothing: it is not trained."""
        return {}


class Payload:
    """Object that creates a file when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.content = function, arguments

    def __reduce__(self) -> Any:
        return self.content


def cases(counts: Mapping[str, int], seed: int) -> Iterator[Case]:
    """Yield ``counts[kind]`` inputs of each kind, in random order of kinds."""
    for name in list_outputs():  # imported once, not in every process
        output_class(name)
    makers = {kind: MAKERS[kind]() for kind in counts}
    order = [(kind, number) for kind, count in counts.items() for number in range(count)]
    random.Random(seed).shuffle(order)
    for kind, number in order:
        yield makers[kind](number, random.Random(f"{seed} {kind} {number}"))


def _media() -> Callable[[int, Random], Case]:
    bases, outputs = videos(), ("masks,json", "overlay", "overlay,masks,json", "summary")

    def make(number: int, dice: Random) -> Case:
        name = dice.choice(sorted(bases))
        content, chosen = mutated_bytes(bases[name], dice), outputs[dice.choice((0, 0, 0, 1, 1, 1, 2, 3))]

        def act(folder: Path) -> None:
            settings: Any = {"missing_audio": "silence", "damaged": dice.choice(("skip", "error"))}
            predict(folder / name, Loudness().eval(), **settings).save(folder / "out", chosen)

        return Case("media", f"{name} {number}", lambda folder: _write(folder / name, content), act)

    return make


def _sounds() -> Callable[[int, Random], Case]:
    base = sound()

    def make(number: int, dice: Random) -> Case:
        content = mutated_bytes(base, dice)

        def act(folder: Path) -> None:
            read_sound(folder / "a.wav")

        return Case("sounds", str(number), lambda folder: _write(folder / "a.wav", content), act)

    return make


def _cards() -> Callable[[int, Random], Case]:
    model = build("pcmanet", visual="resnet18", audio="compact", train_audio=True, channels=16)
    card = {
        "model": "pcmanet",
        "classes": 1,
        "config": asdict(model.config),
        "class_names": ["background", "sounding"],
        "data": {"name": "synthetic", "size": 64, "frames": 5},
        "metrics": {"val/j": 0.5},
        "train": asdict(TrainConfig()),
    }
    from safetensors.torch import save

    weights = save(dict(model.state_dict()))

    video = videos()["b.mkv"]

    def make(number: int, dice: Random) -> Case:
        text = _json(mutated_tree(card, dice)) if dice.random() < 0.8 else mutated_bytes(_json(card), dice)
        stored = mutated_bytes(weights[:4000], dice) + weights[4000:] if dice.random() < 0.1 else weights

        def prepare(folder: Path) -> None:
            _write(folder / "avseg.json", text)
            _write(folder / "model.safetensors", stored)
            _write(folder / "v.mkv", video)

        def act(folder: Path) -> None:
            predict(folder / "v.mkv", avseg.load(folder), missing_audio="silence")

        return Case("cards", str(number), prepare, act)

    return make


def _results() -> Callable[[int, Random], Case]:
    base = {
        "format": 1,
        "source": "v.mkv",
        "size": list(SIZE),
        "class_names": ["background", "sounding"],
        "end": 0.2,
        "model": "small",
        "options": {"fps": 1.0, "damaged": "error"},
        "notes": ["a note"],
        "frames": [
            {
                "time": k / 10,
                "score": 0.5,
                "regions": [{"label": 1, "score": 0.5, "size": list(SIZE), "counts": _counts()}],
            }
            for k in range(2)
        ],
    }

    def make(number: int, dice: Random) -> Case:
        text = _json(mutated_tree(base, dice)) if dice.random() < 0.8 else mutated_bytes(_json(base), dice)

        def act(folder: Path) -> None:
            result = Result.load(folder)
            np.asarray(result.masks)
            result.save(folder / "out", "masks,json")
            result.to_coco()

        return Case("results", str(number), lambda folder: _write(folder / "result.json", text), act)

    return make


def _yaml() -> Callable[[int, Random], Case]:
    base = {
        "model": {"name": "pcmanet", "visual": "resnet18", "channels": 16, "audio": "none"},
        "data": {"name": "synthetic", "size": 32, "frames": 2, "train": 2, "val": 1, "test": 1},
        "train": {"epochs": 1, "lr": 1e-3, "workers": 0, "devices": 1, "loggers": ["csv"], "clip_grad": 1.0},
        "weights": {"visual": None},
    }

    def make(number: int, dice: Random) -> Case:
        if dice.random() < 0.7:
            tree = mutated_tree(base, dice)
            text = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
        else:
            text = mutated_bytes(yaml.safe_dump(base).encode(), dice)

        def act(folder: Path) -> None:
            _built(read_run(["--config", str(folder / "run.yaml")]))

        return Case("yaml", str(number), lambda folder: _write(folder / "run.yaml", text), act)

    return make


def _built(run: Run) -> None:
    """Build the data and the model of a run, without training."""
    data = build_dataset(split="train", **run.data)
    if len(data):
        build(classes=data.classes, **run.model)


_FLAGS = (
    ("predict", ("--fps", "--device", "--missing_audio", "--damaged", "--silence_gate", "--save", "--model", "-o")),
    ("eval", ("--split", "--device", "--batch_size", "--data", "--data.size", "--data.root", "-o")),
    ("profile", ("--classes", "--frames", "--height", "--width", "--runs", "--channels", "--groups", "--heads")),
    ("data check", ("-o",)),
    ("data show", ("--data", "--data.size", "--split", "-o")),
    ("convert", ("-o", "--vggish")),
)  # fmt: skip
_TRAIN_FLAGS = (
    "--model", "--data", "--config", "--data.size", "--data.frames", "--data.variant", "--model.channels",
    "--model.groups", "--model.heads", "--model.visual", "--model.confidence", "--train.lr", "--train.epochs",
    "--train.workers", "--train.devices", "--train.accelerator", "--train.precision", "--train.loggers",
    "--train.clip_grad", "--train.out", "--train.batch_size", "--weights.visual", "--nonsense",
)  # fmt: skip


def _flags() -> Callable[[int, Random], Case]:
    words = [str(value) for value in HOSTILE if "\x00" not in str(value)]
    words += ["meta", "cuda:99", "nan", "-1", "1e400", "[32,16]", "\udcff", "auto", "{a: 1}", "&a [*a]", "input.bin"]

    def make(number: int, dice: Random) -> Case:
        if dice.random() < 0.6:
            flags = [
                w for flag in dice.sample(_TRAIN_FLAGS, dice.choice((1, 1, 2))) for w in (flag, dice.choice(words))
            ]
            flags = [f"{word}.name" if word in ("--model", "--data") else word for word in flags]  # as the command does
            small = (
                ["--model.visual", "resnet18", "--model.channels", "16", "--data.train", "2"]
                if "--data.name" not in flags
                else []
            )
            argv: list[str] = [*small, *flags]

            def act(folder: Path) -> int:
                _built(read_run(argv))
                return 0
        else:
            verb, known = dice.choice(_FLAGS)
            flags = [w for flag in dice.sample(known, 1) for w in (flag, dice.choice(words))]
            target = dice.choice(("input.bin", "nowhere", "", "\udcff", ".", "small"))

            def act(folder: Path) -> int:
                return main([*verb.split(), target, *flags])

        return Case("flags", str(number), lambda folder: _write(folder / "input.bin", b"no video"), act)

    return make


def _pickles() -> Callable[[int, Random], Case]:
    bases = [
        pickle.dumps(np.zeros((5, 1, 96, 64), np.float32), protocol) for protocol in (0, 2, 4)
    ] + [pickle.dumps(torch.zeros(5, 1, 96, 64))]  # fmt: skip

    def make(number: int, dice: Random) -> Case:
        hostile = dice.random() < 0.2
        content = pickle.dumps(_payload(dice)) if hostile else mutated_bytes(dice.choice(bases), dice)

        def act(folder: Path) -> None:
            read_log_mel(folder / "a.pkl")

        return Case("pickles", str(number), lambda folder: _write(folder / "a.pkl", content), act)

    return make


def _payload(dice: Random) -> Payload:
    """Return an object that creates a file in the working directory when it is unpickled."""
    return dice.choice(
        (
            Payload(os.system, f"touch {OWNED}"),
            Payload(open, OWNED, "w"),
            Payload(Path.touch, Path(OWNED)),
            Payload(exec, f"open({OWNED!r}, 'w')"),
            Payload(eval, f"open({OWNED!r}, 'w')"),
        )
    )


def _checkpoints() -> Callable[[int, Random], Case]:
    import io

    def make(number: int, dice: Random) -> Case:
        content = io.BytesIO()
        tree: Any = {"avseg": {"run": "{}", "position": (0, 1), "curve_bytes": 3}, "global_step": 1, "state_dict": {}}
        kind = dice.randrange(4)
        if kind == 0:
            torch.save({"model": {"a": torch.zeros(2)}, "x": _payload(dice)}, content)
        elif kind == 1:
            torch.save(
                mutated_tree(tree | {"avseg": {"run": _run_text(), "position": [0, 1], "curve_bytes": 3}}, dice),
                content,
            )
        else:
            torch.save({"module.a": torch.zeros(3, 3), "module.b": torch.ones(2)}, content)
        data = content.getvalue() if kind < 2 else mutated_bytes(content.getvalue(), dice)

        def act(folder: Path) -> None:
            if kind == 1:
                find_resume(Run({}, {}, train=TrainConfig(resume=str(folder / "a.pth"))), folder)
            elif number % 2:
                avseg.from_release(folder / "a.pth")
            else:
                read_state(folder / "a.pth")

        return Case("checkpoints", str(number), lambda folder: _write(folder / "a.pth", data), act)

    return make


def _run_text() -> str:
    return json.dumps({"model": {"name": "pcmanet"}, "data": {"name": "synthetic"}, "train": asdict(TrainConfig())})


def _masks() -> Callable[[int, Random], Case]:
    video = videos()["b.mkv"]
    names = ("0.png", "1.png", "00.png", "99999999999.png", "-1.png", "a.png", "²0.png", "604799.png", "3600.png")

    def make(number: int, dice: Random) -> Case:
        def prepare(folder: Path) -> None:
            _write(folder / "videos/v.mkv", video)
            _write(folder / "split.csv", b"video,split\nv,train\n")
            for name in {"0.png", dice.choice(names)} if dice.random() < 0.5 else {"0.png"}:
                mode, size = (
                    dice.choice(("L", "P", "1", "RGB", "I;16", "LA")),
                    dice.choice((SIZE[::-1], (1, 1), (5000, 3))),
                )
                path = folder / "masks/v" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new(mode, size).save(path)
                if dice.random() < 0.3:
                    path.write_bytes(mutated_bytes(path.read_bytes(), dice))
            if dice.random() < 0.3:
                _write(folder / "classes.txt", mutated_bytes(b"dog\ncat\n", dice))

        return Case("masks", str(number), prepare, partial(_use_videos, seconds=dice.choice((0, 10))))

    return make


def _coco() -> Callable[[int, Random], Case]:
    video = videos()["b.mkv"]
    base = {
        "images": [{"id": 1, "file_name": "v/0.png", "height": SIZE[0], "width": SIZE[1], "time": 0.5}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]},
            {"image_id": 1, "category_id": 2, "segmentation": {"size": list(SIZE), "counts": [700, 60, 8]}},
            {"image_id": 1, "category_id": 2, "segmentation": {"size": list(SIZE), "counts": _counts()}},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }

    def make(number: int, dice: Random) -> Case:
        text = _json(mutated_tree(base, dice)) if dice.random() < 0.9 else mutated_bytes(_json(base), dice)

        def prepare(folder: Path) -> None:
            _write(folder / "videos/v.mkv", video)
            _write(folder / "split.csv", b"video,split\nv,train\n")
            _write(folder / "annotations.json", text)

        return Case("coco", str(number), prepare, partial(_use_videos, seconds=dice.choice((0, 10))))

    return make


def _use_videos(folder: Path, seconds: int) -> None:
    data = build_dataset("videos", "train", root=str(folder), seconds=seconds, size=16)
    for index in range(min(len(data), 3)):
        data[index]


def _kills() -> Callable[[int, Random], Case]:
    video = videos()["b.mkv"]

    def make(number: int, dice: Random) -> Case:
        delay, blow = dice.uniform(0.0, 0.3), dice.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))

        def save(folder: Path, overwrite: bool) -> int:
            """Fork a process that predicts and saves: FFmpeg's threads would not survive a later fork."""
            if child := os.fork():
                return child
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                result = predict(folder / "v.mkv", Loudness().eval(), missing_audio="silence")
                result.save(folder / "out", "overlay,masks,json", overwrite=overwrite)
            except BaseException as error:
                sys.stderr.write(f"{error!r}\n")
                os._exit(1)
            os._exit(0)

        def act(folder: Path) -> int:
            os.waitpid(save(folder, overwrite=False), 0)
            child = save(folder, overwrite=True)
            time.sleep(delay)
            os.kill(child, blow)
            os.waitpid(child, 0)
            lost = not (folder / "out/result.json").is_file() and "lost before recovery"
            _, status = os.waitpid(save(folder, overwrite=True), 0)  # recovers what the killed process left
            complete = len(list((folder / "out/masks").iterdir())) == len(Result.load(folder / "out").frames)
            if status or not complete or lost:
                sys.stderr.write(f"status {status}, complete {complete}, {lost}\n")
            return 0 if complete and not status else 3

        return Case("kills", str(number), lambda folder: _write(folder / "v.mkv", video), act)

    return make


def _counts() -> str:
    """Return the run lengths of a rectangle."""
    mask = np.zeros(SIZE, bool)
    mask[4:12, 6:20] = True
    return encode(mask).counts.decode()


def _json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


MAKERS: dict[str, Callable[[], Callable[[int, Random], Case]]] = {
    "media": _media,
    "sounds": _sounds,
    "cards": _cards,
    "results": _results,
    "yaml": _yaml,
    "flags": _flags,
    "pickles": _pickles,
    "checkpoints": _checkpoints,
    "masks": _masks,
    "coco": _coco,
    "kills": _kills,
}
"""Kind of input → function that returns its maker."""
