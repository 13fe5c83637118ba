"""Measure the J lost by ``mobile`` against YAMNet, its teacher, on the benchmark composed-v1.

Run ``python benchmarks/teacher_audio.py STOCK WORK YAMNET.tflite MODEL OUT.json``. MODEL is a PCMANet with the audio
encoder ``mobile``. It is measured twice: as it is, and with YAMNet in float32 in place of ``mobile``. Since YAMNet has
a 1024-dimensional embedding, the linear layer behind the encoder is fitted again, by ridge regression to its former
outputs on clips of the training part of STOCK. The class prior takes the scores of the encoder in use. Nothing else
changes, and nothing is trained.
"""

import copy
import shlex
import sys
import warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import yaml
from torch import Tensor, nn

from _common import mistakes_in_a_line
from avseg.checkpoints.store import load
from avseg.data.composed import ComposedClips
from avseg.errors import ConfigError
from avseg.evaluation.evaluate import evaluate
from avseg.models.pcmanet import PCMANet
from avseg.nn.mobile_audio import MobileAudio
from avseg.provenance import provenance, write_result
from composed_v1 import HERE, clips, gather
from distill_audio import ridge
from yamnet import network

_FITTED, _HELD_OUT = 400, 40
"""Clips that the linear layer is fitted to, and clips that the fit is checked on."""


def patches(stock: Path, count: int) -> Tensor:
    """Return the log-mel patches (N, 1, 96, 64) of composed training clips."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has (recordings|pictures)")
        data = ComposedClips(ComposedClips.Config(root=str(stock), size=32), "train")
    return torch.cat([data[k].clip.audio[0] for k in range(count)])


@torch.inference_mode()
def with_teacher(model: PCMANet, teacher: MobileAudio, mel: Tensor, held_out: int) -> tuple[PCMANet, float]:
    """Return a copy of a model with the teacher as its audio encoder, and R² of the new linear layer.

    Args:
        model: With the audio encoder ``mobile``.
        teacher: YAMNet.
        mel: Patches (N, 1, 96, 64).
        held_out: The last patches, which R² is measured on and the layer is not fitted to.
    """
    changed = copy.deepcopy(model)
    outputs = model.audio_linear(_embeddings(cast(MobileAudio, model.audio.net), mel))
    inputs = _embeddings(teacher, mel)
    weight, bias = ridge(inputs[:-held_out], outputs[:-held_out])
    changed.audio.net, changed.audio.dim = teacher, teacher.dim
    changed.audio_linear = nn.Linear(teacher.dim, len(bias))
    changed.audio_linear.weight.copy_(weight)
    changed.audio_linear.bias.copy_(bias)
    expected = outputs[-held_out:]
    left = (changed.audio_linear(inputs[-held_out:]) - expected).square().sum()
    return changed.eval(), 1 - (left / (expected - expected.mean(0)).square().sum()).item()


def _embeddings(net: MobileAudio, mel: Tensor) -> Tensor:
    return torch.cat([net(part) for part in mel.split(64)])


def main(argv: Sequence[str]) -> None:
    """Run the comparison."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("stock", type=Path, help="folder made by collect_material.py")
    parser.add_argument("work", type=Path, help="folder for the files of composed-v1")
    parser.add_argument("teacher", type=Path, help="yamnet.tflite")
    parser.add_argument("model", help="bundled name, folder or Hub id")
    parser.add_argument("out", type=Path, help="JSON file to write")
    words = parser.parse_args(argv)
    with mistakes_in_a_line():
        model = load(words.model)
        if not isinstance(model, PCMANet) or not isinstance(model.audio.net, MobileAudio):
            raise ConfigError(f"{words.model} is not a PCMANet with the audio encoder mobile: give another model")
        gather(words.stock, words.work)
        mel = patches(words.stock, _FITTED + _HELD_OUT)
        taught, r2 = with_teacher(model, network(words.teacher), mel, len(mel) * _HELD_OUT // (_FITTED + _HELD_OUT))
        settings = yaml.safe_load((HERE / "settings.yaml").read_text(encoding="utf-8"))
        data = clips(model, words.work, settings["clips"])
        j = {
            name: evaluate(used, data, negatives=False)["scores"]["avsbench"]["j"]
            for name, used in (("mobile", model), ("yamnet", taught))
        }
        name = Path(words.model).name
        command = ["python", "benchmarks/teacher_audio.py", "STOCK", "WORK", "yamnet.tflite", name, str(words.out)]
        numbers = {"clips": len(data), "j": j, "lost": j["yamnet"] - j["mobile"], "linear_r2": r2}
        write_result(words.out, {**provenance(shlex.join(command)), "config": settings["clips"], "numbers": numbers})
    sys.stdout.write(f"J {j['mobile']:.3f} with mobile, {j['yamnet']:.3f} with YAMNet; R² of the layer {r2:.4f}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
