"""Distil the audio encoder ``mobile`` from YAMNet.

Run ``python benchmarks/distill_audio.py --config configs/distill_mobile_audio.yaml``. The student starts from the
dequantised weights of YAMNet (Google, Apache-2.0), of which the last layer keeps 512 of 1024 channels, and learns
the scores and the embedding that YAMNet gives for random mixtures of sounds. The teacher runs in float32 on the exact
log-mel patch: the int8 arithmetic of the TensorFlow Lite file distorts the log-mel patch of sounds with pauses or a
steep spectrum. Agreement with the file itself is reported as well.

Below ``out``: decoded sounds, shards of windows with the outputs of the teacher, ``state.pt`` to resume from,
``mobile_audio.safetensors`` and ``distill_mobile_audio.json``. A repeated command goes on where the last one stopped.
"""

import dataclasses
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from _common import mistakes_in_a_line
from avseg.errors import ConfigError
from avseg.mel import PATCH_SAMPLES, SAMPLE_RATE, log_mel_at
from avseg.nn.mobile_audio import MobileAudio
from avseg.provenance import provenance, write_result
from sound_agreement import agreement
from sound_library import Folder, Library, Wave, cached, instruments, recordings
from sound_mixing import Mixer, Mixing
from yamnet import Outputs, Yamnet, network

WEIGHTS = "mobile_audio.safetensors"
REPORT = "distill_mobile_audio.json"

_START = 4
"""Shards that the start is fitted to."""

_TRUNK = 51
"""Layers of ``MobileAudio.features`` that stay as the teacher's: all but the last two blocks."""

Teacher = Callable[[Tensor], Outputs]
"""Log-mel patches (N, 1, 96, 64) → outputs."""
Trunk = Callable[[Tensor], Tensor]
"""Log-mel patches → maps (N, 512, 6, 4) of the layers that stay as the teacher's."""
Parts = dict[str, tuple[list[Wave], list[str] | None]]
"""Name of a part of the report → windows, and the class of each if there is one."""


@dataclass(frozen=True)
class Settings:
    """Settings of the distillation.

    Attributes:
        train: Folders of sounds; a tenth of their sources is held out for the report.
        teacher: TensorFlow Lite file of YAMNet.
        root: Folder that the paths of sounds and teacher are relative to.
        test: Folders of sounds for the report alone.
        soundfonts: SoundFont files, whose instruments are rendered.
        clips: Clips per instrument and SoundFont.
        out: Folder of everything written.
        mixing: Settings of the mixtures in the windows.
        shards: Number of files with windows.
        shard: Windows per file.
        epochs: Passes over all windows.
        batch: Windows per step.
        lr: Peak of the learning rate, after a linear warm-up; a cosine leads to zero.
        warmup: Steps of the warm-up.
        weight_decay: Weight decay of AdamW, applied to weights with two dimensions or more.
        positive: Additional weight of a class that the teacher is certain of, in the loss of the scores.
        embedding: Weight of the loss of the embedding.
        ema: Decay of the moving average of the weights, which is what is saved.
        save_every: Steps between checkpoints.
        seed: Seed of windows, notes and order.
    """

    train: list[Folder]
    teacher: str
    root: str = "data"
    test: list[Folder] = field(default_factory=list)
    soundfonts: list[str] = field(default_factory=list)
    clips: int = 3
    out: str = "runs/distill_mobile_audio"
    mixing: Mixing = field(default_factory=Mixing)
    shards: int = 24
    shard: int = 2000
    epochs: int = 8
    batch: int = 128
    lr: float = 1e-3
    warmup: int = 100
    weight_decay: float = 1e-4
    positive: float = 10.0
    embedding: float = 2.0
    ema: float = 0.998
    save_every: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Shard:
    """Windows and the outputs of the teacher.

    Attributes:
        maps: (N, 512, 6, 4), the output of the layers that stay as the teacher's.
        embedding: (N, 1024).
        logits: (N, 521).
    """

    maps: Tensor
    embedding: Tensor
    logits: Tensor


