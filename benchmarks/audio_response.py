"""Measure AMA's audio responses: ``python benchmarks/audio_response.py RUNS OUT LABEL …``.

RUNS is the folder of an ``avseg bench``, each LABEL a model of it with audio responses (maps ``attention/ama1`` …). The
last weights of every seed are run twice on test clips: with their own audio, and with that of the next clip. For both,
and each stage: area under the ROC curve for the classification of tokens as sounding by the response, all tokens of all
frames ranked together (50 is chance). The difference of both is the effect of the audio.

OUT.json has mean and deviation over seeds, OUT.md the table.
"""

import itertools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.functional import interpolate

import avseg
from _common import arguments, cell, mistakes_in_a_line, over_seeds, seeds
from avseg.data import Sample, build_dataset
from avseg.errors import ConfigError
from avseg.evaluation.evaluate import data_settings, evaluating
from avseg.files import write_text
from avseg.interface import IGNORE, AVSModel, Clip
from avseg.metrics.calibration import BinnedAUROC
from avseg.provenance import provenance, write_result

PREFIX = "attention/ama"
SOUNDS = ("own", "another")
"""Source of the audio of a clip."""


@torch.inference_mode()
def responses(model: AVSModel, clip: Clip) -> dict[str, Tensor]:
    """Return stage → S after a sigmoid, (T, h, w)."""
    with evaluating(model):
        maps = model(clip, maps=True).maps
    return {name.removeprefix(PREFIX): x[0, :, 0] for name, x in maps.items() if name.startswith(PREFIX)}


def count(ranking: BinnedAUROC, response: Tensor, sample: Sample) -> None:
    """Count the tokens of labelled frames; the label of a token is that of the nearest pixel."""
    masks = sample.target.masks[0].unsqueeze(1).float()
    labels = interpolate(masks, response.shape[-2:], mode="nearest-exact")[:, 0]
    counted = (labels != IGNORE) & sample.target.labelled[0][:, None, None]
    ranking.update(response[counted], labels[counted] != 0)


def measure(run: Path, clips: int) -> dict[str, dict[str, float]]:
    """Return stage → source of the audio → area under the curve."""
    model = avseg.load(run / "last")
    data = build_dataset(split="test", **data_settings(model.card, {}, str(run)))
    found: dict[str, dict[str, BinnedAUROC]] = {}
    samples = (
        data[i % len(data)] for i in track(range(min(clips, len(data)) + 1), str(run), console=Console(stderr=True))
    )
    for sample, after in itertools.pairwise(samples):
        swapped = Clip(sample.clip.frames, after.clip.audio, sample.clip.valid)
        for source, clip in zip(SOUNDS, (sample.clip, swapped), strict=True):
            for stage, response in responses(model, clip).items():
                ranking = found.setdefault(stage, {}).setdefault(source, BinnedAUROC())
                count(ranking, response, sample)
    if not found:
        raise ConfigError(f"{run} holds a model without audio responses: choose another label")
    return {stage: {source: ranking.auroc for source, ranking in of.items()} for stage, of in sorted(found.items())}


def main(argv: Sequence[str]) -> None:
    """Measure, and write both files."""
    parser = arguments(__doc__)
    parser.add_argument("--clips", type=int, default=40, help="number of clips (default: 40)")
    args = parser.parse_args(argv)
    with mistakes_in_a_line():
        found = {label: [measure(r, args.clips) for r in of] for label, of in seeds(args.runs, args.labels).items()}
        numbers = {
            label: {
                stage: {source: over_seeds([run[stage][source] for run in of_seeds]) for source in SOUNDS}
                for stage in of_seeds[0]
            }
            for label, of_seeds in found.items()
        }
        command = shlex.join(["python", "benchmarks/audio_response.py", *argv])
        config = {"clips": args.clips, "split": "test"}
        write_result(args.out.with_suffix(".json"), {**provenance(command), "config": config, "numbers": numbers})
        rows = [
            f"| {label} | {stage} | {' | '.join(cell(of[source]) for source in SOUNDS)} |"
            for label, stages in numbers.items()
            for stage, of in stages.items()
        ]
        heads = ["| model | stage | own audio | audio of another clip |", "| --- | --- | ---: | ---: |"]
        words = "\n".join([f"`{command}`", "", *heads, *rows, ""])
        write_text(args.out.with_suffix(".md"), words)
    Console().print(words, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1:])
