"""Time avseg against the programs of the authors: ``python benchmarks/against_releases.py ROW CHECKOUT OUT.json``.

CHECKOUT is a clone of the program of the row, of which nothing is part of this project. Both sides get the same random
weights; their outputs are compared before they are timed.

====================  ===========================================  ==================================================
row                   clone of github.com                          compared
====================  ===========================================  ==================================================
``pcmanet_resnet50``  ``PrettyPlate/PCMANet``                      logits of five 224 × 224 frames
``pcmanet_pvt``       ``PrettyPlate/PCMANet``                      the same with PVT-v2-b5
``tpavi_resnet50``    ``OpenNLPLab/AVSBench``                      logits of five 224 × 224 frames
``training``          ``PrettyPlate/PCMANet``                      loss, gradient and peak memory, two clips
``fmeasure``          either                                       F of 20 frames of 224 × 224 over 255 thresholds
``logmel``            either                                       log-mel of 10 s of sound
====================  ===========================================  ==================================================

The package einops must be installed. Packages that the programs import without using them in the measured functions,
such as torchvision and cv2, are replaced by empty modules. The forms of a row alternate in one process on one thread;
see :mod:`speed` for the clock and the ratios, of which the release is the first form.
"""

import importlib
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from _common import mistakes_in_a_line
from avseg import log_mel, optimize
from avseg.checkpoints.release import from_release
from avseg.errors import ConfigError
from avseg.interface import AVSModel, Clip, Target
from avseg.metrics import binary_fscore
from avseg.models.pcmanet import PCMANet
from avseg.nn.fast_training import fast_layers
from avseg.provenance import provenance, write_result
from speed import SHARE, alternate, gated

FRAMES, SIZE = 5, 224
MODELS = {
    "pcmanet_resnet50": ("ResNet_AVSModel", "PCMANet", {}),
    "pcmanet_pvt": ("PVT_AVSModel", "PCMANet", {}),
    "tpavi_resnet50": ("ResNet_AVSModel", "Pred_endecoder", {"tpavi_stages": [0, 1, 2, 3]}),
}
"""Module, class and settings of a model of a release."""
_TIMM = {
    "DropPath": lambda _: nn.Identity(),  # as in evaluation mode
    "to_2tuple": lambda size: (size, size),
    "trunc_normal_": nn.init.trunc_normal_,
    "register_model": lambda function: function,
    "_cfg": dict,
}
_REPLACED = ("timm.models.layers", "timm.models.registry", "timm.models.vision_transformer")
_UNUSED = ("timm", "timm.models", "torchvision", "torchvision.models", "torchvision.transforms", "cv2", "pandas")


def _modules() -> dict[str, ModuleType]:
    """Return the modules that replace packages during the import of a release."""
    made = {name: ModuleType(name) for name in (*_UNUSED, *_REPLACED)}
    for name in _REPLACED:
        vars(made[name]).update(_TIMM)
    vars(made["torchvision"]).update(models=made["torchvision.models"], transforms=made["torchvision.transforms"])
    return made