def patches(waves: Sequence[Wave]) -> Tensor:
    """Return the log-mel patches (N, 1, 96, 64) of windows of 15,600 samples."""
    centre = torch.tensor([PATCH_SAMPLES // 2 / SAMPLE_RATE])
    return torch.cat([log_mel_at(torch.from_numpy(wave), centre) for wave in waves])


def float_teacher(net: MobileAudio) -> Teacher:
    """Return YAMNet's outputs computed in float32."""

    @torch.inference_mode()
    def teach(mel: Tensor) -> Outputs:
        embedding = torch.cat([net(part) for part in mel.split(64)])
        return Outputs(embedding.numpy(), net.scores(embedding).numpy())

    return teach


def trunk_of(net: MobileAudio) -> Trunk:
    """Return the first layers of a network."""

    @torch.inference_mode()
    def compute(mel: Tensor) -> Tensor:
        return torch.cat([net.features[:_TRUNK](part) for part in mel.split(64)])

    return compute


def write_shard(path: Path, mixer: Mixer, trunk: Trunk, teacher: Teacher, seeds: Sequence[int], count: int) -> None:
    """Write maps and outputs of the teacher for ``count`` random windows, unless the file exists."""
    if path.is_file():
        return
    rng = np.random.default_rng(seeds)
    mel = patches([mixer.window(rng) for _ in range(count)])
    outputs, maps = teacher(mel), trunk(mel).numpy()
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        np.savez(file, **{k: v.astype("f2") for k, v in {"maps": maps, **outputs._asdict()}.items()})
    os.replace(partial, path)


def read_shard(*paths: Path) -> Shard:
    """Read what :func:`write_shard` wrote; several files are joined."""
    parts = []
    for path in paths:
        with np.load(path) as arrays:
            parts.append([torch.from_numpy(arrays[f.name].astype(np.float32)) for f in dataclasses.fields(Shard)])
    return Shard(*(torch.cat(column) for column in zip(*parts, strict=True)))


class Student(nn.Module):
    """The network to distil, with the projection to the teacher's embedding that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = MobileAudio()
        self.project = nn.Linear(self.net.dim, 1024)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's embedding (N, 1024) and logits (N, 521), as predicted."""
        return self.late(self.net.features[:_TRUNK](mel))

    def late(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same for the maps (N, 512, 6, 4) of the layers that stay as the teacher's."""
        embedding = self.net.embed(self.net.features[_TRUNK:](maps))
        return self.project(embedding), self.net.scores(embedding)

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters of the layers that learn."""
        modules = self.net.features[_TRUNK:], self.net.scores, self.project
        return [parameter for module in modules for parameter in module.parameters()]


@torch.no_grad()
def truncate(teacher: MobileAudio, shard: Shard) -> Student:
    """Return a student with the teacher's weights, of the last layer those of its 512 most useful channels.

    A channel is useful by its standard deviation times the norm of its classifier weights. Classifier and projection
    are the ridge regressions of the teacher's logits and embedding on the channels that stay.
    """
    student = Student()
    useful = shard.embedding.std(0) * teacher.scores.weight.norm(dim=0)
    kept = useful.topk(student.net.dim).indices.sort().values
    for ours, theirs in zip(student.net.convolutions(), teacher.convolutions(), strict=True):
        rows = kept if theirs.out_channels != ours.out_channels else slice(None)
        ours.weight.copy_(theirs.weight[rows])
        assert ours.bias is not None
        assert theirs.bias is not None
        ours.bias.copy_(theirs.bias[rows])
    for linear, target in ((student.net.scores, shard.logits), (student.project, shard.embedding)):
        weight, bias = ridge(shard.embedding[:, kept], target)
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return student


def start(teacher: MobileAudio, shards: Sequence[Path]) -> Student:
    """Return :func:`truncate`, fitted to the first four shards."""
    return truncate(teacher, read_shard(*shards[:_START]))


def ridge(inputs: Tensor, targets: Tensor, strength: float = 1e-2) -> tuple[Tensor, Tensor]:
    """Return weight (out, in) and bias (out,) of the ridge regression of targets (N, out) on inputs (N, in).

    Args:
        inputs: (N, in).
        targets: (N, out).
        strength: Strength of the penalty, relative to the mean variance of the inputs.
    """
    x_mean, y_mean = inputs.double().mean(0), targets.double().mean(0)
    x, y = inputs.double() - x_mean, targets.double() - y_mean
    gram = x.T @ x
    gram.diagonal().add_(strength * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, x.T @ y).T
    return weight.float(), (y_mean - weight @ x_mean).float()


def loss(predicted: tuple[Tensor, Tensor], shard: Shard, s: Settings) -> dict[str, Tensor]:
    """Return the two terms, to be added: ``scores`` and ``embedding``.

    ``scores`` is the cross-entropy to the teacher's scores minus their entropy, summed over classes, likely classes
    weighing more; ``embedding`` is 1 - cosine plus the squared error relative to the variance.
    """
    embedding, logits = predicted
    p = shard.logits.sigmoid()
    distance = binary_cross_entropy_with_logits(logits, p, reduction="none") - binary_cross_entropy_with_logits(
        shard.logits, p, reduction="none"
    )
    scores = ((1 + s.positive * p) * distance).sum(1).mean()
    apart = 1 - cosine_similarity(embedding, shard.embedding).mean()
    error = (embedding - shard.embedding).square().mean() / shard.embedding.var(0).mean().clamp(min=1e-6)
    return {"scores": scores, "embedding": s.embedding * (apart + error)}


def order(s: Settings, epoch: int) -> list[int]:
    """Return the order of shards in an epoch."""
    return [int(i) for i in np.random.default_rng([s.seed, 1, epoch]).permutation(s.shards)]


def batches(s: Settings, epoch: int, shard: int) -> list[NDArray[np.int64]]:
    """Return the indices of each full batch of a shard in an epoch."""
    shuffled = np.random.default_rng([s.seed, 2, epoch, shard]).permutation(s.shard)
    return np.split(shuffled[: s.shard // s.batch * s.batch], s.shard // s.batch)


class Training:
    """The training, which can be stopped and resumed at any checkpoint.

    Args:
        s: Settings.
        student: Trained in place.
        shards: Files of the windows.
    """

    def __init__(self, s: Settings, student: Student, shards: Sequence[Path]) -> None:
        self.s, self.student, self._shards = s, student, shards
        self.average = torch.optim.swa_utils.AveragedModel(
            student, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(s.ema)
        )
        decayed = [p for p in student.trained() if p.ndim > 1]
        kept = [p for p in student.trained() if p.ndim == 1]
        groups = [{"params": decayed, "weight_decay": s.weight_decay}, {"params": kept, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=s.lr)
        self.step = 0
        self.steps = s.epochs * s.shards * (s.shard // s.batch)
        self._path = Path(s.out) / "state.pt"
        self.losses = {"scores": 0.0, "embedding": 0.0}

    def resume(self) -> None:
        """Load the last checkpoint, if there is one."""
        if self._path.is_file():
            state = torch.load(self._path, weights_only=True)
            self.student.load_state_dict(state["student"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.losses = state["step"], state["losses"]

    def save(self) -> None:
        """Write a checkpoint, and the averaged weights by themselves."""
        parts = {name: getattr(self, name).state_dict() for name in ("student", "average", "optimizer")}
        partial = self._path.with_suffix(".tmp")
        torch.save({**parts, "step": self.step, "losses": self.losses}, partial)
        os.replace(partial, self._path)
        weights = self._path.with_name(f".{WEIGHTS}")
        # Python creates the file, with the permissions the user expects; safetensors would make it private.
        weights.write_bytes(serialise(self.averaged().net.state_dict(), metadata={"format": "pt"}))
        os.replace(weights, self._path.with_name(WEIGHTS))

    def averaged(self) -> Student:
        """Return the student with the moving average of its weights."""
        return cast(Student, self.average.module)

    def run(self, until: int | None = None) -> None:
        """Train to the end, or up to a step."""
        last = self.steps if until is None else min(until, self.steps)
        for step, batch in track(self._left(), "distil", total=self.steps - self.step):
            if step >= last:
                break
            self._learn(batch)
            if self.step % self.s.save_every == 0 or self.step == last:
                self.save()

    def _left(self) -> Iterator[tuple[int, Shard]]:
        """Yield each batch that is left; completed shards are not read."""
        step = 0
        for epoch in range(self.s.epochs):
            for number in order(self.s, epoch):
                indices = batches(self.s, epoch, number)
                if step + len(indices) > self.step:
                    shard = read_shard(self._shards[number])
                    for i, chosen in enumerate(indices):
                        if step + i >= self.step:
                            yield step + i, Shard(*(getattr(shard, f.name)[chosen] for f in dataclasses.fields(Shard)))
                step += len(indices)

    def _learn(self, batch: Shard) -> None:
        """Make one step."""
        warm = min(1.0, (self.step + 1) / self.s.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.s.lr * warm * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        terms = loss(self.student.late(batch.maps), batch, self.s)
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            raise ConfigError(f"the loss is {total.item()} at step {self.step}: lower lr")
        self.optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.student.trained(), 5.0)
        self.optimizer.step()
        self.average.update_parameters(self.student)
        self.step += 1
        self.losses = {k: 0.99 * self.losses[k] + 0.01 * v.item() for k, v in terms.items()}


def libraries(s: Settings) -> tuple[Library, Library]:
    """Return the sounds to train on, held-out ones included, and the sounds for the report alone."""

    def all_sounds() -> Iterator[tuple[str, str, Wave]]:
        yield from recordings(Path(s.root), s.train)
        for font in s.soundfonts:
            yield from instruments(Path(font), s.clips, s.seed)

    return (
        cached(Path(s.out) / "sounds", all_sounds()),
        cached(Path(s.out) / "test_sounds", recordings(Path(s.root), s.test)),
    )


def prepare(s: Settings, mixer: Mixer, trunk: Trunk, teacher: Teacher) -> list[Path]:
    """Write all shards that are missing; return their paths."""
    paths = [Path(s.out) / f"windows_{i:03d}.npz" for i in range(s.shards)]
    for i, path in enumerate(track(paths, "windows")):
        write_shard(path, mixer, trunk, teacher, (s.seed, 0, i), s.shard)
    return paths


def outputs_of(student: Student) -> Teacher:
    """Return the predictions of the teacher's outputs by a student, in evaluation mode."""
    student.eval()

    @torch.inference_mode()
    def predict(mel: Tensor) -> Outputs:
        predicted = [student(part) for part in mel.split(64)]
        return Outputs(*(torch.cat(outputs).numpy() for outputs in zip(*predicted, strict=True)))

    return predict


def report(
    networks: dict[str, Teacher], file: Callable[[NDArray[np.float32]], Outputs], parts: Parts
) -> dict[str, Any]:
    """Return the agreement of networks with the last of them and with the file, on each part.

    Args:
        networks: Name → network; the last is the float32 teacher.
        file: Takes waveforms (N, 15600).
        parts: Name → windows, and the class of each if there is one.
    """
    reference = list(networks)[-1]
    found: dict[str, Any] = {}
    for name, (waves, labels) in parts.items():
        mel, theirs = patches(waves), file(np.stack(waves))
        outputs = {network: compute(mel) for network, compute in networks.items()}
        found[name] = {
            f"{network} and {reference}": agreement(outputs[network], outputs[reference], labels)
            for network in outputs
            if network != reference
        } | {f"{network} and YAMNet's file": agreement(outputs[network], theirs) for network in outputs}
    return found


def parts_of(s: Settings, held_out: Library, test: Library) -> Parts:
    """Return the windows of the report: whole recordings and instruments, and 1,000 random mixtures of both."""
    real = Library(held_out.samples, [e for e in held_out.entries if not e.label.startswith("midi_")])
    notes = Library(held_out.samples, [e for e in held_out.entries if e.label.startswith("midi_")])
    rng = np.random.default_rng([s.seed, 3])
    mixer = Mixer(held_out, s.mixing)
    parts: Parts = {
        "held-out recordings": windows(real),
        "held-out instruments": (windows(notes)[0], None),
        "held-out mixtures": ([mixer.window(rng) for _ in range(1000)], None),
        "test recordings": windows(test),
    }
    return {name: part for name, part in parts.items() if part[0]}


def windows(library: Library) -> tuple[list[Wave], list[str] | None]:
    """Return consecutive windows of all sounds and the class of each; what is shorter is padded with silence."""
    waves, labels = [], []
    for entry in library.entries:
        wave = library.wave(entry)
        wave = np.pad(wave, (0, max(PATCH_SAMPLES - len(wave), 0)))
        for start in range(0, len(wave) - PATCH_SAMPLES + 1, PATCH_SAMPLES):
            waves.append(wave[start : start + PATCH_SAMPLES])
            labels.append(entry.label)
    return waves, labels


def distil(s: Settings, command: str) -> None:
    """Prepare, train, report."""
    torch.manual_seed(s.seed)
    sounds, test = libraries(s)
    yamnet = network(Path(s.root) / s.teacher)
    mixer = Mixer(sounds.part(held_out=False), s.mixing)
    shards = prepare(s, mixer, trunk_of(yamnet), float_teacher(yamnet))
    training = Training(s, start(yamnet, shards), shards)
    training.resume()
    training.run()
    networks = {
        "student": outputs_of(training.averaged()),
        "start": outputs_of(start(yamnet, shards)),
        "YAMNet in float32": float_teacher(yamnet),
    }
    found = report(networks, Yamnet(Path(s.root) / s.teacher), parts_of(s, sounds.part(held_out=True), test))
    counts = {"steps": training.steps, "parameters": sum(p.numel() for p in training.averaged().net.parameters())}
    result = {**provenance(command), "settings": dataclasses.asdict(s), **counts, "agreement": found}
    write_result(Path(s.out) / REPORT, result)


def settings(argv: Sequence[str]) -> Settings:
    """Return the settings of a command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file; flags override it")
    parser.add_class_arguments(Settings)
    words = parser.parse_args(argv).as_dict()
    del words["config"]
    folders = {name: [Folder(**words[name][i]) for i in range(len(words[name]))] for name in ("train", "test")}
    return Settings(**words | folders | {"mixing": Mixing(**words["mixing"])})


def main(argv: Sequence[str]) -> None:
    """Read the settings and distil."""
    s = settings(argv)
    with mistakes_in_a_line():
        distil(s, shlex.join(["python", "benchmarks/distill_audio.py", *argv]))
    Console().print(f"weights and report are in {s.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
