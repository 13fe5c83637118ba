"""Hostile inputs of all kinds, each a function of a seed."""

import contextlib
import importlib
import io
import json
import os
import pickle
import pkgutil
import random
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from _attack_kills import killed_and_repeated
from _attack_media import SIZE, sound, videos
from _attack_model import Loudness
from _attack_mutations import HOSTILE, mutated_bytes, mutated_tree
from _attack_runner import OWNED, Case, in_process
from avseg.cli import main
from avseg.config import TrainConfig
from avseg.media.rle import encode
from avseg.model_folder import CARD, WEIGHTS, save
from avseg.models import build
from avseg.outputs import list_outputs, output_class
from avseg.pipeline.result import Result

Random = random.Random
Make = Callable[[int, Random], Case]
_SHARE_OF_NEW = 100
"""One in this many inputs is used by a new process, with its own imports."""
HEALTHY = ("media", "sounds", "cards", "results", "yaml", "pickles", "masks", "coco")
"""Kinds of which the input with number 0 is not mutated, so it must end in a result."""
_PACKAGES = ("avseg.data", "avseg.dataset_tools", "avseg.evaluation", "avseg.figures", "avseg.models", "avseg.training")
"""Packages of modules that commands import when they run."""


class Payload:
    """Object that creates a file when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.content = function, arguments

    def __reduce__(self) -> Any:
        return self.content


def cases(order: Iterable[tuple[str, int]], seed: int) -> Iterator[Case]:
    """Yield the inputs of these kinds and numbers."""
    _import_all()
    makers: dict[str, Make] = {}
    for kind, number in order:
        if kind not in makers:
            makers[kind] = MAKERS[kind]()
        case = makers[kind](number, random.Random(f"{seed} {kind} {number}"))
        yield replace(case, new=not callable(case.act) and number % _SHARE_OF_NEW == 7)


def _import_all() -> None:
    """Import what commands import when they run, once instead of in every process."""
    for name in list_outputs():
        output_class(name)
    for package in _PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
    for name in ("avseg.checkpoints.release", "avseg.pipeline.batch", "avseg.profile", "safetensors.torch"):
        importlib.import_module(name)
    with contextlib.redirect_stdout(io.StringIO()):
        for words in (
            "predict",
            "eval",
            "train",
            "convert",
            "profile small",
            "data check",
            "data show",
            "data prepare",
        ):
            main([*words.split(), "--help"])  # imports the parser of flags, and reads the signatures


def _media() -> Make:
    bases, model = in_process(videos), in_process(_small_model)
    outputs = ("masks,json", "overlay", "overlay,masks,json", "summary")

    def make(number: int, dice: Random) -> Case:
        name = dice.choice(sorted(bases)) if number else "b.mkv"
        content, chosen = _bytes(bases[name], number, dice), outputs[dice.choice((0, 0, 0, 1, 1, 1, 2, 3))]
        settings = ("--missing_audio", "silence", "--damaged", dice.choice(("skip", "error")), "--save", chosen)

        def prepare(folder: Path) -> None:
            _write(folder / name, content)
            _write_all(folder / "model", model)

        return Case("media", number, prepare, ("predict", name, "--model", "model", *settings, "-o", "out"), name)

    return make


def _small_model() -> dict[str, bytes]:
    return _saved(Loudness(Loudness.Config()), data={"size": 16, "frames": 5})


def _saved(model: Any, **card: Any) -> dict[str, bytes]:
    """Return name → content of the files of a saved model."""
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder, **card)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _sounds() -> Make:
    base, frame = in_process(sound), in_process(videos)["image.png"]

    def make(number: int, dice: Random) -> Case:
        content = _bytes(base, number, dice)

        def prepare(folder: Path) -> None:
            _write(folder / "dataset.json", b'{"class_names": ["background", "dog"]}')
            _write(folder / "train/a/frames/0.png", frame)
            _write(folder / "train/a/audio.wav", content)

        show = ("data", "show", "--data", "folder", "--data.root", ".", "--split", "train", "-o", "sheet.png")
        return Case("sounds", number, prepare, ("data", "check", ".") if number % 3 else show)

    return make


def _cards() -> Make:
    files, video = in_process(_network), in_process(videos)["b.mkv"]
    card, weights = json.loads(files[CARD]), files[WEIGHTS]
    commands = (("predict", "v.mkv", "--missing_audio", "silence", "--model", "model", "-o", "out"),) * 3 + (
        ("profile", "model", "--runs", "1"),
        ("eval", "model"),
    )

    def make(number: int, dice: Random) -> Case:
        text = _tree(card, number, dice, 0.8)
        stored = mutated_bytes(weights[:4000], dice) + weights[4000:] if number and dice.random() < 0.1 else weights

        def prepare(folder: Path) -> None:
            _write(folder / "model" / CARD, text)
            _write(folder / "model" / WEIGHTS, stored)
            _write(folder / "v.mkv", video)

        return Case("cards", number, prepare, dice.choice(commands))

    return make


def _network() -> dict[str, bytes]:
    model = build("pcmanet", visual="resnet18", audio="compact", train_audio=True, channels=16)
    data = {"name": "synthetic", "size": 64, "frames": 5, "train": 2, "val": 2, "test": 2}
    names = ["background", "sounding"]
    return _saved(model, class_names=names, data=data, metrics={"val/j": 0.5}, train=asdict(TrainConfig()))


def _results() -> Make:
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

    video, model = in_process(videos)["b.mkv"], in_process(_small_model)
    predict = (
        "predict",
        "v.mkv",
        "--model",
        "model",
        "--missing_audio",
        "silence",
        "--save",
        "masks,json",
        "-o",
        "out",
    )
    commands = ((*predict, "--overwrite", "true"), (*predict, "--skip_done", "true"))

    def make(number: int, dice: Random) -> Case:
        text = _tree(base, number, dice, 0.8)

        def prepare(folder: Path) -> None:
            _write(folder / "out/result.json", text)
            _write(folder / "v.mkv", video)
            _write_all(folder / "model", model)
            if number % 7 == 0:
                _write(folder / "out/masks/mine.png", b"a file of the user")

        return Case("results", number, prepare, _used_result if number % 2 else dice.choice(commands))

    return make


def _used_result(folder: Path) -> None:
    """Use a stored result as a program does."""
    result = Result.load(folder / "out")
    np.asarray(result.masks)
    result.save(folder / "again", "masks,json")
    result.to_coco()


_SHORT = ("--train.max_steps", "1", "--train.out", "run")
"""Flags that end a training after one step."""
_NETWORK = (
    "--model.visual",
    "resnet18",
    "--model.channels",
    "16",
    "--model.audio",
    "compact",
    "--model.train_audio",
    "true",
)
"""Flags of a small model."""


def _yaml() -> Make:
    base = {
        "model": {"name": "pcmanet", "visual": "resnet18", "channels": 16, "audio": "compact", "train_audio": True},
        "data": {"name": "synthetic", "size": 32, "frames": 2, "train": 2, "val": 1, "test": 1},
        "train": {"epochs": 1, "lr": 1e-3, "workers": 0, "devices": 1, "loggers": ["csv"], "clip_grad": 1.0},
        "weights": {"visual": None},
    }

    def make(number: int, dice: Random) -> Case:
        if dice.random() < 0.7 or not number:
            tree = mutated_tree(base, dice) if number else base
            text = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
        else:
            text = mutated_bytes(yaml.safe_dump(base).encode(), dice)
        words = ("train", "--config", "run.yaml", *_SHORT)
        return Case("yaml", number, lambda folder: _write(folder / "run.yaml", text), words)

    return make


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


def _flags() -> Make:
    words = [str(value) for value in HOSTILE if "\x00" not in str(value)]
    words += ["meta", "cuda:99", "nan", "-1", "1e400", "[32,16]", "\udcff", "auto", "{a: 1}", "&a [*a]", "input.bin"]
    base = (*_NETWORK, "--data.train", "2", "--data.val", "1")

    def make(number: int, dice: Random) -> Case:
        if dice.random() < 0.6:
            names = dice.sample(_TRAIN_FLAGS, dice.choice((1, 1, 2)))
            given = [word for name in names for word in (name, dice.choice(words))]
            small = () if {"--model", "--data"} & set(names) else (*base, "--data.size", "32", "--data.frames", "2")
            argv = ("train", *_SHORT, *small, *given)
        else:
            verb, known = dice.choice(_FLAGS)
            target = dice.choice(("input.bin", "nowhere", "", "\udcff", ".", "small"))
            argv = (*verb.split(), target, dice.choice(known), dice.choice(words))
        return Case("flags", number, lambda folder: _write(folder / "input.bin", b"no video"), argv)

    return make


def _pickles() -> Make:
    bases, picture = in_process(_log_mels), in_process(videos)["image.png"]
    words = ("data", "show", "--data", "ms3", "--data.root", ".", "--data.audio", "pkl", "--split", "train")

    def make(number: int, dice: Random) -> Case:
        hostile = number and dice.random() < 0.2
        content = pickle.dumps(_payload(dice)) if hostile else _bytes(dice.choice(bases), number, dice)

        def prepare(folder: Path) -> None:
            _write(folder / "ms3_meta_data.csv", b"name,split\na,train\n")
            _write(folder / "ms3_data/audio_log_mel/train/a.pkl", content)
            for k in range(1, 6):
                _write(folder / f"ms3_data/visual_frames/a/a.mp4_{k}.png", picture)
                _write(folder / f"ms3_data/gt_masks/train/a/a_{k}.png", picture)

        return Case("pickles", number, prepare, (*words, "-o", "sheet.png"))

    return make


def _log_mels() -> list[bytes]:
    arrays = [pickle.dumps(np.zeros((5, 1, 96, 64), np.float32), protocol) for protocol in (0, 2, 4)]
    return [*arrays, pickle.dumps(torch.zeros(5, 1, 96, 64))]


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


def _checkpoints() -> Make:
    start = ("train", *_NETWORK, "--data.train", "2", *_SHORT)
    commands = (("convert", "a.pth", "-o", "out"), (*start, "--weights.visual", "a.pth"))

    def make(number: int, dice: Random) -> Case:
        kind, command = dice.randrange(4), dice.choice(commands)
        content = in_process(partial(_checkpoint, kind, dice))
        if kind > 1:
            content = mutated_bytes(content, dice)
        if kind == 1:
            command = (*start, "--train.resume", "a.pth")
        return Case("checkpoints", number, lambda folder: _write(folder / "a.pth", content), command)

    return make


def _checkpoint(kind: int, dice: Random) -> bytes:
    """Return a file of torch: with code, with mutated fields of a resume point, or with plain weights."""
    content = io.BytesIO()
    if kind == 0:
        torch.save({"model": {"a": torch.zeros(2)}, "x": _payload(dice)}, content)
    elif kind == 1:
        point = {"run": _run_text(), "position": [0, 1], "curve_bytes": 3}
        torch.save(mutated_tree({"avseg": point, "global_step": 1, "state_dict": {}}, dice), content)
    else:
        torch.save({"module.a": torch.zeros(3, 3), "module.b": torch.ones(2)}, content)
    return content.getvalue()


def _run_text() -> str:
    return json.dumps({"model": {"name": "pcmanet"}, "data": {"name": "synthetic"}, "train": asdict(TrainConfig())})


def _masks() -> Make:
    video = in_process(videos)["b.mkv"]
    names = ("0.png", "1.png", "00.png", "99999999999.png", "-1.png", "a.png", "²0.png", "604799.png", "3600.png")

    def make(number: int, dice: Random) -> Case:
        def prepare(folder: Path) -> None:
            _write(folder / "videos/v.mkv", video)
            _write(folder / "split.csv", b"video,split\nv,train\n")
            if not number:
                (folder / "masks/v").mkdir(parents=True)
                Image.new("L", SIZE[::-1]).save(folder / "masks/v/0.png")
                return
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

        return Case("masks", number, prepare, _used_videos(dice))

    return make


def _coco() -> Make:
    video = in_process(videos)["b.mkv"]
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
        text = _tree(base, number, dice, 0.9)

        def prepare(folder: Path) -> None:
            _write(folder / "videos/v.mkv", video)
            _write(folder / "split.csv", b"video,split\nv,train\n")
            _write(folder / "annotations.json", text)

        return Case("coco", number, prepare, _used_videos(dice))

    return make


def _used_videos(dice: Random) -> tuple[str, ...]:
    """Return a command that reads a data set ``videos``."""
    seconds = str(dice.choice((0, 10)))
    root = ("--data", "videos", "--data.root", ".", "--data.seconds", seconds, "--data.size", "16")
    return dice.choice(
        (
            ("data", "check", "."),
            ("data", "show", *root, "--split", "train", "-o", "sheet.png"),
            ("data", "prepare", ".", "--seconds", seconds, "-o", "out"),
        )
    )


def _kills() -> Make:
    video, model = in_process(videos)["b.mkv"], in_process(_small_model)
    words = ("predict", "v.mkv", "--model", "model", "--missing_audio", "silence", "--save", "overlay,masks,json")

    def make(number: int, dice: Random) -> Case:
        delay, blow = dice.uniform(0.0, 0.3), dice.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))

        def prepare(folder: Path) -> None:
            _write(folder / "v.mkv", video)
            _write_all(folder / "model", model)

        return Case(
            "kills",
            number,
            prepare,
            partial(killed_and_repeated, [*words, "-o", "out", "--overwrite", "true"], delay, blow),
        )

    return make


def _counts() -> str:
    """Return the run lengths of a rectangle."""
    mask = np.zeros(SIZE, bool)
    mask[4:12, 6:20] = True
    return encode(mask).counts.decode()


def _bytes(base: bytes, number: int, dice: Random) -> bytes:
    """Return mutated bytes, for number 0 the healthy ones."""
    return mutated_bytes(base, dice) if number else base


def _tree(base: Any, number: int, dice: Random, share: float) -> bytes:
    """Return JSON with a mutated value, or with mutated bytes, for number 0 the healthy JSON."""
    return _json(mutated_tree(base, dice)) if number and dice.random() < share else _bytes(_json(base), number, dice)


def _json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        _write(folder / name, content)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


MAKERS: dict[str, Callable[[], Make]] = {
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