@contextmanager
def program(checkout: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Yield the importer of modules of a release, whose transfers to a GPU do nothing.

    Raises:
        ConfigError: When the folder is not a release, or a package that it imports is missing.
    """
    folder = checkout / "avs_scripts" / "avs_s4"
    if not folder.is_dir():
        raise ConfigError(f"{checkout} is no clone of a release: it has no folder avs_scripts/avs_s4")

    def load(name: str) -> ModuleType:
        try:
            with patch.dict(sys.modules, _modules()):
                return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ConfigError(f"the release imports {error.name}: install it") from error

    def stay(x: Tensor, *_: object, **__: object) -> Tensor:
        return x

    with patch.object(sys, "path", [str(folder), *sys.path]), patch.object(Tensor, "cuda", stay):
        yield load


def fill(model: nn.Module) -> None:
    """Set random weights under which signals keep their size, masks keep some pixels, and no norm is the identity."""
    source = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=source)
        if name.endswith("num_batches_tracked"):
            noise = torch.zeros(value.shape)
        elif name.endswith("running_var"):
            noise = 0.75 + noise.abs() / 4
        elif value.ndim > 1:
            noise /= value[0].numel() ** 0.5
        else:
            noise = noise / 10 + name.endswith(".weight")
        if name.startswith("output_conv") and name.endswith("3.weight"):
            noise *= 12
        value.copy_(noise)


def released(row: str, load: Callable[[str], ModuleType]) -> nn.Module:
    """Build a model of a release with the weights of :func:`fill`, in evaluation mode."""
    module, name, settings = MODELS[row]
    kind = getattr(load(f"model.{module}"), name)
    with patch.object(kind, "initialize_weights"):
        model: nn.Module = kind(**settings)
    with torch.no_grad():
        fill(model)
    return model.eval()


def inputs(clips: int = 1) -> Clip:
    """Return random clips with audio embeddings."""
    source = torch.Generator().manual_seed(1)
    frames = torch.randn(clips, FRAMES, 3, SIZE, SIZE, generator=source)
    return Clip(frames, torch.randn(clips, FRAMES, 128, generator=source))


def inference(row: str, load: Callable[[str], ModuleType]) -> dict[str, Any]:
    """Time the release and the modes of our model."""
    theirs, clip = released(row, load), inputs()
    plain = from_release(theirs.state_dict())
    models: dict[str, AVSModel] = {"plain": plain, "exact": optimize(plain), "bf16": optimize(plain, "bf16")}
    if isinstance(plain, PCMANet):
        paper = with_settings_of_the_paper(plain)
        models |= {"paper": optimize(paper), "gated": gated(paper), "gated_bf16": gated(paper, ["gated", "bf16"])}
    outputs: dict[str, Tensor] = {}

    def call(name: str) -> Callable[[], None]:
        def ours() -> None:
            outputs[name] = models[name](clip).logits.flatten(0, 1).float()

        def release() -> None:
            outputs[name] = theirs(clip.frames.flatten(0, 1), clip.audio.flatten(0, 1))[0]

        return release if name == "release" else ours

    times = alternate({name: call(name) for name in ("release", *models)}, 5)
    expected = outputs["release"]
    differences = {
        name: {
            "largest": (outputs[name] - expected).abs().max().item(),
            "share_above_0.001": ((outputs[name] - expected).abs() > 1e-3).double().mean().item(),
            "masks_equal": ((outputs[name] > 0) == (expected > 0)).double().mean().item(),
        }
        for name in ("plain", "exact", "bf16")
    }
    kept = {f"uncertain_pixels_of_{name}": SHARE for name in models if name.startswith("gated")}
    return {"clip": [FRAMES, SIZE, SIZE], **kept, "forms": times, "differences_from_the_release": differences}


def with_settings_of_the_paper(model: PCMANet) -> PCMANet:
    """Return the model with the settings of the paper where the release differs, and the same weights."""
    fields = PCMANet.Config.__dataclass_fields__
    settings: dict[str, Any] = {name: fields[name].default for name in model.RELEASE}
    paper = PCMANet(replace(model.config, **settings), model.classes).eval()
    state = model.state_dict()
    name = "qsca.1.audio_qkv.weight"  # without the queries of an audio output that no layer uses
    paper.load_state_dict(state | {name: state[name][model.config.channels :]}, strict=False)
    return paper


class Steps:
    """Training steps of one side on the same two clips, of which the first frames are labelled, as in S4.

    Args:
        side: ``"release"``, our ``"plain"`` model, or ours as ``avseg train`` trains it (``"train"``).
        checkout: The release.
    """

    def __init__(self, side: str, checkout: Path) -> None:
        self.side, self.clip = side, inputs(2)
        self.masks = torch.zeros(2, FRAMES, SIZE, SIZE, dtype=torch.int64)
        self.masks[..., 60:150, 40:180] = 1
        with program(checkout) as load:
            theirs = released("pcmanet_resnet50", load)
            for name, value in theirs.named_parameters():
                if name.startswith("output_conv") and name.endswith("3.weight"):
                    value.data /= 100  # the release takes the logarithm of a sigmoid, which large logits make 0
            self.criterion = load("loss").BCEIOU_loss
        self.model: Any = theirs if side == "release" else from_release(theirs.state_dict())
        self.loss = self._release_loss if side == "release" else self._our_loss
        cpu = torch.device("cpu")
        self.layers = partial(fast_layers, self.model, cpu) if side == "train" else nullcontext
        self.model.train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4)

    def __call__(self) -> float:
        """Take one step and return the loss."""
        loss = self._backward()
        self.optimizer.step()
        if self.side == "train":
            self.optimizer.zero_grad()
        return loss

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of the parameters under the names of our model, without a step."""
        self._backward()
        found = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        self.optimizer.zero_grad()
        if self.side == "release":
            zeros = {name: torch.zeros_like(value) for name, value in self.model.state_dict().items()}
            found = dict(from_release({**zeros, **found}).named_parameters())
        return found

    def _backward(self) -> float:
        with torch.enable_grad(), patch.object(Tensor, "cuda", lambda x: x), self.layers():
            loss = self.loss()
            self.optimizer.zero_grad()
            loss.backward()
        return loss.item()

    def _release_loss(self) -> Tensor:
        outputs = self.model(self.clip.frames.flatten(0, 1), self.clip.audio.flatten(0, 1))[:4]
        total: Tensor = sum(self.criterion(output, self.masks[:, 0].float()) for output in outputs)
        return total

    def _our_loss(self) -> Tensor:
        labelled = torch.zeros(2, FRAMES, dtype=torch.bool)
        labelled[:, 0] = True
        target = Target(self.masks, labelled)
        return torch.stack([*self.model.loss(self.model(self.clip, target), target).values()]).sum()


def _peak(side: str, checkout: Path, steps: int = 2) -> float:
    """Return the peak memory in MiB of a process that takes training steps."""
    torch.set_num_threads(1)
    step = Steps(side, checkout)
    for _ in range(steps):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def training(checkout: Path) -> dict[str, Any]:
    """Time training steps, compare the first losses, and measure the peak memory of one process per side."""
    sides = ("release", "plain", "train")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {side: pool.apply(_peak, (side, checkout)) for side in sides}
    steps = {side: Steps(side, checkout) for side in sides}
    gradients = {side: step.gradients() for side, step in steps.items()}
    losses = {side: step() for side, step in steps.items()}
    differences = {side: _difference(gradients[side], gradients["release"]) for side in sides}
    times = alternate(steps, 4)
    return {
        "batch": [2, FRAMES, SIZE, SIZE],
        "first_losses": losses,
        "relative_gradient_differences": differences,
        "peak_mib": peaks,
        "forms": times,
    }


def _difference(gradients: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the norm of the differences of gradients divided by the norm of those expected."""
    ours, theirs = (torch.cat([g[name].flatten() for name in gradients]) for g in (gradients, expected))
    return float((ours - theirs).norm() / theirs.norm())


def fmeasure(load: Callable[[str], ModuleType]) -> dict[str, Any]:
    """Time F over 20 frames and compare the values."""
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(20, SIZE, SIZE, generator=source)
    truth = (logits + torch.randn(logits.shape, generator=source) > 0.5).float()
    theirs = load("utils.utility").Eval_Fmeasure
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, patch("builtins.print"):

        def release() -> None:
            found["release"] = theirs(logits, truth, folder)

        def ours() -> None:
            found["avseg"] = binary_fscore(logits, truth).item()

        times = alternate({"release": release, "avseg": ours})
    return {"frames": [len(logits), SIZE, SIZE], "values": found, "forms": times}


def logmel(load: Callable[[str], ModuleType]) -> dict[str, Any]:
    """Time the log-mel patches of 10 s and compare the values."""
    waveform = (np.random.default_rng(0).normal(size=160_000) * 0.1).astype(np.float32)
    features, constants = load("torchvggish.mel_features"), load("torchvggish.vggish_params")

    def release() -> Any:
        return features.log_mel_spectrogram(
            waveform.astype(np.float64),
            audio_sample_rate=constants.SAMPLE_RATE,
            log_offset=constants.LOG_OFFSET,
            window_length_secs=constants.STFT_WINDOW_LENGTH_SECONDS,
            hop_length_secs=constants.STFT_HOP_LENGTH_SECONDS,
            num_mel_bins=constants.NUM_MEL_BINS,
            lower_edge_hertz=constants.MEL_MIN_HZ,
            upper_edge_hertz=constants.MEL_MAX_HZ,
        )

    ours = log_mel(waveform, 16_000).flatten(0, 2)
    difference = np.abs(release()[: len(ours)] - ours.numpy()).max()
    times = alternate({"release": release, "avseg": lambda: log_mel(waveform, 16_000)}, 15)
    return {"seconds_of_sound": 10, "largest_difference": float(difference), "forms": times}


def _version(checkout: Path) -> str | None:
    """Return the commit of a clone, None without git."""
    git = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


@torch.no_grad()
def main(row: str, checkout: str, out: str) -> None:
    """Measure one row and write it.

    Raises:
        ConfigError: When the row does not exist.
    """
    folder, start = Path(checkout), time.perf_counter()
    torch.set_num_threads(1)
    report = provenance(f"OMP_NUM_THREADS=1 python benchmarks/against_releases.py {row} CHECKOUT {out}")
    with program(folder) as load:
        rows: dict[str, Callable[[], dict[str, Any]]] = {
            **{name: lambda name=name: inference(name, load) for name in MODELS},  # type: ignore[misc]
            "training": lambda: training(folder),
            "fmeasure": lambda: fmeasure(load),
            "logmel": lambda: logmel(load),
        }
        if row not in rows:
            raise ConfigError(f"unknown row {row!r}: choose from {', '.join(rows)}")
        numbers = rows[row]()
    config = {"row": row, "release": _version(folder), "clock": "CPU time of the process", "threads": 1}
    seconds = time.perf_counter() - start
    write_result(Path(out), {**report, "config": {**config, "wall_seconds": seconds}, "numbers": numbers})


if __name__ == "__main__":
    with mistakes_in_a_line():
        main(*sys.argv[1:])
